#!/usr/bin/env -S python3 -B
"""deploy/kubernetes: the plain manifests and the kustomizations, with the same checks as the chart.

    tests/external/manifests.py
"""

import datetime
import re
import subprocess
import tomllib

import kube  # first: it goes on in an environment that has what the others import

import harness
from harness import ROOT, check, equal, section
from kube import (HELM, KUBECTL, dangling, in_time, lifecycle, name_of, objects, of_kind, pods,
                  restricted, run, started_as)

FOLDER = ROOT / "deploy" / "kubernetes"
CHART = ROOT / "deploy" / "chart"
GUIDES = ("gowebsockettest", "ws-test", "websockets-test", "websocket-informer")
# Manifests whose pods need each other: they are started together.
TOGETHER = ("websocket-eks", "websocket-eks-keda", "websocket-eks-aws")
# Generators, which serve nothing.
LOAD = "load-job"
KUSTOMIZATIONS = ("base", "overlays/public")
# A probe's defaults.
DEFAULTS = {"timeoutSeconds": 1, "failureThreshold": 3}


def manifests():
    """Every file and every kustomization, as `kubectl -n ws apply` would send it."""
    found = {path.stem: objects(path.read_text()) for path in FOLDER.glob("*.yaml")}
    equal("each guide has its manifest", set(found), {*GUIDES, *TOGETHER, LOAD})
    for name in KUSTOMIZATIONS:
        code, output = run(KUBECTL, "kustomize", FOLDER / name)
        if check(f"kubectl kustomize {name}", code == 0, output):
            found[name.rpartition("/")[2]] = objects(output)
    for documents in found.values():
        for document in documents:
            if document["kind"] not in kube.NOWHERE:
                document["metadata"].setdefault("namespace", "ws")
    return found


def validated(found):
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    for name, documents in found.items():
        custom = kube.validate(name, documents)
        equal(f"{name}: no custom resources but a guide's own", {own["kind"] for own in custom},
              {"ScaledObject"} if name == "websocket-eks-keda" else set())
        faults = kube.custom_resources(custom) if custom else []
        # The scaler's guide builds on that of websocket-eks.
        there = documents + found["websocket-eks"] if custom else documents
        faults += restricted(documents) + dangling(there)
        check(f"{name}: restricted pods, and every reference has a target", not faults, faults)
        for _, _, pod in pods(of_kind(documents, "Deployment")):
            in_time(name, pod)
            own = pod["containers"][0]
            side = "admin" if any(port["name"] == "admin" for port in own["ports"]) else "http"
            equal(f"{name}: a hung server is killed after 5 s, not after its hook; a startup probe",
                  (own["livenessProbe"].get("terminationGracePeriodSeconds"),
                   own.get("startupProbe", {}).get("httpGet")), (5, {"path": "/livez", "port": side}))
            equal(f"{name}: the image of this version", own["image"], f"wspulse:{version}")
            if name in TOGETHER:
                continue
            args, env = started_as(own)
            code, _, err = harness.wspulse(*args, "--check", env=env)
            equal(f"{name}: wspulse --check finds nothing in its arguments", (code, err), (0, ""))
    kube.checkov("the manifests", found, CHART / ".checkov.yaml")


def commands(found):
    """The objects in a guide's commands are in its manifest or created by an earlier command."""
    for name in (*GUIDES, *TOGETHER):
        text = (FOLDER / f"{name}.yaml").read_text()
        head = text.partition("\napiVersion:")[0]
        named = set(re.findall(r"\b((?:deployment|service)/[\w-]+)", head))
        named |= {f"ingress/{found}" for found in re.findall(r"get ingress ([\w-]+)", head)}
        made = {f"deployment/{made}" for made in re.findall(r"create deployment ([\w-]+)", head)}
        there = {name_of(document).lower() for document in found[name]} | made
        check(f"{name}: its {len(named)} names exist", named <= there, named - there)
        files = re.findall(r"deploy/[\w./-]+", head)
        check(f"{name}: its files exist", files and all((ROOT / path).exists() for path in files)
              if "kubectl apply -f" in head else True, files)


def rest(found):
    """The gateway and its backend, started as in their guide."""
    documents = found["websocket-eks"]
    front, back = (next(pod["containers"][0] for _, _, pod in pods(documents)
                        if pod["containers"][0]["name"] == name) for name in ("gateway", "backend"))
    kube.rest("websocket-eks", front, back, one(found["websocket-eks-keda"], "ScaledObject"))
    services = {document["metadata"]["name"] for document in of_kind(documents, "Service")}
    hosts = re.findall(r"//([\w-]+)\.websocket-eks\.svc", " ".join(front["args"] + back["args"]))
    equal("websocket-eks: each finds the other by a service", (len(hosts), set(hosts) - services),
          (2, set()))
    aws, same = found["websocket-eks-aws"], ("ports", *kube.PROBES, "resources")
    theirs = container(aws)
    equal("websocket-eks-aws: the same backend", {key: theirs[key] for key in same},
          {key: back[key] for key in same})
    account = one(aws, "ServiceAccount")["metadata"]
    check("websocket-eks-aws: with an identity", "eks.amazonaws.com/role-arn" in account["annotations"]
          and next(pods(aws))[2]["serviceAccountName"] == account["name"], account)
    paths = [path["path"] for path in one(aws, "Ingress")["spec"]["rules"][0]["http"]["paths"]]
    equal("websocket-eks-aws: the ingress exposes only the gateway's paths", paths,
          ["/", "/connect"])


def one(documents, kind):
    return of_kind(documents, kind)[0]


def container(documents):
    return one(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]


def guides(found):
    """The properties that each walk-through relies on."""
    a, b, d, _ = (found[name] for name in GUIDES)
    ingress, service = one(a, "Ingress")["spec"], one(a, "Service")["spec"]
    equal("gowebsockettest: NodePort 80 to 8080, class nginx, TLS",
          (service["type"], service["ports"][0]["port"], service["ports"][0]["targetPort"],
           ingress["ingressClassName"], len(ingress["tls"])), ("NodePort", 80, 8080, "nginx", 1))
    probes = [container(a)[probe] for probe in ("readinessProbe", "livenessProbe")]
    equal("gowebsockettest: readiness 5/10, liveness 15/20, on /healthz",
          [(probe["httpGet"]["path"], probe["initialDelaySeconds"], probe["periodSeconds"])
           for probe in probes], [("/healthz", 5, 10), ("/healthz", 15, 20)])
    equal("gowebsockettest: requests are limits", container(a)["resources"]["requests"],
          container(a)["resources"]["limits"])
    hook = container(b)["lifecycle"]["preStop"]["httpGet"]
    equal("ws-test: preStop GET /api/shutdown",
          (hook["path"], hook["port"]), ("/api/shutdown", "admin"))
    health, port = container(b)["livenessProbe"]["httpGet"]["path"], container(b)["ports"][0]
    equal("ws-test: in namespace poc, with /api/health on 8085",
          (b[-1]["metadata"]["namespace"], health, port["containerPort"]), ("poc", "/api/health", 8085))
    port, own = one(d, "Service")["spec"]["ports"][0], container(d)
    equal("websockets-test: NodePort 32080 to port 80",
          (port["port"], port["nodePort"], own["ports"][0]["containerPort"]), (80, 32080, 80))
    equal("websockets-test: liveness every second", own["livenessProbe"]["periodSeconds"], 1)
    equal("websockets-test: as the guide starts it", (own["args"], own["env"]),
          (["--faults", "--mount", "/=echo?work=100ms"], [{"name": "PORT", "value": "80"}]))
    check("websockets-test: `kubectl scale` is not undone by the next apply",
          "replicas" not in one(d, "Deployment")["spec"])


def informer(found):
    """The lines in the walk-through at the head of the file."""
    text = (FOLDER / "websocket-informer.yaml").read_text()
    shown = re.findall(r"^#   (< .*)$", text, re.M)
    equal("websocket-informer: the lines of its guide",
          kube.viewer_lines("websocket-informer", found["websocket-informer"]), shown)


def load_job(found):
    """Generators that start together: their arguments, and the commands of the guide."""
    job = one(found[LOAD], "Job")
    pod = job["spec"]["template"]
    faults = restricted([job])
    check("load-job: a restricted pod", not faults, faults)
    equal("load-job: indexed, all at once, never twice",
          [job["spec"][key] for key in ("completionMode", "completions", "backoffLimit")]
          + [job["spec"]["parallelism"], pod["spec"]["restartPolicy"]], ["Indexed", 4, 0, 4, "Never"])
    own = pod["spec"]["containers"][0]
    services = {document["metadata"]["name"] for document in of_kind(found["base"], "Service")}
    check("load-job: the server is the base's", own["args"][1].split("/")[2] in services, own["args"])
    text = (FOLDER / f"{LOAD}.yaml").read_text()
    check("load-job: its guide starts, collects and merges",
          all(part in text for part in ("s/START_AT/", "job-name=wspulse-load --tail=-1", "--merge reports.json")))
    start = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)).strftime("%FT%TZ")
    shorter = {"1m": "1s", "250": "5"}
    with harness.Server() as server:
        args = [server.ws() if arg.startswith("ws:") else shorter.get(arg, arg) for arg in own["args"]]
        env = harness.clean_environment() | {own["env"][0]["name"]: start}
        generators = [harness.launch([str(harness.BINARY), *args], env=env, text=True,
                                     stdout=subprocess.PIPE) for _ in range(2)]
        reports = harness.SCRATCH / "reports.json"
        reports.write_text("".join(generator.communicate(timeout=30)[0] for generator in generators))
    code, page, err = harness.wspulse("load", "--merge", str(reports), "--max-errors", "0")
    check("load-job: its generators, one report", code == 0 and "2 generators" in page
          and "10 of 10 clients" in page, (code, page, err))


def same_as_chart(found):
    """The base has the same values as the chart's defaults."""
    code, output = run(HELM, "template", "wspulse", CHART, "--namespace", "ws")
    chart = objects(output) if check("the chart renders", code == 0, output) else []
    own, theirs = container(found["base"]), container(chart)
    for key in ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle", "resources",
                "securityContext"):
        equal(f"base and chart: {key}", DEFAULTS | own[key], DEFAULTS | theirs[key])
    for key in ("securityContext", "terminationGracePeriodSeconds", "enableServiceLinks"):
        equal(f"base and chart: {key}", *({name: pod for name, _, pod in pods(documents)}[
            "Deployment/wspulse"][key] for documents in (found["base"], chart)))
    for kind in ("NetworkPolicy", "PodDisruptionBudget"):
        specs = [without(one(some, kind)) for some in (found["base"], chart)]
        equal(f"base and chart: {kind}", *specs)
    public = found["public"]
    equal("overlay: three replicas behind an ingress",
          (one(public, "Deployment")["spec"]["replicas"], len(of_kind(public, "Ingress"))), (3, 1))


def readme_install(found):
    """The objects that the README's commands name exist; readme.py checks their files."""
    text = (ROOT / "README.md").read_text().partition("## Install")[2]
    blocks = re.findall(r"```sh[^\n]*\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)
    check("README, Install: at least four ways, at most five commands each",
          len(blocks) >= 4 and all(len(block.splitlines()) <= 5 for block in blocks), blocks)
    named = {name.title() for name in re.findall(r"(?:deployment|service)/wspulse", text)}
    there = {name_of(document).title() for document in found["base"]}
    check("README, Install: the objects exist", named and named <= there, named - there)


def without(document):
    """A specification without selectors: the chart's labels differ."""
    spec = {key: value for key, value in document["spec"].items() if "elector" not in key}
    for rule in spec.get("ingress", []):
        rule["ports"] = [port["port"] for port in rule["ports"]]
    return spec | {"egress": spec.get("egress", [])}


def main():
    harness.require_binary()
    found = manifests()
    for group in (validated, commands, guides, informer, rest, load_job, same_as_chart, readme_install):
        section(group, found)
    for name in (*GUIDES, "base"):
        section(lifecycle, name, next(pods(found[name]))[2])
    harness.finish()


main()
