#!/usr/bin/env -S python3 -B
"""A rollout on one machine: two servers behind HAProxy and clients that reconnect; one server is
drained and restarted, then the other. `wspulse load` reports the result. Then with kill -9.

    tests/external/rollout.py
"""

import json
import shutil
import signal
import subprocess
import time
import urllib.request

import harness
import tools
from harness import SCRATCH, Server, check, clean_environment, equal, free_port, launch, timed_section

CLIENTS = 100
HAPROXY = """
global
    maxconn 2000
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
    timeout tunnel 1h
    retries 3
    option redispatch 1
    retry-on conn-failure
frontend in
    bind 127.0.0.1:{port}
    default_backend pods
backend pods
    balance leastconn
    option httpchk GET /readyz
    server pod-0 127.0.0.1:{main0} check port {admin0} inter 100ms fall 1 rise 1
    server pod-1 127.0.0.1:{main1} check port {admin1} inter 100ms fall 1 rise 1
"""


class Pods:
    """Two servers on fixed ports, and HAProxy in front of them."""

    def __init__(self):
        self.ports = [(free_port(), free_port()) for _ in range(2)]
        self.servers = [self.start(0), self.start(1)]
        self.port = free_port()
        (main0, admin0), (main1, admin1) = self.ports
        config = SCRATCH / "haproxy.cfg"
        config.write_text(HAPROXY.format(port=self.port, main0=main0, admin0=admin0,
                                         main1=main1, admin1=admin1))
        self.proxy = launch(["haproxy", "-db", "-f", str(config)], stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_until_serving()

    def start(self, index):
        main, admin = self.ports[index]
        # As in Kubernetes, with shorter times: not ready first, then connections are closed.
        return Server("--profile", "kubernetes", "--drain-delay", "500ms", "--drain-window", "500ms",
                      main=f"127.0.0.1:{main}", admin=f"127.0.0.1:{admin}",
                      env={"POD_NAME": f"pod-{index}"})

    def wait_until_serving(self):
        for _ in range(200):
            code, _, _ = harness.wspulse("load", self.url, "--clients", "1", "--messages", "1")
            if code == 0:
                return
            time.sleep(0.05)
        raise RuntimeError("HAProxy does not serve")

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}/echo"

    def load(self, *flags, hold="8s"):
        """Clients that stay connected; returns once all are."""
        command = [harness.BINARY, "load", self.url, "--clients", str(CLIENTS), "--hold", hold,
                   "--reconnect", "--max-errors", "0", "--max-downtime", "5s", "--json", *flags]
        process = launch(command, env=clean_environment(), stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 5
        while sum(map(connections, self.servers)) < CLIENTS and time.monotonic() < end:
            time.sleep(0.02)
        return process

    def stop(self):
        for server in self.servers:
            server.kill()
        self.proxy.kill()
        self.proxy.wait()


def connections(server):
    """Open WebSockets of this server, from its /stats."""
    with urllib.request.urlopen(server.url("/stats", listener="admin"), timeout=2) as answer:
        return json.load(answer)["connections"]["active"]


def result(process):
    out, err = process.communicate(timeout=30)
    print(f"# {out.strip()}", flush=True)
    try:
        return process.returncode, json.loads(out)
    except ValueError:
        raise RuntimeError(f"no report: {err[:300]}") from None


def rollout():
    """Drain and restart one server, then the other: clients reconnect within a second, no message is lost."""
    pods = Pods()
    try:
        load = pods.load()
        time.sleep(0.5)
        equal("the first server exits with 0", pods.servers[0].stop(), 0)
        pods.servers[0] = pods.start(0)
        time.sleep(0.5)  # HAProxy's next health check
        equal("the second server exits with 0", pods.servers[1].stop(), 0)
        pods.servers[1] = pods.start(1)
        code, report = result(load)
    finally:
        pods.stop()
    equal("load: exit code", code, 0)
    equal("all clients were connected", report["connected"], CLIENTS)
    equal("no message is lost", report["lost"], 0)
    equal("no errors", (report["errors"], report["causes"]), (0, {}))
    equal("all reconnected", report["still_down"], 0)
    closes, downtime = report["closes"], report["downtime"]
    check("each client got 1001 about twice, and closed with 1000 at the end",
          closes.get("1001", 0) >= CLIENTS and closes.get("1000") == CLIENTS and len(closes) == 2,
          closes)
    equal("one downtime per 1001", downtime["count"], closes.get("1001"))
    times = [downtime[key] for key in ("p50_ms", "p99_ms", "max_ms")]
    check("downtime: p50 ≤ p99 ≤ max, all below a second", 0 < times[0] <= times[1]
          <= times[2] < 1000, downtime)
    peak = report["storm_peak"]
    check("the reconnect peak is at most the number of attempts",
          0 < peak <= closes["1001"] + sum(report["failed_attempts"].values()), peak)
    names = {server["name"] for server in report["servers"]}
    equal("both servers are in the report", names, {"pod-0", "pod-1"})


def disaster():
    """kill -9: no Close, so 1006, and --max-errors is exceeded."""
    pods = Pods()
    try:
        load = pods.load(hold="3s")
        pods.servers[0].signal(signal.SIGKILL)
        code, report = result(load)
    finally:
        pods.stop()
    equal("load: exit code after kill -9", code, 3)
    check("clients of the killed server got 1006", report["closes"].get("1006", 0) >= CLIENTS // 4,
          report["closes"])
    check("the report names 1006 as a cause",
          "broken" in report["causes"], report["causes"])
    equal("the report names the missed threshold", [text.split(":")[0] for text in report["missed"]],
          ["--max-errors 0"])
    equal("all reconnected to the other server", report["still_down"], 0)


def main():
    if not shutil.which("haproxy"):
        tools.carry_out(["apt-get", "update"])
        tools.carry_out(["apt-get", "install", "--yes", "--no-install-recommends", "haproxy"])
    tools.install_only()
    harness.require_binary()
    timed_section(rollout)
    timed_section(disaster)
    harness.finish()


if __name__ == "__main__":
    main()
