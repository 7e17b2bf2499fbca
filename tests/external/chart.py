#!/usr/bin/env -S python3 -B
"""deploy/chart: linted, rendered with every value set, and started.

    tests/external/chart.py

The rendered objects are validated, their references to each other are checked, `wspulse` is started
with their arguments, and probes and hooks are called as the kubelet would call them.
"""

import base64
import json
import re
import tarfile
import tomllib

import kube  # first: it goes on in an environment that has what the others import

import harness
from harness import ROOT, SCRATCH, Server, check, equal, section
from kube import (HELM, PROBES, dangling, get, in_time, lifecycle, name_of, objects, of_kind, pods,
                  restricted, run, started_as)

CHART = ROOT / "deploy" / "chart"
RELEASE, NAMESPACE = "release", kube.NAMESPACE
ALB = "alb.ingress.kubernetes.io"
# Invalid settings, and a part of the error message that each must cause.
REFUSED = {
    "faults.enabled=true,ingress.enabled=true": "set faults.force=true if this is intended",
    "faults.enabled=true,service.type=LoadBalancer": "lets any client that reaches the port stop",
    "faults.enabled=true,httpRoute.enabled=true": "lets any client that reaches the port stop",
    "terminationGracePeriodSeconds=20": "wait 5 + window 15 + close handshake 5 + 5 spare make 30",
    "drain.announce=sleep,drain.wait=20,terminationGracePeriodSeconds=44": "make 45: raise it",
    "autoscaling.enabled=true,keda.enabled=true": "would both control the replicas",
    "keda.enabled=true,admin.service.enabled=false": "set admin.service.enabled=true",
    "serviceMonitor.enabled=true,admin.service.enabled=false": "set admin.service.enabled=true",
    "httpRoute.enabled=true": "httpRoute.parentRefs=[{name: …}]",
    "ingress.enabled=true,ingress.issuer=x": "ingress.hosts=[…]",
    "admin.port=8080": "containerPort and admin.port are both 8080",
    "config.listen=:80": "config.listen: the chart sets --listen from containerPort",
    "config.drain-delay=9s": "the chart sets --drain-delay from drain.wait",
    "env[0].name=WSPULSE_FAULTS,env[0].value=1": "env: WSPULSE_FAULTS: set wspulse's options",
    "deployments.enabled=true,ingress.enabled=true": "deployments.open=true if this is intended",
    "deployments.enabled=true,serviceAccount.create=false": "to the service account `default`",
    "deployments.enabled=true,config.kube=off": "the chart sets --kube, --kube-namespace",
    "gateway.enabled=true": "gateway.backend=URL, or backend.enabled=true",
    "gateway.enabled=true,backend.enabled=true,replicaCount=2": "set gateway.replicaCount",
    "gateway.enabled=true,backend.enabled=true,config.gateway-peer-listen=x": "sets it from gateway.…",
    "gateway.enabled=true,backend.enabled=true,admin.service.enabled=false": "callbacks use the admin service",
    "gateway.enabled=true,gateway.backend=orders:80": "at '/gateway/backend'",
    "gateway.enabled=true,backend.enabled=true,config.gateway-stage=x": "sets it from gateway.…",
    "backend.enabled=true": "needs a gateway for its answers",
    "replicas=2": "additional properties 'replicas' not allowed",
    "drain.announce=hok": "at '/drain/announce': value must be one of 'hook', 'sleep', 'server'",
    "drain.wait=5s": "at '/drain/wait': got string, want integer",
    "service.port=70000": "at '/service/port': maximum",
    "image.digest=sha256:12": "at '/image/digest'",
    "basePath=x": "at '/basePath'",
    "test.urls[0]=http://x": "at '/test/urls/0'",
    "test.flags[0]=insecure": "at '/test/flags/0'",
    "test.retries=-1": "at '/test/retries'",
    "ingress.hosts[0].hots=a": "additional properties 'hots' not allowed",
}


def template(*options):
    return run(HELM, "template", RELEASE, CHART, "--namespace", NAMESPACE, *options)


def value_sets():
    """The defaults and every file in ci/, rendered."""
    rendered = {}
    for path in [None, *sorted((CHART / "ci").glob("*-values.yaml"))]:
        name = path.name.removesuffix("-values.yaml") if path else "defaults"
        code, output = template(*(["--values", path] if path else []))
        if check(f"{name}: renders", code == 0, output):
            rendered[name] = objects(output)
    check(f"{len(rendered)} value sets, at least 8", len(rendered) >= 8)
    return rendered


def lint():
    for path in [None, *sorted((CHART / "ci").glob("*-values.yaml"))]:
        options = ["--values", path] if path else []
        code, output = run(HELM, "lint", "--strict", CHART, *options)
        check(f"helm lint --strict {path.name if path else ''}",
              code == 0 and "WARNING" not in output and "ERROR" not in output, output)
    chart = objects((CHART / "Chart.yaml").read_text())[0]
    crate = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    equal("version and appVersion are the crate's", (chart["version"], chart["appVersion"]),
          (crate, crate))
    code, output = run(HELM, "package", CHART, "--destination", SCRATCH)
    if check("helm package", code == 0, output):
        names = tarfile.open(SCRATCH / f"wspulse-{crate}.tgz").getnames()
        check("… without the files for tests", "wspulse/values.schema.json" in names
              and not any("ci/" in name or "checkov" in name or "_test" in name for name in names), names)


def refusals():
    for setting, wanted in REFUSED.items():
        code, output = template("--set", setting)
        check(f"{setting}: refused with a message", code != 0 and wanted in output, output)
    code, output = template("--set", "faults.enabled=true,faults.force=true,ingress.enabled=true")
    check("… but faults behind an ingress can be forced", code == 0 and "--faults" in output, output)


# ---- the rendered objects ------------------------------------------------------------------------

def validated(rendered):
    custom = []
    for name, documents in rendered.items():
        custom += kube.validate(name, documents)
        faults = restricted(documents)
        check(f"{name}: pods of the restricted level, without token and service links",
              not faults, faults)
        faults = dangling(documents)
        check(f"{name}: every selector, port and back end has a target", not faults, faults)
        deployments = {"shop"} if name == "deployments-namespace" else set()
        equal(f"{name}: all in the release's namespace, a role where it is used",
              {document["metadata"].get("namespace") for document in documents
               if document["kind"] not in kube.NOWHERE}, {NAMESPACE} | deployments)
        for deployment in of_kind(documents, "Deployment"):
            in_time(name, deployment["spec"]["template"]["spec"])
            equal(f"{name}: maxSurge 1, maxUnavailable 0",
                  deployment["spec"]["strategy"]["rollingUpdate"],
                  {"maxSurge": 1, "maxUnavailable": 0})
        public = of_kind(documents, "Ingress") + of_kind(documents, "HTTPRoute")
        check(f"{name}: no fault endpoints behind an ingress or a route",
              not public or "--faults" not in container(documents)["args"])
    faults = kube.custom_resources(custom)
    check(f"{sorted({document['kind'] for document in custom})}: valid, and no unknown fields",
          len(custom) >= 4 and not faults, faults)
    kube.checkov("the chart", rendered, CHART / ".checkov.yaml")


def container(documents, name="wspulse"):
    return next(own for _, _, pod in pods(documents) for own in pod["containers"]
                if own["name"] == name)


def details(rendered):
    """Single properties of single value sets."""
    for name in set(rendered) - {"gowebsockettest-local", "least"}:
        asked = [container(rendered[name])[probe]["httpGet"]["port"] for probe in PROBES]
        equal(f"{name}: all three probes use the admin port", asked, ["admin"] * 3)
    for name, documents in rendered.items():
        hung = [own["livenessProbe"].get("terminationGracePeriodSeconds")
                for _, _, pod in pods(documents) for own in pod["containers"]
                if "livenessProbe" in own]
        equal(f"{name}: a hung server is killed after 5 s, not after its hook", set(hung), {5})
    defaults = rendered["defaults"]
    equal("requests 5m and 8Mi, limits 100m and 128Mi", container(defaults)["resources"], {
        "requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"cpu": "100m", "memory": "128Mi"}})
    ports = {port["name"]: port for service in of_kind(defaults, "Service")
             for port in service["spec"]["ports"]}
    equal("appProtocol kubernetes.io/ws", ports["http"]["appProtocol"], "kubernetes.io/ws")
    policy = of_kind(defaults, "NetworkPolicy")[0]["spec"]
    equal("network policy: the clients' port is open to all, the admin port to three",
          [(rule["ports"][0]["port"], len(rule.get("from", []))) for rule in policy["ingress"]],
          [("http", 0), ("admin", 3)])
    equal("network policy: no outgoing traffic", policy["egress"], [])
    check("no replicas set if there is a scaler", all(
        "replicas" not in of_kind(rendered[name], "Deployment")[0]["spec"]
        for name in ("hpa-cpu", "hpa-connections", "keda", "keda-prometheus")))
    equal("least: only the required objects", sorted(map(name_of, rendered["least"])),
          ["Deployment/release-wspulse", "Job/release-wspulse-test", "Service/release-wspulse"])


def ingresses(rendered):
    """The keys of gowebsockettest's chart, and what ingress controllers need."""
    seed = {name_of(document): document for document in rendered["gowebsockettest"]}
    service = seed["Service/gowebsockettest"]["spec"]
    inside = container(rendered["gowebsockettest"])["ports"][0]["containerPort"]
    equal("gowebsockettest: NodePort 80 to 8080",
          (service["type"], service["ports"][0]["port"], inside), ("NodePort", 80, 8080))
    ingress = seed["Ingress/release-wspulse"]
    host = "gowebsockettest.example.com"
    equal("gowebsockettest: class, TLS",
          (ingress["spec"]["ingressClassName"], ingress["spec"]["tls"]),
          ("nginx", [{"hosts": [host], "secretName": "gowebsockettest-tls"}]))
    annotations = ingress["metadata"]["annotations"]
    check("gowebsockettest: issuer kept, read timeout added, the old class annotation removed",
          annotations.get("cert-manager.io/cluster-issuer") == "letsencrypt-prod"
          and annotations.get("nginx.ingress.kubernetes.io/proxy-read-timeout") == "3600"
          and "kubernetes.io/ingress.class" not in annotations, annotations)
    local = container(rendered["gowebsockettest-local"])
    own = [local[probe]["httpGet"] for probe in PROBES[1:]]
    equal("gowebsockettest-local: probes on the main port", own, [{"path": "/healthz", "port": 8080}] * 2)
    issued = of_kind(rendered["nginx"], "Ingress")[0]["spec"]["tls"]
    equal("nginx: one certificate of the issuer for all hosts", issued[0]["hosts"],
          ["ws.example.com", "other.example.com"])
    alb = of_kind(rendered["alb"], "Ingress")[0]["metadata"]["annotations"]
    check("alb: an idle timeout of an hour, and the user's own annotations",
          alb.get(f"{ALB}/load-balancer-attributes") == "idle_timeout.timeout_seconds=3600"
          and alb.get(f"{ALB}/scheme") == "internet-facing", alb)


def notes(rendered):
    """The objects in the commands that the notes print exist."""
    for name, documents in rendered.items():
        values = [] if name == "defaults" else ["--values", CHART / "ci" / f"{name}-values.yaml"]
        code, output = run(HELM, "install", RELEASE, CHART, "--namespace", NAMESPACE,
                         "--dry-run=client", *values)
        output = output.partition("NOTES:")[2]
        there = {name_of(document).lower() for document in documents}
        named = set(re.findall(r"(?:deployment|service)/[\w-]+", output))
        named |= {f"service/{found}" for found in re.findall(r"get service ([\w-]+)", output)}
        check(f"{name}: the notes name existing objects", code == 0 and len(named) >= 1 and named <= there
              and "wscat -c ws" in output, f"{named - there}: {output}")


# ---- the rendered arguments, at work -------------------------------------------------------------

def accepted(rendered):
    for name, documents in rendered.items():
        if of_kind(documents, "Secret") or name.startswith("rest-own"):
            if not kube.supports("--gateway-backend"):
                harness.not_run(f"{name}: its arguments", "this build has no gateway")
                continue
        args, env = started_as(container(documents))
        args = kube.with_files(args)
        code, _, err = harness.wspulse(*args, "--check", env=env)
        equal(f"{name}: wspulse --check finds nothing in its arguments", (code, err), (0, ""))


def measured(rendered):
    """The figures that the scalers and Prometheus read exist."""
    args, env = started_as(container(rendered["gateway"]))
    scaler = of_kind(rendered["keda"], "ScaledObject")[0]["spec"]["triggers"][0]["metadata"]
    with Server(*args, env=env) as server:
        status, body = get(server.url("/pulse/stats", "admin"))
        value = harness.json.loads(body) if status == 200 else {}
        for key in scaler["valueLocation"].split("."):
            value = value.get(key, {})
        check(f"keda: {scaler['valueLocation']} is a number in /stats", value == 0, (status, body))
        status, body = get(server.url("/pulse/metrics", "admin"))
        check("keda, HPA: websocket_connections_active is in /metrics",
              b"\nwebsocket_connections_active" in body, (status, body[:300]))


def deployments(rendered):
    """The feed of Deployments: off by default; if on, the role allows what it needs and no more."""
    args = container(rendered["defaults"])["args"]
    check("deployments off: no such mount, no role, no token", "--kube=off" in args
          and not kube.rights(rendered["defaults"]), args)
    for name, namespace in (("deployments", "default"), ("deployments-namespace", "shop")):
        seen = kube.viewer_lines(name, rendered[name])
        equal(f"{name}: viewers see all of a Deployment's life", (seen[0], seen[-1]),
              ("< Successfully processed deployment: web",
               f"< Deployment {namespace}/web has been deleted"))
        goes_out = of_kind(rendered[name], "NetworkPolicy")[0]["spec"]["egress"]
        check(f"{name}: the network policy lets it reach the API server's ports, nothing else",
              len(goes_out) == 1 and set(goes_out[0]) == {"ports"}, goes_out)
    inside = kube.rights(rendered["deployments-namespace"])[0][1]
    equal("deployments.namespace: a Role in that namespace only",
          (inside["kind"], inside["metadata"]["namespace"]), ("Role", "shop"))


def monitoring(rendered):
    """The files that monitoring.py checks are rendered unchanged, although they contain `{{`."""
    folder, documents = CHART / "monitoring", rendered["monitoring"]
    board = of_kind(documents, "ConfigMap")[0]["data"]["wspulse.json"]
    equal("dashboard: the file's", json.loads(board), json.loads((folder / "dashboard.json").read_text()))
    equal("alerts: the file's", of_kind(documents, "PrometheusRule")[0]["spec"],
          objects((folder / "alerts.yaml").read_text())[0])


def rest(rendered):
    """Gateway and backend: who may call whom, and both of them running."""
    documents = rendered["rest"]
    policies = {policy["metadata"]["name"]: policy["spec"]
                for policy in of_kind(documents, "NetworkPolicy")}
    front, back = policies["release-wspulse"], policies["release-wspulse-backend"]
    reached = [[rule["to"][0]["podSelector"] for rule in policy["egress"] if "to" in rule]
               for policy in (front, back)]
    equal("rest: each may call the other, gateways each other, and ask for names", reached,
          [[back["podSelector"], front["podSelector"]], [front["podSelector"]]])
    peers = [rule for rule in front["ingress"] if rule["ports"][0]["port"] == "peers"]
    equal("rest: the peer port is for the gateways alone", [rule["from"] for rule in peers],
          [[{"podSelector": front["podSelector"]}]])
    gateway = next(own for own in of_kind(documents, "Deployment")
                   if own["metadata"]["name"] == "release-wspulse")["spec"]
    spread = gateway["template"]["spec"]["topologySpreadConstraints"]
    equal("rest: three gateways, on different nodes if there are some", (gateway["replicas"],
          [own["topologyKey"] for own in spread]), (3, ["kubernetes.io/hostname"]))
    check("rest: one of them at a time may be evicted",
          any(own["spec"]["selector"] == gateway["selector"] and own["spec"]["maxUnavailable"] == 1
              for own in of_kind(documents, "PodDisruptionBudget")))
    callers = back["ingress"][0]["from"]
    check("rest: the backend is for the gateway, for Prometheus and for KEDA", len(callers) == 3
          and callers[0]["podSelector"] == front["podSelector"], callers)
    mounted = [volume["secret"]["secretName"] for _, _, pod in pods(documents)
               for volume in pod.get("volumes", [])]
    secret, peer_secret = of_kind(documents, "Secret")
    names = [own["metadata"]["name"] for own in (secret, peer_secret)]
    equal("rest: one token, in both, and a peer key in the gateways", sorted(mounted),
          sorted([names[0], *names]))
    key = base64.b64decode(base64.b64decode(peer_secret["data"]["keys"]))
    check("rest: … of 32 random bytes", len(key) == 32 and len(set(key)) > 10, len(key))
    equal("rest: … of 40 letters and digits",
          bool(re.fullmatch(r"\w{40}", base64.b64decode(secret["data"]["token"]).decode())), True)
    own = rendered["rest-own"]
    equal("rest-own: no backend and no secret from this chart", (len(of_kind(own, "Deployment")),
          of_kind(own, "Secret")), (1, []))
    aws = next(account for account in of_kind(rendered["rest-aws"], "ServiceAccount")
               if account["metadata"]["name"].endswith("-backend"))
    check("rest-aws: an identity by IRSA", "eks.amazonaws.com/role-arn"
          in aws["metadata"]["annotations"], aws)
    kube.rest("rest", container(documents), container(documents, "backend"),
              of_kind(documents, "ScaledObject")[0])


def helm_test(rendered):
    """What the pods of `helm test` run, against a server here instead of the services' names."""
    args, env = started_as(container(rendered["gateway"]))
    job = of_kind(rendered["gateway"], "Job")[0]["spec"]
    pod = job["template"]["spec"]
    asked = {own["name"]: own["args"] for own in pod["containers"]}
    equal("helm test: both listeners, and the path through the Service", list(asked), ["admin", "http", "service"])
    with Server(*args, env=env) as server:
        for name, args in asked.items():
            code, out, err = asked_at(args, server.admin if name == "admin" else server.main)
            check(f"helm test: {' '.join(args)}", code == 0, (code, out, err))
            if name == "service":
                check("… its log has the report", "No errors and no warnings" in out and "\nupgrade " in out, out)
        code, out, err = asked_at(asked["service"], server.admin)
        check("… a finding fails it, and is in the log", code == 3 and "\nerror: " in out, (code, out, err))
    for name, args in asked.items():
        code, out, err = asked_at(args, server.main)
        check(f"… {name} fails without a server", code == 1, (code, out, err))
    waits_s = sum(10 * 2 ** number for number in range(job["backoffLimit"]))
    check("… and is repeated for a minute at least, but ends before helm's 5 min", pod["restartPolicy"] == "Never"
          and 60 < waits_s < job["activeDeadlineSeconds"] - 60 < 240, job)


def asked_at(args, address):
    """Runs this command with another address in its URL."""
    where = ":".join(map(str, address))
    return harness.wspulse(*[re.sub(r"(?<=://)[^/]+", where, arg) for arg in args], budget_s=30)


def helm_test_outside(rendered):
    """`helm test` through the ingress: which URLs, and with which flags."""
    for name, wanted in (("defaults", []), ("nginx", ["wss://ws.example.com/echo", "wss://other.example.com/echo"]),
                         ("alb", ["wss://ws.example.com/echo"]), ("gowebsockettest", ["wss://gowebsockettest.example.com/echo"]),
                         ("gowebsockettest-local", ["ws://gowebsockettest.kubernetes.localhost/echo"])):
        equal(f"helm test, {name}: through the ingress", [args[1] for args in outside(rendered[name])], wanted)
    on = "ingress.enabled=true,basePath=/x"
    for options, wanted in (
            (f"{on},ingress.hosts={{*.example.com,a.example}}", [["ws://a.example/x/echo"]]),
            (f"{on},ingress.hosts[0].host=a.example,ingress.hosts[0].paths={{/x/ws/,/x/b}}", [["ws://a.example/x/ws"]]),
            (on, []), (f"{on},ingress.hosts={{a.example}},test.ingress=false", []),
            (f"{on},ingress.hosts={{a.example}},test.urls={{wss://b.example/echo}}", [["wss://b.example/echo"]]),
            ("test.urls={wss://b.example/echo},test.flags={--insecure}", [["wss://b.example/echo", "--insecure"]])):
        code, output = template("--set", options)
        seen = [[arg for arg in args if arg not in ("probe", "--quick")] for args in outside(objects(output))]
        equal(f"helm test, {options}", (code, seen), (0, wanted))
    with Server() as server:
        flags = f"test.flags={{--connect-to={':'.join(map(str, server.main))}}}"
        _, output = template("--set", f"ingress.enabled=true,ingress.hosts={{ws.example.com}},{flags}")
        code, out, err = harness.wspulse(*outside(objects(output))[0], budget_s=30)
        check("helm test: a host that pods cannot resolve, with --connect-to", code == 0 and "No errors and no warnings" in out, (code, out, err))


def outside(documents):
    return [own["args"] for job in of_kind(documents, "Job")
            for own in job["spec"]["template"]["spec"]["containers"] if own["name"].startswith("ingress")]


def main():
    harness.require_binary()
    section(lint)
    section(refusals)
    rendered = value_sets()
    for group in (validated, details, ingresses, notes, accepted, measured, deployments, monitoring, rest,
                  helm_test, helm_test_outside):
        section(group, rendered)
    for name in ("defaults", "gateway", "sleep", "server"):
        section(lifecycle, name, next(pods(rendered[name]))[2])
    harness.finish()


main()
