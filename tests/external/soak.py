#!/usr/bin/env -S python3 -B
"""All kinds of traffic at once, for as long as wanted; afterwards nothing may be left of it.

    tests/external/soak.py                    a minute and a half
    SOAK_MINUTES=32 tests/external/soak.py    longer; SOAK_SEED=7 sets the seed

A server has TLS on all its main listeners or on none, so there are two, otherwise alike: an informer
with an unreliable API server (with TLS and a kubeconfig for the TLS one), a gateway with a backend
that is killed now and then, and short timeouts. Each round of traffic (`soak_parts.KINDS`) ends in a
pause: all clients disconnect, then the figures are taken. The levels after the first rounds are the
limits for all later ones. It installs websockets.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import re
import statistics
import threading
import time
import urllib.request
from collections import Counter

import tools

PYTHON = tools.venv("clients", ["websockets>=17,<18", "aiohttp>=3.14,<4", "websocket-client>=1.9,<2"])
tools.install_only()
tools.rerun_inside(PYTHON)

import harness
import soak_parts
from cluster_api import authority, context, vouch
from harness import SCRATCH, Server, check, equal, free_port, records, section
from soak_parts import FlakyApi, FlakyBackend, one, run_client, trust

MINUTES = float(os.environ.get("SOAK_MINUTES") or 1.5)
SEED = int(os.environ.get("SOAK_SEED") or 20261121)
ROUND_S = max(18, min(120, MINUTES * 60 / 5))
ROUNDS = max(4, round(MINUTES * 60 / ROUND_S))
WARM = max(2, round(ROUNDS / 8))  # the first rounds, after which levels are taken
LONG = ROUNDS - WARM >= 6
WORKERS = 14

# The limits. A memory level is the RSS at a quiet point; malloc keeps a little of each peak.
RSS_OVER_WARM_KIB = 2048  # at the end, over the level after the warm-up
RSS_TREND_KIB = 512  # with 6 or more later points: median of the last third, over that of the first
# For a minute after the last viewer: the data of 20 Deployments, 64 KiB of changes for viewers that come
# back, the objects that these changes deleted, and empty slots of all that a slow viewer once made it keep.
ACCOUNTED = (16 + 64 + 48 + 64) << 10
WAKES_IN_3_S = 2  # median over the quiet points, in seconds without a request of the informer
HEALTH_P99_MS = 500  # on a machine that clients and compilers use as well
QUIET_S = 25  # a close handshake may take 10 s

FLAGS = ("--head-timeout", "3s", "--send-timeout", "4s", "--ping-interval", "3s", "--pong-timeout", "3s",
         "--max-age", "12s", "--keepalive-timeout", "10s", "--faults", "--profile", "plain")
# The warnings that this traffic causes, and their messages. Any other fails.
EXPECTED_WARNINGS = {
    "faults": r"^--faults is on",
    "informer": r"refuses connections$|connection to the API server is lost|answers 500$|ends the watch with 410|ends the watch at once|"
                r"cannot be reached|no TLS with the API server: it (does not|violates)",
    "gateway-failed": r"request to the backend failed",
    "suppressed": r"suppressed \d+",
}


class Setup:
    """One server, its API server and backend, and the results of its clients."""

    def __init__(self, name, tls):
        self.name, self.trust, self.stop = name, trust() if tls else None, asyncio.Event()
        self.tally, self.failures, self.points, self.health_ms = Counter(), [], [], []
        self.api = FlakyApi(count=20, tls=context() if tls else None).start()
        port, flags, env = free_port(), list(FLAGS), {}
        if tls:
            env["KUBECONFIG"] = kubeconfig(self.api.url())
            flags += ["--tls-cert", str(SCRATCH / "shown.pem"), "--tls-key", str(SCRATCH / "shown.key")]
        else:
            flags += ["--kube", self.api.url("127.0.0.1")]
        self.server = Server("--gateway-backend", f"http://127.0.0.1:{port}", *flags, env=env)
        self.backend = FlakyBackend(self.server, port)
        self.proc = f"/proc/{self.server.process.pid}"

    def count(self, what, n=1, bytes_=0):
        self.tally[what] += n
        self.tally["bytes echoed"] += bytes_

    def ws(self, path):
        return self.server.url(path, scheme="wss" if self.trust else "ws")

    @contextlib.asynccontextmanager
    async def dial(self, listener="main"):
        """A stream to a listener; `raw` is the main one without TLS."""
        secured = {"ssl": self.trust, "server_hostname": "localhost"} if listener == "main" and self.trust else {}
        address = self.server.admin if listener == "admin" else self.server.main
        reader, writer = await asyncio.wait_for(asyncio.open_connection(*address, **secured), 30)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    # ---- figures ----

    def metrics(self):
        """{name: sum over its labels}."""
        text = urllib.request.urlopen(self.server.url("/metrics", "admin"), timeout=10).read().decode()
        sums = Counter()
        for name, value in re.findall(r"^(\w+)(?:\{.*\})? (\S+)$", text, re.M):
            sums[name] += float(value)
        return sums

    def stats(self):
        return json.load(urllib.request.urlopen(self.server.url("/stats", "admin"), timeout=10))

    def rss_kib(self):
        return int(open(f"{self.proc}/statm").read().split()[1]) * 4

    def wakes(self):
        return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", open(f"{self.proc}/status").read(), re.M)[1])

    def descriptors(self):
        """(descriptors without connections to the API server and the backend, number of those)."""
        ours = {os.readlink(f"{self.proc}/fd/{n}") for n in os.listdir(f"{self.proc}/fd")}
        outward = 0
        for line in open(f"{self.proc}/net/tcp").readlines()[1:]:
            fields = line.split()
            port, inode = int(fields[2].split(":")[1], 16), fields[9]
            outward += port in (self.api.port, self.backend.port) and f"socket:[{inode}]" in ours
        return len(os.listdir(f"{self.proc}/fd")) - outward, outward


def kubeconfig(server):
    path = SCRATCH / "config"
    path.write_text("apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n"
                    "  context: {cluster: k, user: u}\nclusters:\n- name: k\n  cluster:\n"
                    f"    server: {server}\n    certificate-authority: ca.pem\n"
                    "users:\n- name: u\n  user: {}\n")
    return str(path)


class Prober(threading.Thread):
    """Acts as a kubelet: /healthz on the admin listeners, each time on a new connection."""

    def __init__(self, setups):
        super().__init__(daemon=True)
        self.setups, self.over, self.paused = setups, threading.Event(), False
        self.start()

    def run(self):
        while not self.over.wait(0.2):
            for setup in [] if self.paused else self.setups:
                since = time.monotonic()
                try:
                    urllib.request.urlopen(setup.server.url("/healthz", "admin"), timeout=5).read()
                except OSError as error:
                    setup.failures.append(f"health: {error}")
                setup.health_ms.append(1000 * (time.monotonic() - since))


# ---- rounds -----------------------------------------------------------------------------------------

async def worker(setup, rng):
    while not setup.stop.is_set():
        await one(setup, rng)


async def loader(setup, rng):
    while not setup.stop.is_set():
        await run_client(setup, soak_parts.loads, rng)
        await soak_parts.asleep(setup.stop, 6)


async def flooder(setup, rng):
    while not setup.stop.is_set():
        await run_client(setup, soak_parts.floods, rng)
        await soak_parts.asleep(setup.stop, 6)


async def traffic(setup, number):
    """One round: all clients run, and at its end all disconnect."""
    def seeded(who):
        return random.Random(f"{SEED} {setup.name} {number} {who}")

    setup.stop.clear()
    setup.api.calm = False
    tasks = [worker(setup, seeded(n)) for n in range(WORKERS)]
    tasks += [loader(setup, seeded("load")), setup.api.live(seeded("api"), setup.stop),
              setup.backend.live(seeded("backend"), setup.stop)]
    if not setup.trust:
        tasks.append(flooder(setup, seeded("flood")))
    running = asyncio.gather(*tasks)
    await asyncio.sleep(ROUND_S)
    setup.stop.set()
    await asyncio.wait_for(running, 180)
    setup.api.calm = True


async def quiet(setup, number):
    """Waits until no connection is open, and takes the figures; at its end a long soak also waits until
    the informer has disconnected."""
    end = time.monotonic() + QUIET_S
    while (stats := setup.stats())["connections"]["active"] and time.monotonic() < end:
        await asyncio.sleep(0.2)
    await asyncio.sleep(65 if LONG and number == ROUNDS - 1 else 4)
    wakes = await slept_wakes(setup)
    descriptors, outward = min([setup.descriptors() for _ in range(3)])
    stats, sums = setup.stats(), setup.metrics()  # on connections that the server may not have closed yet
    point = {"rss_kib": setup.rss_kib(), "descriptors": descriptors, "outward": outward, "wakes": wakes,
             "connections": stats["connections"]["active"], "open": sums["websocket_connections_active"],
             "queued": sums["websocket_send_queue_bytes"], "accounted": sums["server_accounted_bytes"],
             "opened": sums["websocket_connections_total"], "closed": sums["websocket_closes_total"],
             "timed": sums["websocket_connection_duration_seconds_count"],
             "accept errors": sums["accept_errors_total"]}
    setup.points.append(point)
    print(f"# {setup.name}, round {number + 1} of {ROUNDS}: "
          + ", ".join(f"{name} {value:.0f}" for name, value in point.items()), flush=True)


async def slept_wakes(setup):
    """Wake-ups in 3 s. For a minute after its last viewer an informer still retries its API server, after
    pauses of up to 30 s; a retry takes 5 to 20 wake-ups. So it takes 3 s without a request: a leaked
    timer fires in those as well."""
    for _ in range(4):
        requests, wakes = len(setup.api.requests), setup.wakes()
        await asyncio.sleep(3)
        wakes, requests = setup.wakes() - wakes, len(setup.api.requests) - requests
        if requests == 0:
            break
        print(f"# {setup.name}: {wakes} wake-ups in 3 s for {requests} requests of the informer", flush=True)
    return wakes


async def comes_back(setup):
    """At the end: echoes, Deployments and the gateway work as before."""
    rng = random.Random(SEED)
    for kind in (soak_parts.comes_and_goes, soak_parts.is_pushed_to, soak_parts.browses):
        await run_client(setup, kind, rng)
    await within_a_minute(f"{setup.name}: Deployments are up to date again", sees_deployments, setup, rng)
    await within_a_minute(f"{setup.name}: the gateway answers again", is_answered, setup, rng)


async def within_a_minute(what, kind, setup, rng):
    """Retries for up to a minute: pauses between attempts grow to half a minute, and --max-age may close
    a connection meanwhile."""
    began = time.monotonic()
    while not (done := await kind(setup, rng)) and time.monotonic() - began < 60:
        await asyncio.sleep(1)
    check(f"{what}, after {time.monotonic() - began:.1f} s", done)


async def sees_deployments(setup, rng):
    types = []
    with contextlib.suppress(soak_parts.ConnectionClosed):
        async with soak_parts.client(setup, "/api/wds/logs?format=json", rng) as viewer:
            while "synced" not in types:
                types.append(json.loads(await soak_parts.receive(viewer, 45))["type"])
    return types.count("added") >= 20 and "synced" in types


async def is_answered(setup, rng):
    with contextlib.suppress(soak_parts.InvalidStatus, soak_parts.ConnectionClosed):
        async with soak_parts.client(setup, "/gateway/prod", rng) as peer:
            await peer.send("at last")
            return await soak_parts.receive(peer, 45) == "Got message:at last"


# ---- verdicts ---------------------------------------------------------------------------------------

def judge(setup):
    name, points, log = setup.name, setup.points, setup.server.log_text()
    warm, later, last = points[WARM - 1], points[WARM:], points[-1]
    print(f"# {name}: " + ", ".join(f"{what} {n}" for what, n in sorted(setup.tally.items())))
    equal(f"{name}: {sum(setup.tally.values()) - setup.tally['bytes echoed']} operations, "
          f"{setup.tally['echoes']} echoes of {setup.tally['bytes echoed'] >> 20} MiB correct to the byte, no failure",
          setup.failures[:5], [])
    came = all(setup.tally[kind.__name__] for kind, _ in soak_parts.KINDS)
    check(f"{name}: each kind of client ran", came, setup.tally)
    for what in ("connections", "open", "queued", "accept errors"):
        equal(f"{name}: {what} 0 at each of {len(points)} quiet points", [point[what] for point in points],
              [0] * len(points))
    most = [max(point["accounted"] for point in points), last["accounted"] if LONG else 0]
    check(f"{name}: accounted memory at most {most[0]:.0f} B (bound {ACCOUNTED}), 0 without viewers of Deployments",
          most[0] <= ACCOUNTED and most[1] == 0, most)
    equal(f"{name}: all {last['opened']:.0f} WebSockets were opened, closed and timed once",
          [(point["opened"], point["timed"]) for point in points], [(point["closed"],) * 2 for point in points])
    equal(f"{name}: {warm['descriptors']} descriptors after the warm-up, and at all later points",
          {point["descriptors"] for point in later}, {warm["descriptors"]})
    check(f"{name}: at most 1 + 16 idle connections to the API server and the backend",
          all(point["outward"] <= 17 for point in points), points)
    wakes = sorted(point["wakes"] for point in points)
    check(f"{name}: no leaked timer: {statistics.median(wakes)} wake-ups in 3 s (median), at most {wakes[-1]} "
          f"(bounds {WAKES_IN_3_S} and 20)", statistics.median(wakes) <= WAKES_IN_3_S and wakes[-1] <= 20, wakes)
    grown = last["rss_kib"] - warm["rss_kib"]
    check(f"{name}: RSS {warm['rss_kib']} KiB after the warm-up, {last['rss_kib']} at the end: {grown:+} KiB "
          f"(bound {RSS_OVER_WARM_KIB})", grown <= RSS_OVER_WARM_KIB, points)
    if LONG:
        third = len(later) // 3
        level = [statistics.median(point["rss_kib"] for point in some) for some in (later[:third], later[-third:])]
        check(f"{name}: no trend: first third {level[0]:.0f} KiB, last third {level[1]:.0f} "
              f"(bound +{RSS_TREND_KIB})", level[1] - level[0] <= RSS_TREND_KIB, points)
    times_ms = sorted(setup.health_ms)
    p99 = times_ms[int(0.99 * len(times_ms))]
    check(f"{name}: health, n {len(times_ms)}, p50 {statistics.median(times_ms):.1f} ms, p99 {p99:.1f} ms, "
          f"max {times_ms[-1]:.1f} ms (p99 bound {HEALTH_P99_MS})", p99 <= HEALTH_P99_MS)
    lines(name, log, last)
    for backend in setup.backend.logs:
        errors = [r for r in records(backend.log_text()) if r["level"] == "error"]
        if errors or "panicked" in backend.log_text():
            check(f"{name}: a backend without errors", False, errors)


def lines(name, log, last):
    """Every line of the log is accounted for."""
    entries = list(records(log))
    strays = [line for line in log.splitlines() if not line.startswith("{")]
    equal(f"{name}: {len(entries)} log lines, no panic, no other output", strays, [])
    equal(f"{name}: no line at error level", [r for r in entries if r["level"] == "error"][:3], [])
    warned = [r for r in entries if r["level"] == "warn"]
    unexpected = [r for r in warned if not re.search(EXPECTED_WARNINGS.get(r["event"], r"(?!)"), r["message"])]
    kinds = Counter(r["event"] for r in warned)
    equal(f"{name}: each warning is expected: {dict(kinds)}", unexpected[:5], [])
    missing = sum(int(r["message"].split(" ")[1]) for r in entries if r["message"].startswith("suppressed ")
                  and r.get("kind") == "close")
    written = sum(r["event"] == "close" for r in entries)
    equal(f"{name}: a close line for each WebSocket, {written} written and {missing} suppressed",
          written + missing, int(last["closed"]))


async def soak(setups):
    for setup in setups:
        print(f"# {setup.name}, just started: RSS {setup.rss_kib()} KiB, descriptors {setup.descriptors()[0]}")
    prober = Prober(setups)
    for number in range(ROUNDS):
        await asyncio.gather(*(traffic(setup, number) for setup in setups))
        if number == ROUNDS - 1:
            for setup in setups:
                setup.api.calm = False
                await comes_back(setup)
                setup.api.calm = True
        prober.paused = True
        await asyncio.gather(*(quiet(setup, number) for setup in setups))
        prober.paused = False
    prober.over.set()
    prober.join()


def main():
    harness.require_binary()
    harness.raise_descriptor_limit()
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # clients write to closed connections on purpose
    authority("ca")
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    vouch("shown", "/CN=localhost", names)
    vouch("api", "/CN=localhost", names)
    print(f"# seed {SEED}, {ROUNDS} rounds of {ROUND_S:.0f} s, the first {WARM} to warm up", flush=True)
    setups = [Setup("plain", tls=False), Setup("tls", tls=True)]
    began = time.monotonic()
    # A server that dies is a failed check, and the other results still count.
    section(lambda: asyncio.run(soak(setups)))
    for setup in setups:
        since = time.monotonic()
        code = setup.server.stop()
        check(f"{setup.name}: SIGTERM ends it with 0 after {time.monotonic() - since:.1f} s", code == 0, code)
        section(judge, setup)
    print(f"# {(time.monotonic() - began) / 60:.1f} minutes")


main()
harness.finish()
