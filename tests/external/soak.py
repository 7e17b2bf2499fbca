#!/usr/bin/env -S python3 -B
"""Everything at once, for as long as one likes, and whether anything is left of it afterwards.

    tests/external/soak.py                    a minute and a half
    SOAK_MINUTES=32 tests/external/soak.py    longer; SOAK_SEED=7 other dice

A server has TLS on all its main doors or on none, so there are two, else alike: an informer before
an API server with moods (the TLS one's by a kubeconfig, behind TLS), a gateway before a backend that
dies, everything short that can be short. Rounds of traffic, `soak_parts.KINDS`, end in a pause: all
clients leave, and when it is quiet the figures are taken. What the first rounds leave is the level
that all later ones are held to. It installs websockets.
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
from soak_parts import MoodyApi, MoodyBackend, judged, one, trust

MINUTES = float(os.environ.get("SOAK_MINUTES") or 1.5)
SEED = int(os.environ.get("SOAK_SEED") or 20261121)
ROUND_S = max(18, min(120, MINUTES * 60 / 5))
ROUNDS = max(4, round(MINUTES * 60 / ROUND_S))
WARM = max(2, round(ROUNDS / 8))  # the first rounds, after which levels are taken
LONG = ROUNDS - WARM >= 6
WORKERS = 14

# What must hold. Memory: a level is the RSS at a quiet point; malloc keeps a little of each peak.
RSS_OVER_WARM_KIB = 2048  # the end, over the level after the warm-up
RSS_TREND_KIB = 512  # of 6 and more later points: median of the last third, over that of the first
ACCOUNTED = 16 << 10  # what is known of 20 Deployments, for a minute after the last viewer
WAKES_IN_3_S = 2  # at most of the quiet points, in seconds in which the informer asked nothing
HEALTH_P99_MS = 500  # on a machine that clients and compilers use as well
QUIET_S = 25  # a close handshake may take 10 s

FLAGS = ("--head-timeout", "3s", "--send-timeout", "4s", "--ping-interval", "3s", "--pong-timeout", "3s",
         "--max-age", "12s", "--keepalive-timeout", "10s", "--faults", "--profile", "plain")
# Each warning that belongs to such a life, with what it has to say. Anything else fails.
EXPECTED_WARNINGS = {
    "faults": r"^--faults is on",
    "informer": r"refuses connections$|connection to the API server is lost|answers 500$|ends the watch with 410|"
                r"cannot be reached|no TLS with the API server: it (does not|violates)",
    "gateway-failed": r"request to the backend failed",
    "suppressed": r"suppressed \d+",
}


class World:
    """One server, what stands around it, and what its clients have seen."""

    def __init__(self, name, tls):
        self.name, self.trust, self.stop = name, trust() if tls else None, asyncio.Event()
        self.tally, self.failures, self.points, self.health_ms = Counter(), [], [], []
        self.api = MoodyApi(count=20, tls=context() if tls else None).start()
        port, flags, env = free_port(), list(FLAGS), {}
        if tls:
            env["KUBECONFIG"] = kubeconfig(self.api.url())
            flags += ["--tls-cert", str(SCRATCH / "shown.pem"), "--tls-key", str(SCRATCH / "shown.key")]
        else:
            flags += ["--kube", self.api.url("127.0.0.1")]
        self.server = Server("--gateway-backend", f"http://127.0.0.1:{port}", *flags, env=env)
        self.backend = MoodyBackend(self.server, port)
        self.proc = f"/proc/{self.server.process.pid}"

    def count(self, what, n=1, bytes_=0):
        self.tally[what] += n
        self.tally["bytes echoed"] += bytes_

    def ws(self, path):
        return self.server.url(path, scheme="wss" if self.trust else "ws")

    @contextlib.asynccontextmanager
    async def dial(self, door="main"):
        """A stream to the main door; `raw`: without TLS, whatever it speaks."""
        secured = {"ssl": self.trust, "server_hostname": "localhost"} if door == "main" and self.trust else {}
        place = self.server.admin if door == "admin" else self.server.main
        reader, writer = await asyncio.wait_for(asyncio.open_connection(*place, **secured), 30)
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
        """How many, without connections to the API server and the backend; and how many those are."""
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
    """A kubelet: /healthz on the admin listeners, each time on a new connection."""

    def __init__(self, worlds):
        super().__init__(daemon=True)
        self.worlds, self.over, self.paused = worlds, threading.Event(), False
        self.start()

    def run(self):
        while not self.over.wait(0.2):
            for world in [] if self.paused else self.worlds:
                since = time.monotonic()
                try:
                    urllib.request.urlopen(world.server.url("/healthz", "admin"), timeout=5).read()
                except OSError as error:
                    world.failures.append(f"health: {error}")
                world.health_ms.append(1000 * (time.monotonic() - since))


# ---- rounds -----------------------------------------------------------------------------------------

async def worker(world, rng):
    while not world.stop.is_set():
        await one(world, rng)


async def loader(world, rng):
    while not world.stop.is_set():
        await judged(world, soak_parts.loads, rng)
        await soak_parts.asleep(world.stop, 6)


async def flooder(world, rng):
    while not world.stop.is_set():
        await judged(world, soak_parts.floods, rng)
        await soak_parts.asleep(world.stop, 6)


async def traffic(world, number):
    """One round: everybody comes, and when it is over everybody leaves."""
    def dice(who):
        return random.Random(f"{SEED} {world.name} {number} {who}")

    world.stop.clear()
    world.api.calm = False
    tasks = [worker(world, dice(n)) for n in range(WORKERS)]
    tasks += [loader(world, dice("load")), world.api.live(dice("api"), world.stop),
              world.backend.live(dice("backend"), world.stop)]
    if not world.trust:
        tasks.append(flooder(world, dice("flood")))
    running = asyncio.gather(*tasks)
    await asyncio.sleep(ROUND_S)
    world.stop.set()
    await asyncio.wait_for(running, 180)
    world.api.calm = True


async def quiet(world, number):
    """Waits until nothing is open, and takes the figures; a long soak ends when the informer has
    left as well."""
    end = time.monotonic() + QUIET_S
    while (stats := world.stats())["connections"]["active"] and time.monotonic() < end:
        await asyncio.sleep(0.2)
    await asyncio.sleep(65 if LONG and number == ROUNDS - 1 else 4)
    wakes = await slept_wakes(world)
    descriptors, outward = min([world.descriptors() for _ in range(3)])
    stats, sums = world.stats(), world.metrics()  # by connections that the server may not yet have closed
    point = {"rss_kib": world.rss_kib(), "descriptors": descriptors, "outward": outward, "wakes": wakes,
             "connections": stats["connections"]["active"], "open": sums["websocket_connections_active"],
             "queued": sums["websocket_send_queue_bytes"], "accounted": sums["server_accounted_bytes"],
             "opened": sums["websocket_connections_total"], "closed": sums["websocket_closes_total"],
             "lived": sums["websocket_connection_duration_seconds_count"],
             "turned away": sums["accept_errors_total"]}
    world.points.append(point)
    print(f"# {world.name}, round {number + 1} of {ROUNDS}: "
          + ", ".join(f"{name} {value:.0f}" for name, value in point.items()), flush=True)


async def slept_wakes(world):
    """Wake-ups in 3 s. For a minute after its last viewer an informer comes back to its API server
    when a pause of up to 30 s is over, which takes 5 to 20 of them; a timer that stays is due in the
    next 3 s as well."""
    for _ in range(4):
        asked, wakes = len(world.api.asked), world.wakes()
        await asyncio.sleep(3)
        wakes, asked = world.wakes() - wakes, len(world.api.asked) - asked
        if asked == 0:
            break
        print(f"# {world.name}: {wakes} wake-ups in 3 s for {asked} requests of the informer", flush=True)
    return wakes


async def comes_back(world):
    """After all that: echoes, Deployments and the gateway are as they were."""
    rng = random.Random(SEED)
    for kind in (soak_parts.comes_and_goes, soak_parts.is_pushed_to, soak_parts.browses):
        await judged(world, kind, rng)
    await within_a_minute(f"{world.name}: Deployments are in step again", sees_deployments, world, rng)
    await within_a_minute(f"{world.name}: the gateway answers again", is_answered, world, rng)


async def within_a_minute(what, kind, world, rng):
    """Pauses between tries grow to half a minute; a connection ends for its age meanwhile."""
    began = time.monotonic()
    while not (done := await kind(world, rng)) and time.monotonic() - began < 60:
        await asyncio.sleep(1)
    check(f"{what}, after {time.monotonic() - began:.1f} s", done)


async def sees_deployments(world, rng):
    said = []
    with contextlib.suppress(soak_parts.ConnectionClosed):
        async with soak_parts.client(world, "/api/wds/logs?format=json", rng) as viewer:
            while "synced" not in said:
                said.append(json.loads(await soak_parts.heard(viewer, 45))["type"])
    return said.count("added") >= 20 and "synced" in said


async def is_answered(world, rng):
    with contextlib.suppress(soak_parts.InvalidStatus, soak_parts.ConnectionClosed):
        async with soak_parts.client(world, "/gateway/prod", rng) as peer:
            await peer.send("at last")
            return await soak_parts.heard(peer, 45) == "Got message:at last"


# ---- verdicts ---------------------------------------------------------------------------------------

def judge(world):
    name, points, log = world.name, world.points, world.server.log_text()
    warm, later, last = points[WARM - 1], points[WARM:], points[-1]
    print(f"# {name}: " + ", ".join(f"{what} {n}" for what, n in sorted(world.tally.items())))
    equal(f"{name}: {sum(world.tally.values()) - world.tally['bytes echoed']} things done, "
          f"{world.tally['echoes']} echoes of {world.tally['bytes echoed'] >> 20} MiB right to the byte, no failure",
          world.failures[:5], [])
    came = all(world.tally[kind.__name__] for kind, _ in soak_parts.KINDS)
    check(f"{name}: each kind of client came", came, world.tally)
    for what in ("connections", "open", "queued", "turned away"):
        equal(f"{name}: {what} 0 at each of {len(points)} quiet points", [point[what] for point in points],
              [0] * len(points))
    most = [max(point["accounted"] for point in points), last["accounted"] if LONG else 0]
    check(f"{name}: accounted memory at most {most[0]:.0f} B (bound {ACCOUNTED}), 0 once nobody asks for Deployments",
          most[0] <= ACCOUNTED and most[1] == 0, most)
    equal(f"{name}: all {last['opened']:.0f} WebSockets were opened, closed and timed once",
          [(point["opened"], point["lived"]) for point in points], [(point["closed"],) * 2 for point in points])
    equal(f"{name}: {warm['descriptors']} descriptors after the warm-up, and ever after",
          {point["descriptors"] for point in later}, {warm["descriptors"]})
    check(f"{name}: at most 1 + 16 idle connections to the API server and the backend",
          all(point["outward"] <= 17 for point in points), points)
    wakes = sorted(point["wakes"] for point in points)
    check(f"{name}: no timer stays: {statistics.median(wakes)} wake-ups in 3 s, once {wakes[-1]} "
          f"(bounds {WAKES_IN_3_S} and 20)", statistics.median(wakes) <= WAKES_IN_3_S and wakes[-1] <= 20, wakes)
    grown = last["rss_kib"] - warm["rss_kib"]
    check(f"{name}: RSS {warm['rss_kib']} KiB after the warm-up, {last['rss_kib']} at the end: {grown:+} KiB "
          f"(bound {RSS_OVER_WARM_KIB})", grown <= RSS_OVER_WARM_KIB, points)
    if LONG:
        third = len(later) // 3
        level = [statistics.median(point["rss_kib"] for point in some) for some in (later[:third], later[-third:])]
        check(f"{name}: no trend: first third {level[0]:.0f} KiB, last third {level[1]:.0f} "
              f"(bound +{RSS_TREND_KIB})", level[1] - level[0] <= RSS_TREND_KIB, points)
    times_ms = sorted(world.health_ms)
    p99 = times_ms[int(0.99 * len(times_ms))]
    check(f"{name}: health, n {len(times_ms)}, p50 {statistics.median(times_ms):.1f} ms, p99 {p99:.1f} ms, "
          f"max {times_ms[-1]:.1f} ms (p99 bound {HEALTH_P99_MS})", p99 <= HEALTH_P99_MS)
    lines(name, log, last)
    for backend in world.backend.logs:
        told = [r for r in records(backend.log_text()) if r["level"] == "error"]
        if told or "panicked" in backend.log_text():
            check(f"{name}: a backend without errors", False, told)


def lines(name, log, last):
    """What the log says is known to the last line."""
    told = list(records(log))
    strays = [line for line in log.splitlines() if not line.startswith("{")]
    equal(f"{name}: {len(told)} log lines, no panic, nothing that is no line of the log", strays, [])
    equal(f"{name}: no line at error level", [r for r in told if r["level"] == "error"][:3], [])
    warned = [r for r in told if r["level"] == "warn"]
    strange = [r for r in warned if not re.search(EXPECTED_WARNINGS.get(r["event"], r"(?!)"), r["message"])]
    kinds = Counter(r["event"] for r in warned)
    equal(f"{name}: each warning is of a kind that belongs here: {dict(kinds)}", strange[:5], [])
    missing = sum(int(r["message"].split(" ")[1]) for r in told if r["message"].startswith("suppressed ")
                  and r.get("kind") == "close")
    written = sum(r["event"] == "close" for r in told)
    equal(f"{name}: a line for each WebSocket's end, {written} written and {missing} counted",
          written + missing, int(last["closed"]))


async def soak(worlds):
    for world in worlds:
        print(f"# {world.name}, just started: RSS {world.rss_kib()} KiB, descriptors {world.descriptors()[0]}")
    prober = Prober(worlds)
    for number in range(ROUNDS):
        await asyncio.gather(*(traffic(world, number) for world in worlds))
        if number == ROUNDS - 1:
            for world in worlds:
                world.api.calm = False
                await comes_back(world)
                world.api.calm = True
        prober.paused = True
        await asyncio.gather(*(quiet(world, number) for world in worlds))
        prober.paused = False
    prober.over.set()
    prober.join()


def main():
    harness.require_binary()
    harness.raise_descriptor_limit()
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # who writes to what is gone does so on purpose
    authority("ca")
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    vouch("shown", "/CN=localhost", names)
    vouch("api", "/CN=localhost", names)
    print(f"# seed {SEED}, {ROUNDS} rounds of {ROUND_S:.0f} s, the first {WARM} to warm up", flush=True)
    worlds = [World("plain", tls=False), World("tls", tls=True)]
    began = time.monotonic()
    # A server that dies on the way is a failed check, and what the others did still counts.
    section(lambda: asyncio.run(soak(worlds)))
    for world in worlds:
        since = time.monotonic()
        code = world.server.stop()
        check(f"{world.name}: SIGTERM ends it with 0 after {time.monotonic() - since:.1f} s", code == 0, code)
        section(judge, world)
    print(f"# {(time.monotonic() - began) / 60:.1f} minutes")


main()
harness.finish()
