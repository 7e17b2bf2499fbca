#!/usr/bin/env -S python3 -B
"""The gateway in a cluster: deploy/kubernetes/websocket-eks.yaml with three gateways, under 200 clients,
while backends are scaled 1, 5, 0, 1, both are rolled out, a gateway is killed and the token is replaced.
By hand, not in `.ci/run`. The cluster must have the image wspulse:0.2.0; `KUBECTL` is the command for
it, and `NODE` one that runs the rest of its arguments where addresses of Services can be reached."""

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

import tools

tools.rerun_inside(tools.venv("node", ["pyyaml"]))

import yaml  # noqa: E402

from harness import BINARY, check, equal, finish, require_binary, section, until  # noqa: E402

KUBECTL = shlex.split(os.environ.get("KUBECTL", "kubectl"))
NODE = shlex.split(os.environ.get("NODE", ""))
NAMESPACE = "websocket-eks"
MANIFEST = Path(__file__).parents[2] / "deploy/kubernetes/websocket-eks.yaml"
CLIENTS = 200
RATE = 2


def kubectl(*args, stdin=None, budget_s=120):
    command = [*KUBECTL, "-n", NAMESPACE, *args]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=budget_s, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(args)}: {done.stderr.strip()[-400:]}")
    return done.stdout


def get(*args):
    return json.loads(kubectl("get", *args, "-o", "json"))


def on_node(*args, budget_s=10):
    return subprocess.run([*NODE, *args], capture_output=True, text=True, timeout=budget_s, check=False)


def deploy():
    objects = [one for one in yaml.safe_load_all(MANIFEST.read_text()) if one]
    served = kubectl("api-versions").split()
    for one in objects:
        if one["kind"] == "Deployment":
            name, container = one["metadata"]["name"], one["spec"]["template"]["spec"]["containers"][0]
            one["spec"]["replicas"] = {"gateway": 3, "backend": 1}[name]
            if name == "gateway":
                container["args"].append("--gateway-hold=30s")
    objects = [one for one in objects if one["apiVersion"] in served]
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
    kubectl("create", "namespace", NAMESPACE)
    for name, key in (("gateway", "token"), ("peers", "keys")):
        kubectl("create", "secret", "generic", name, f"--from-literal={key}={os.urandom(32).hex()}")
    kubectl("apply", "--validate=false", "-f", "-", stdin=yaml.safe_dump_all(objects))
    for name in ("backend", "gateway"):
        rolled_out(name)


def rolled_out(name):
    kubectl("rollout", "status", f"deployment/{name}", "--timeout=120s", budget_s=130)


def pods(app):
    return [pod for pod in get("pods", "-l", f"app={app}")["items"] if pod["status"].get("podIP")]


def backends_ready():
    return sum(all(c["ready"] for c in pod["status"].get("containerStatuses", [{"ready": False}]))
               for pod in pods("backend") if "deletionTimestamp" not in pod["metadata"])


class Metrics(threading.Thread):
    """The last metrics of each gateway, also of those that are gone."""

    def __init__(self):
        super().__init__(daemon=True)
        self.last, self.addresses, self.is_over = {}, {}, threading.Event()

    def run(self):
        turn = 0
        while not self.is_over.wait(0.3):
            if turn % 4 == 0:
                found = pods("gateway")
                self.addresses |= {pod["metadata"]["uid"]: pod["status"]["podIP"] for pod in found}
                known = {pod["metadata"]["uid"] for pod in found}
                self.addresses = {uid: ip for uid, ip in self.addresses.items() if uid in known}
            turn += 1
            for uid, address in self.addresses.items():
                done = on_node("curl", "-s", "-m", "1", f"http://{address}:8081/metrics")
                if done.returncode == 0 and done.stdout:
                    self.last[uid] = done.stdout

    def stop(self):
        self.is_over.set()
        self.join()
        return self.totals()

    def totals(self):
        counts = {}
        for text in self.last.values():
            for route, outcome, n in re.findall(
                    r'gateway_requests_total\{route="([^"]+)",outcome="([^"]+)"\} (\d+)', text):
                counts[route, outcome] = counts.get((route, outcome), 0) + int(n)
        return counts


def difference(before, after):
    return {key: after.get(key, 0) - before.get(key, 0) for key in after
            if after.get(key, 0) != before.get(key, 0)}


class Load:
    """Clients of the gateways, as a report once it is over."""

    def __init__(self, seconds):
        address = get("service", "gateway")["spec"]["clusterIP"]
        self.process = subprocess.Popen(
            [*NODE, str(BINARY), "load", f"ws://{address}:8080/gateway/prod", "--clients", str(CLIENTS),
             "--rate", f"{RATE}/s", "--duration", f"{seconds}s", "--timeout", "70s", "--reconnect", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def report(self):
        out, err = self.process.communicate(timeout=400)
        return json.loads(out) if out else {"error": err}


def under_load(what, seconds, disturb):
    """Runs `disturb` with clients connected; returns load's report and the gateways' counts."""
    metrics = Metrics()
    metrics.start()
    until(lambda: len(metrics.last) >= 3, 20)
    before = metrics.totals()
    load = Load(seconds)
    time.sleep(6)
    began = time.monotonic()
    disturb()
    took = time.monotonic() - began
    report = load.report()
    time.sleep(2)
    counts = difference(before, metrics.stop())
    shown = {key: report.get(key) for key in ("connected", "opened", "sent", "answered", "failed", "lost",
                                              "closes", "causes", "failed_attempts", "storm_peak")}
    print(f"# {what}: {took:.1f} s, p99 {report['latency']['p99_ms']:.0f} ms, max {report['latency']['max_ms']:.0f} ms,"
          f" load {shown}")
    print(f"# {what}: gateways {({' '.join(key): n for key, n in sorted(counts.items())})}", flush=True)
    return report, counts


def check_told(what, report, counts, may_lose=False):
    """Every message was answered, or load knows why not; and the gateways count the same."""
    left = report["sent"] - report["answered"] - report["failed"] - report["lost"]
    # Clients close at the end of the run, with at most the messages of a round trip in flight.
    check(f"{what}: each message is answered, failed or lost with its connection", 0 <= left <= CLIENTS,
          f"{left} of {report['sent']}")
    bad = sum(n for (route, outcome), n in counts.items() if route == "$default" and outcome != "ok")
    check(f"{what}: load and the gateways count the same failures", abs(bad - report["failed"]) <= left,
          f"{report['failed']} and {bad}")
    if not may_lose:
        equal(f"{what}: no message is lost", report["lost"], 0)
        equal(f"{what}: no connection ends early", set(report["closes"]), {"1000"})


def scale(name, replicas, wait=True):
    kubectl("scale", f"deployment/{name}", f"--replicas={replicas}")
    if wait:
        rolled_out(name)


def totals():
    """Requests to each backend so far."""
    counts = {}
    for pod in pods("backend"):
        done = on_node("curl", "-s", "-m", "1", f"http://{pod['status']['podIP']}:8501/stats")
        counts[pod["metadata"]["name"]] = json.loads(done.stdout)["requests"]["total"]
    return counts


def spread(before, after):
    return [n - before.get(name, 0) for name, n in after.items()]


def scaling():
    def disturb():
        scale("backend", 5)
        before = totals()
        time.sleep(15)
        middle = totals()
        check("scaling: each of 5 backends is used within 15 s", min(spread(before, middle)) > 0,
              spread(before, middle))
        time.sleep(15)
        shares.extend(spread(middle, totals()))
        scale("backend", 0, wait=False)
        check("scaling: no backend is left", until(lambda: not pods("backend"), 60))
        time.sleep(5)
        scale("backend", 1)
    shares = []
    report, counts = under_load("scaling", 110, disturb)
    check_told("scaling", report, counts)
    equal("scaling: no message failed, while there was no backend either", report["failed"], 0)
    print(f"# scaling: messages to each of 5 backends, {shares}")
    check("scaling: each of 5 backends has at least 10 % after that",
          len(shares) == 5 and min(shares) >= 0.1 * sum(shares), shares)


def backends_rolled_out():
    scale("backend", 3)

    def disturb():
        kubectl("rollout", "restart", "deployment/backend")
        rolled_out("backend")
    report, counts = under_load("rollout of backends", 60, disturb)
    check_told("rollout of backends", report, counts)
    equal("rollout of backends: no message failed", report["failed"], 0)


def gateways_rolled_out():
    def disturb():
        kubectl("rollout", "restart", "deployment/gateway")
        rolled_out("gateway")
    report, counts = under_load("rollout of gateways", 100, disturb)
    check_told("rollout of gateways", report, counts, may_lose=True)
    equal("rollout of gateways: no message failed", report["failed"], 0)
    check("rollout of gateways: sockets end with 1001, none is cut",
          set(report["closes"]) <= {"1000", "1001"}, report["closes"])
    # A message of a socket that is closing may have no answer any more.
    check("rollout of gateways: at most a message of each client is lost with its socket",
          report["lost"] <= CLIENTS, report["lost"])


def gateway_killed():
    def disturb():
        victim = pods("gateway")[0]["metadata"]["name"]
        kubectl("delete", "pod", victim, "--grace-period=0", "--force")
        rolled_out("gateway")
    report, counts = under_load("a gateway killed", 45, disturb)
    check_told("a gateway killed", report, counts, may_lose=True)
    ended = sum(n for code, n in report["closes"].items() if code != "1000")
    check("a gateway killed: only its own clients notice", ended <= 0.7 * CLIENTS, report["closes"])
    equal("a gateway killed: everybody is connected again", report["still_down"], 0)


def token_replaced():
    def disturb():
        secret = json.loads(kubectl("create", "secret", "generic", "gateway", "--dry-run=client", "-o", "json",
                                    f"--from-literal=token={os.urandom(32).hex()}"))
        kubectl("apply", "-f", "-", stdin=json.dumps(secret))
        # Kubelets take up to 60 s + 60 s to write it, the processes up to 60 s to read it.
        time.sleep(200)
    report, counts = under_load("the token replaced", 215, disturb)
    check_told("the token replaced", report, counts)
    equal("the token replaced: no message failed", report["failed"], 0)


def main():
    require_binary()
    deploy()
    chosen = sys.argv[1:]
    for run in (scaling, backends_rolled_out, gateways_rolled_out, gateway_killed, token_replaced):
        if not chosen or run.__name__ in chosen:
            section(run)
    kubectl("delete", "namespace", NAMESPACE)
    finish()


main()
