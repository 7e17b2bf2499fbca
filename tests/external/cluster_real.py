"""etcd and kube-apiserver 1.20, built from Debian's sources: a client certificate, a service account's
token, a user with the needed role and one without. kubectl makes the changes.
"""

import json
import subprocess
import time

import tools
from harness import SCRATCH, Server, check, equal, free_port, launch

SOURCES = "kubernetes 1.20 with golang-1.19"
# Like Debian's rules, it first generates the OpenAPI of all types. The vendored reflect2 is too old
# for this Go, Debian's package is not.
BUILD = r"""
set -e
cd "$1"
printf 'deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s bookworm main\n' \
    "$(sed -n 's/^URIs: \(.*debian\)$/\1/p; s/^deb \(.*debian\) bookworm.*/\1/p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -1)" > src.list
mkdir -p lists/partial
apt="apt-get -o Dir::Etc::sourcelist=$PWD/src.list -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$PWD/lists"
$apt update
$apt source --download-only kubernetes
export GOPATH=$PWD/go GO111MODULE=off CGO_ENABLED=0 GOTOOLCHAIN=local GOCACHE=$PWD/cache PATH=/usr/lib/go-1.19/bin:$PATH
home=$GOPATH/src/k8s.io/kubernetes
mkdir -p "$home"
tar -xf kubernetes_*.orig.tar.gz -C "$home" --strip-components=1
cd "$home"
rm -f vendor/github.com/modern-go/reflect2/*
cp /usr/share/gocode/src/github.com/modern-go/reflect2/*.[gs]* vendor/github.com/modern-go/reflect2/
rm -f vendor/github.com/modern-go/reflect2/*_test.go
go build -o "$1/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
types=$(grep -rl "+k8s:openapi-gen=true" --include=*.go pkg staging/src | xargs -n1 dirname | sort -u |
    grep -v "testdata\|sample-apiserver\|code-generator\|kube-openapi" |
    sed -e 's#^staging/src/#k8s.io/kubernetes/vendor/#' -e 's#^pkg/#k8s.io/kubernetes/pkg/#' | paste -sd,)
"$1/openapi-gen" -i "$types" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h hack/boilerplate/boilerplate.generatego.txt -r "$1/report" --output-base "$GOPATH/src"
sed -i '1,/^package/{/build openapi/d}' pkg/generated/openapi/zz_generated.openapi.go
go build -ldflags '-s -w -X k8s.io/component-base/version.gitVersion=v1.20.2 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=20' \
    -o "$1/kube-apiserver" ./cmd/kube-apiserver
rm -rf "$1/go" "$1/cache" "$1/lists" "$1"/kubernetes_* "$1/openapi-gen"
"""
HOME = tools.TOOLS / "kube-apiserver"
ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: watcher}
rules:
- {apiGroups: [apps], resources: [deployments, statefulsets, daemonsets], verbs: [list, watch]}
- {apiGroups: [""], resources: [pods], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: watcher}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: watcher}
subjects:
- {kind: User, name: viewer, apiGroup: rbac.authorization.k8s.io}
- {kind: ServiceAccount, name: wspulse, namespace: default}
"""


def install():
    tools.apt("etcd", "etcd-server")
    tools.apt("kubectl", "kubernetes-client")

    def steps(home):
        tools.carry_out(["apt-get", "install", "--yes", "--no-install-recommends", "golang-1.19-go",
                         "golang-github-modern-go-reflect2-dev"])
        home.mkdir(parents=True)
        script = home / "build.sh"
        script.write_text(BUILD)
        tools.carry_out(["nice", "bash", str(script), str(home)], budget_s=1800)
        yield ["test", "-x", str(home / "kube-apiserver")]
    tools.install("kube-apiserver", SOURCES, steps)


class Cluster:
    """An API server and its etcd, without nodes: the checks need no running Pods."""

    def __enter__(self):
        from cluster_api import openssl, vouch
        vouch("api", "/CN=kube-apiserver",
              "subjectAltName=DNS:localhost,DNS:kubernetes,IP:127.0.0.1")
        vouch("admin", "/O=system:masters/CN=admin", "extendedKeyUsage=clientAuth")
        vouch("viewer", "/CN=viewer", "extendedKeyUsage=clientAuth")
        vouch("other", "/CN=other", "extendedKeyUsage=clientAuth")
        openssl("genrsa", "-out", SCRATCH / "sa.key", "2048")
        openssl("rsa", "-in", SCRATCH / "sa.key", "-pubout", "-out", SCRATCH / "sa.pub")
        self.port, client, peer = free_port(), free_port(), free_port()
        log = open(SCRATCH / "cluster.log", "wb")
        etcd = f"http://127.0.0.1:{client}"
        self.etcd = launch(["etcd", "--data-dir", SCRATCH / "etcd", "--listen-client-urls", etcd,
                            "--advertise-client-urls", etcd, "--listen-peer-urls",
                            f"http://127.0.0.1:{peer}"], stdout=log, stderr=log)
        self.command = [
            HOME / "kube-apiserver", "--etcd-servers", etcd, "--secure-port", str(self.port),
            "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1",
            "--tls-cert-file", SCRATCH / "api.pem", "--tls-private-key-file", SCRATCH / "api.key",
            "--client-ca-file", SCRATCH / "ca.pem", "--authorization-mode", "RBAC",
            "--service-account-issuer", "https://kubernetes", "--service-account-key-file",
            SCRATCH / "sa.pub", "--service-account-signing-key-file", SCRATCH / "sa.key",
            "--service-cluster-ip-range", "10.0.0.0/24", "--cert-dir", SCRATCH / "made",
            "--disable-admission-plugins", "ServiceAccount"]
        self.log = log
        self.start()
        return self

    def start(self):
        self.api = launch(self.command, stdout=self.log, stderr=self.log)
        end = time.monotonic() + 60
        while self.kubectl("get", "--raw", "/readyz").returncode:
            if time.monotonic() > end or self.api.poll() is not None:
                raise RuntimeError((SCRATCH / "cluster.log").read_text(errors="replace")[-1500:])
            time.sleep(0.3)

    def stop(self):
        self.api.kill()
        self.api.wait()

    def __exit__(self, *_):
        self.stop()
        self.etcd.kill()
        self.etcd.wait()

    @property
    def url(self):
        return f"https://localhost:{self.port}"

    def kubectl(self, *args, text=None, check=False):
        return subprocess.run(
            ["kubectl", "--server", self.url, "--certificate-authority", SCRATCH / "ca.pem",
             "--client-certificate", SCRATCH / "admin.pem", "--client-key", SCRATCH / "admin.key",
             "--kubeconfig", "/dev/null", "--request-timeout", "10s", *args],
            input=text, text=True, capture_output=True, timeout=30, check=check)

    def token(self):
        """The token that a pod of this service account would find in its file."""
        self.kubectl("create", "serviceaccount", "wspulse")
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        made = self.kubectl("create", "-f", "-", "--raw",
                            "/api/v1/namespaces/default/serviceaccounts/wspulse/token",
                            text=json.dumps(request), check=True)
        return json.loads(made.stdout)["status"]["token"]


POD = """
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec: {nodeName: n1, containers: [{name: c, image: "c:1"}, {name: d, image: "d:1"}]}
"""
SETS = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: "db:1"}]}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template: {metadata: {labels: {app: agent}}, spec: {containers: [{name: c, image: "agent:1"}]}}
"""


def other_kinds(cluster, config, viewer):
    """Kubernetes 1.20 has no WatchList (422), so these are lists in pages."""
    names = "deployments,statefulsets,daemonsets,pods"
    with Server("--kube-resources", names, env={"KUBECONFIG": config}) as server:
        pods, all_of_them = viewer(server, "?format=json&kind=pods"), viewer(server, "?format=json&kind=*")
        pods.until("synced")
        cluster.kubectl("apply", "-f", "-", text=SETS + "---" + POD.replace("NAME", "one"), check=True)
        got = pods.until("added")[-1]
        equal("1.20: a Pod", (got["name"], got["node"], got["containers"], got["images"], got["restarts"]),
              ("one", "n1", {"ready": 0, "total": 2}, ["c:1", "d:1"], 0))
        status = {"status": {"phase": "Failed", "reason": "Evicted"}}
        patched = cluster.kubectl("get", "--raw", "/api/v1/namespaces/default/pods/one")
        document = {**json.loads(patched.stdout), **status}
        cluster.kubectl("replace", "--raw", "/api/v1/namespaces/default/pods/one/status", "-f", "-",
                        text=json.dumps(document), check=True)
        got = pods.until("modified")[-1]
        equal("… its status", (got["phase"], got["reason"]), ("Failed", "Evicted"))
        seen = set()
        while not {"statefulsets db", "daemonsets agent", "pods one"} <= seen:
            event = all_of_them.until("added")[-1]
            seen.add(f"{event['kind']} {event['name']}")
        check("… kind=*: all kinds", True)
        version = got["resourceVersion"]
        cluster.kubectl("delete", "pod", "one", "--grace-period=0", "--force", check=True)
        pods.until("deleted")
        again = viewer(server, f"?format=json&kind=pods&since={version}").until("synced")
        equal("… ?since=: only the deletion", [e["type"] for e in again if e["type"] != "modified"],
              ["deleted", "synced"])


def check_all(kubeconfig, viewer):
    with Cluster() as cluster:
        cluster.kubectl("apply", "-f", "-", text=ROLE, check=True)
        make = ("create", "deployment", "--image", "web:1")
        cluster.kubectl(*make, "web", check=True)
        config = kubeconfig(cluster.url, "client-certificate: viewer.pem", "client-key: viewer.key")
        with Server(env={"KUBECONFIG": config}) as server:
            text, feed = viewer(server, ""), viewer(server)
            equal("Kubernetes 1.20, by client certificate: existing Deployments", text.next(),
                  "Successfully processed deployment: web")
            feed.until("synced")
            scale = ("scale", "deployment", "web", "--replicas=3")
            cluster.kubectl(*scale, check=True)
            got = [json.loads(text.next())["message"], text.next()]
            equal("… kubectl scale", got, ["Deployment web updated - Replicas changed: 3",
                                            "Successfully processed deployment: web"])
            cluster.kubectl("set", "image", "deployment/web", "web=web:2", check=True)
            got = json.loads(text.next())["message"]
            equal("… kubectl set image", got, "Deployment web updated - Image changed: web:2")
            cluster.kubectl(*make, "db", check=True)
            cluster.kubectl("delete", "deployment", "web", check=True)
            got = [text.next() for _ in range(4)]
            equal("… created and deleted", got[1:], [
                "Successfully processed deployment: db", "Deployment web deleted",
                "Deployment default/web has been deleted"])
            seen = [feed.until("deleted")]
            check("… as JSON", [event["type"] for event in seen[0]][-2:] == ["added", "deleted"], seen)
            cluster.stop()
            feed.until("stale")
            cluster.start()
            cluster.kubectl("delete", "deployment", "db", check=True)
            got = feed.until("deleted")
            check("… the API server restarted: no event twice, none lost",
                  [event["type"] for event in got] in (["synced", "deleted"], ["deleted"],
                                                        ["stale", "synced", "deleted"]), got)
        other_kinds(cluster, config, viewer)
        (SCRATCH / "sa.token").write_text(cluster.token())
        cluster.kubectl(*make, "late", check=True)
        config = kubeconfig(cluster.url, "tokenFile: sa.token")
        with Server(env={"KUBECONFIG": config}) as server:
            equal("by a service account's token", viewer(server, "").next(),
                  "Successfully processed deployment: late")
        config = kubeconfig(cluster.url, "client-certificate: other.pem", "client-key: other.key")
        with Server(env={"KUBECONFIG": config}) as server:
            equal("a user without the role: viewers get the reason", viewer(server).until("stale")[-1]["reason"],
                  "forbidden: the role may not list and watch deployments")
        config = kubeconfig(cluster.url, "token: nonsense")
        with Server(env={"KUBECONFIG": config}) as server:
            equal("an invalid token", viewer(server).until("stale")[-1]["reason"],
                  "the API server does not accept the token")
