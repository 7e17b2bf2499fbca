#!/usr/bin/env -S python3 -B
"""A fleet for as long as wanted: three gateways with TLS behind HAProxy are replaced one after the
other, while backends go from 0 to 5 and back. Each message has one fate; nothing is left at the end.

    tests/external/fleet.py                     four minutes
    FLEET_MINUTES=60 tests/external/fleet.py    longer; FLEET_SEED=7 sets the seed

Not part of CI. Everything is on at once: TLS, compression, the informer with all kinds, callbacks
through any replica, `probe` between restarts. It installs HAProxy and websockets, and needs `unshare`.
"""

import asyncio
import contextlib
import json
import os
import random
import re
import secrets
import subprocess
import sys
import time
import urllib.request
from collections import Counter

import tools

HAPROXY = tools.apt("haproxy", "haproxy")
PYTHON = tools.venv("clients", ["websockets>=17,<18", "aiohttp>=3.14,<4", "websocket-client>=1.9,<2"])
tools.install_only()
tools.rerun_inside(PYTHON)

INSIDE = "WSPULSE_TEST_NAMESPACE"
if INSIDE not in os.environ:
    os.environ[INSIDE] = "1"
    user = [] if os.geteuid() == 0 else ["-r"]
    os.execvp("unshare", ["unshare", *user, "-mn", sys.executable, "-B", *sys.argv])

from websockets.asyncio.client import connect  # noqa: E402
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402

import harness  # noqa: E402
import soak_parts  # noqa: E402
from backend_parts import Backend  # noqa: E402
from backends import Names, ask_own_names  # noqa: E402
from cluster_api import authority, vouch  # noqa: E402
from harness import SCRATCH, Server, check, equal, launch, records, section, until  # noqa: E402

MINUTES = float(os.environ.get("FLEET_MINUTES") or 4)
SEED = int(os.environ.get("FLEET_SEED") or 20261130)
MAIN, ADMIN, PEERS, BACKENDS = 8080, 8081, 8083, 8501
FRONT, CALLBACKS = 8443, 8090
KINDS = "deployments,statefulsets,daemonsets,pods"
TALKERS, CHURN, VIEWERS = 40, 8, 6
PATIENCE_S = 45  # a request has 29 s, after up to 30 s without any backend; at 0 it is for 10 s at most
WARNINGS = {
    "informer": r"API server|ends the watch",
    "gateway-failed": r"request to the backend failed",  # judged by the error frames
    "suppressed": r"suppressed \d+",
}


class Replica:
    """A gateway that is replaced at its addresses."""

    def __init__(self, number, api):
        self.host, self.api, self.logs, self.server = f"127.0.0.{11 + number}", api, [], None

    def start(self):
        self.server = Server(
            "--tls-cert", str(SCRATCH / "shown.pem"), "--tls-key", str(SCRATCH / "shown.key"),
            "--gateway-backend", f"http://api.test:{BACKENDS}", "--gateway-hold", "30s",
            "--gateway-peer-key-file", str(SCRATCH / "peer-keys"),
            "--gateway-peer-listen", f"{self.host}:{PEERS}",
            "--kube", self.api.url("127.0.0.1"), "--kube-resources", KINDS,
            "--ping-interval", "5s", "--pong-timeout", "5s",
            "--drain-delay", "2s", "--drain-window", "4s", "--drain-timeout", "20s",
            main=f"{self.host}:{MAIN}", admin=f"{self.host}:{ADMIN}")
        self.logs.append(self.server)
        return self

    def stats(self):
        return json.load(urllib.request.urlopen(self.server.url("/stats", "admin"), timeout=10))

    def figure(self, name):
        text = urllib.request.urlopen(self.server.url("/metrics", "admin"), timeout=10).read().decode()
        return sum(float(row.rsplit(" ", 1)[1]) for row in text.splitlines() if re.match(rf"{name}[ {{]", row))

    def rss_kib(self):
        return int(open(f"/proc/{self.server.process.pid}/statm").read().split()[1]) * 4


class Fleet:
    """Replicas, backends, HAProxy and DNS, and what clients have seen."""

    def __init__(self):
        self.rng = random.Random(SEED)
        self.names, self.api = Names(), soak_parts.FlakyApi(count=20).start()
        self.trust = soak_parts.trust()
        self.replicas = [Replica(number, self.api).start() for number in range(3)]
        self.backends, self.backend_logs, self.codes = {}, [], Counter()
        self.tally, self.failures, self.answer_ms = Counter(), [], []
        self.drained_until, self.reachable_since = 0, None
        self.over = asyncio.Event()
        self.haproxy()

    def haproxy(self):
        def servers(port):
            return "\n".join(f"  server r{n} {r.host}:{port} check addr {r.host} port {ADMIN} inter 200ms fall 1 rise 1"
                             for n, r in enumerate(self.replicas))
        config = SCRATCH / "haproxy.cfg"
        config.write_text(f"""
global
  maxconn 8000
defaults
  timeout connect 2s
  timeout client 120s
  timeout server 120s
  timeout tunnel 1h
  retries 3
  option redispatch 1
  option httpchk GET /readyz
listen sockets
  mode tcp
  bind 127.0.0.1:{FRONT}
  balance roundrobin
{servers(MAIN)}
listen callbacks
  mode http
  bind 127.0.0.1:{CALLBACKS}
  balance roundrobin
{servers(ADMIN)}
""")
        launch([HAPROXY, "-f", str(config), "-db"], stdin=subprocess.DEVNULL,
               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def client(self, path, rng):
        return connect(f"wss://127.0.0.1:{FRONT}{path}", ssl=self.trust, server_hostname="localhost",
                       compression=rng.choice([None, "deflate"]), max_size=None, open_timeout=45,
                       close_timeout=15, ping_interval=None)

    def fail(self, what):
        self.tally["failures"] += 1
        self.failures.append(what[:300])
        print(f"# failure: {what[:300]}", flush=True)

    # ---- backends ----

    async def scale(self, wanted):
        """A new backend is named once it listens; an old one ends once no replica may still name it."""
        while len(self.backends) < wanted:
            last = next(n for n in range(21, 40) if n not in self.backends)
            self.backends[last] = await asyncio.to_thread(
                Backend, "--listen", f"127.0.0.{last}:{BACKENDS}", "--gateway", f"http://127.0.0.1:{CALLBACKS}",
                "--log-level", "info", "--drain-delay", "6s", "--drain-window", "1s", "--drain-timeout", "40s")
            self.backend_logs.append(self.backends[last])
        leaving = [self.backends.pop(last) for last in list(self.backends)[wanted:]]
        self.names.names["api.test"] = list(self.backends)
        self.reachable_since = (self.reachable_since or time.monotonic()) if self.backends else None
        for backend in leaving:
            backend.signal()
        for backend in leaving:
            self.codes["backend", await asyncio.to_thread(backend.wait, 50)] += 1

    def may_give_up(self):
        """A gateway that drains holds no messages for a backend that is not there: it says so. It may not
        yet have heard of one that has just come."""
        now = time.monotonic()
        since = self.reachable_since
        return now < self.drained_until and (since is None or now - since < 2)

    async def scales(self):
        """1 to 5 at random; 0 for a while in each round."""
        while not self.over.is_set():
            for wanted in (*self.rng.sample(range(1, 6), 3), 0):
                await self.scale(wanted)
                self.tally["scalings"] += 1
                if await soak_parts.asleep(self.over, self.rng.uniform(2, 10)):
                    break
        await self.scale(3)

    # ---- replicas ----

    async def restarts(self, end):
        while time.monotonic() < end:
            for replica in self.rng.sample(self.replicas, 3):
                self.drained_until = float("inf")
                replica.server.signal()
                self.codes["gateway", await asyncio.to_thread(replica.server.wait, 30)] += 1
                self.drained_until = time.monotonic() + 1  # what is still to be read
                await asyncio.to_thread(replica.start)
                self.tally["restarts"] += 1
                await asyncio.sleep(self.rng.uniform(1, 4))
            await self.probe()
            await self.health(15)
        self.over.set()

    async def probe(self):
        """Between restarts the path is without fault."""
        process = launch([harness.BINARY, "probe", f"wss://localhost:{FRONT}/echo", "--quick", "--ca-file",
                          str(SCRATCH / "ca.pem")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         env=harness.clean_environment())
        out, _ = await asyncio.to_thread(process.communicate, timeout=60)
        self.tally["probes"] += 1
        if process.returncode != 0:
            self.fail(f"probe: {process.returncode}: {out.decode()[-250:]}")

    async def health(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for replica in self.replicas:
                try:
                    await asyncio.to_thread(lambda r=replica: urllib.request.urlopen(
                        r.server.url("/readyz", "admin"), timeout=5).read())
                    self.tally["ready"] += 1
                except OSError as error:
                    self.fail(f"readyz: {error}")
            await asyncio.sleep(0.5)


# ---- clients ----------------------------------------------------------------------------------------

async def always(fleet, kind, name):
    """One client after the other."""
    rng = random.Random(f"{SEED} {name}")
    while not fleet.over.is_set():
        try:
            await kind(fleet, rng, name)
            fleet.tally[kind.__name__] += 1
        except ConnectionClosed as end:
            if not end.rcvd or end.rcvd.code != 1001:
                fleet.fail(f"{name}: {end}")
            fleet.tally["closed by a drain"] += 1
        except InvalidStatus as refused:
            if refused.response.status_code == 503 and fleet.may_give_up():
                fleet.tally["turned away by a drain at zero"] += 1
            else:
                fleet.fail(f"{name}: {refused.response.status_code}")
        except Exception as error:  # any error: the run continues and fails at its end
            fleet.fail(f"{name}: {type(error).__name__} {error}")
        await asyncio.sleep(rng.uniform(0, 0.2))


async def talks(fleet, rng, name):
    """Messages to the backends, a few at a time. Each is answered once; what a drain cuts is counted."""
    waiting, answered, number = {}, set(), 0
    end = time.monotonic() + rng.uniform(5, 90)
    async with fleet.client("/gateway/prod", rng) as peer:
        try:
            while waiting or (time.monotonic() < end and not fleet.over.is_set()):
                if time.monotonic() < end and not fleet.over.is_set() and len(waiting) < 3:
                    text, number = f"{name} {number} {'x' * rng.choice([1, 100, 3000])}", number + 1
                    waiting[text] = time.monotonic()
                    fleet.tally["messages"] += 1
                    await peer.send(text)
                    await asyncio.sleep(rng.uniform(0, 0.1))
                with contextlib.suppress(TimeoutError):
                    got = await asyncio.wait_for(peer.recv(), rng.uniform(0.05, 0.5))
                    text = got.removeprefix("Got message:")
                    if text in waiting:
                        fleet.answer_ms.append(1000 * (time.monotonic() - waiting.pop(text)))
                        answered.add(text)
                        fleet.tally["answers"] += 1
                    elif text in answered:
                        fleet.fail(f"{name}: answered twice: {text[:40]}")
                    elif "requestId" in got and waiting and fleet.may_give_up():
                        waiting.pop(min(waiting, key=waiting.get))  # they are asked one after the other
                        fleet.tally["given up by a drain at zero"] += 1
                    else:
                        fleet.fail(f"{name}: {got[:160]}")
                if waiting and time.monotonic() - min(waiting.values()) > PATIENCE_S:
                    lost = min(waiting, key=waiting.get)
                    fleet.fail(f"{name}: not answered: {lost[:40]}")
                    waiting.pop(lost)
        except ConnectionClosed:
            fleet.tally["messages cut by a drain"] += len(waiting)
            raise


async def churns(fleet, rng, _):
    async with fleet.client("/echo", rng) as peer:
        for number in range(rng.choice([0, 1, 5])):
            await peer.send(text := soak_parts.message(rng, number))
            if await asyncio.wait_for(peer.recv(), 30) != text:
                raise soak_parts.Wrong("a different echo")
            fleet.tally["echoes"] += 1


async def views(fleet, rng, _):
    """All kinds, until its replica is replaced."""
    async with fleet.client("/api/wds/logs?format=json&kind=*", rng) as peer:
        while not fleet.over.is_set():
            with contextlib.suppress(TimeoutError):
                event = json.loads(await asyncio.wait_for(peer.recv(), 1))
                fleet.tally[f"events of {event.get('kind')}"] += 1


# ---- the run ----------------------------------------------------------------------------------------

async def run(fleet):
    await fleet.scale(3)
    check("the fleet is up", until(lambda: all(fleet.replicas[n].stats() for n in range(3))))
    await asyncio.sleep(1)
    clients = [asyncio.create_task(always(fleet, kind, f"{kind.__name__}{n}"))
               for kind, count in ((talks, TALKERS), (churns, CHURN), (views, VIEWERS)) for n in range(count)]
    scaling = asyncio.create_task(fleet.scales())
    api = asyncio.create_task(fleet.api.live(random.Random(SEED), fleet.over))
    reports = asyncio.create_task(report(fleet))
    await fleet.restarts(time.monotonic() + 60 * MINUTES)
    await asyncio.wait_for(asyncio.gather(*clients, scaling, api), 180)
    reports.cancel()
    until(lambda: not any(replica.stats()["connections"]["active"] for replica in fleet.replicas), 20)


async def report(fleet):
    began = time.monotonic()
    while True:
        await asyncio.sleep(60)
        tally = {name: n for name, n in fleet.tally.items() if not name.startswith("events")}
        print(f"# {(time.monotonic() - began) / 60:.0f} min: {tally}", flush=True)


def judge(fleet):
    tally, answer_ms = fleet.tally, sorted(fleet.answer_ms)
    print("# " + ", ".join(f"{what} {n}" for what, n in sorted(tally.items())))
    equal(f"{tally['messages']} messages, {tally['answers']} answered, none lost or doubled; "
          f"{tally['restarts']} restarts of gateways, {tally['scalings']} scalings of backends",
          fleet.failures[:5], [])
    equal("each message was answered, given up by a drain while there was no backend, or cut by a drain",
          tally["answers"] + tally["given up by a drain at zero"] + tally["messages cut by a drain"],
          tally["messages"])
    equal("every gateway and backend ended with 0", {code for _, code in fleet.codes}, {0})
    missing = [kind for kind in KINDS.split(",") if not tally[f"events of {kind}"]]
    equal("events of each kind", missing, [])
    print(f"# answers: n {len(answer_ms)}, p50 {answer_ms[len(answer_ms) // 2]:.1f} ms, "
          f"p99 {answer_ms[int(0.99 * len(answer_ms))]:.0f} ms, max {answer_ms[-1]:.0f} ms")
    for replica in fleet.replicas:
        stats, host = replica.stats(), replica.host
        equal(f"{host}: no connection is left", stats["connections"]["active"], 0)
        equal(f"{host}: no message waits", stats["gateway"]["waiting"], 0)
        equal(f"{host}: no byte is queued", replica.figure("websocket_send_queue_bytes"), 0)
        print(f"# {host}: RSS {replica.rss_kib()} KiB")
    for backend in fleet.backends.values():
        equal("a last backend ends with 0", backend.stop(60), 0)
    for replica in fleet.replicas:
        equal(f"{replica.host}: SIGTERM ends it with 0", replica.server.stop(30), 0)
    logs(fleet)


def logs(fleet):
    for what, servers in (("gateways", [server for replica in fleet.replicas for server in replica.logs]),
                          ("backends", fleet.backend_logs)):
        kinds, bad = Counter(), []
        for server in servers:
            text = server.log_text()
            bad += [line for line in text.splitlines() if not line.startswith("{")]
            for record in records(text):
                if record["level"] in ("warn", "error"):
                    kinds[record["level"], record["event"]] += 1
                    if not re.search(WARNINGS.get(record["event"], r"(?!)"), record["message"]):
                        bad.append(json.dumps(record))
        equal(f"{what}: {len(servers)} logs without a panic, an error or an unexpected warning: {dict(kinds)}",
              bad[:4], [])


def main():
    harness.require_binary()
    harness.raise_descriptor_limit()
    ask_own_names()
    authority("ca")
    vouch("shown", "/CN=localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    (SCRATCH / "peer-keys").write_text(secrets.token_hex(32) + "\n")
    print(f"# {harness.BINARY}, seed {SEED}, {MINUTES:.0f} minutes", flush=True)
    fleet = Fleet()
    asyncio.run(run(fleet))
    section(judge, fleet)


main()
harness.finish()
