#!/usr/bin/env -S python3 -B
"""`wspulse` with too few resources and too many clients: control groups limit the server's CPU and
memory, `floods.py` makes the load, and probes run meanwhile.

    tests/external/pressure.py            all groups
    tests/external/pressure.py cpu        only the groups of checks with this word in their names

It prints every figure. It measures times, so nothing else should run on the machine.
"""

import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import harness
from cgroup import Group, Unavailable
from harness import Server, check, equal, timed_section

HERE = Path(__file__).resolve().parent
KIB, MIB = 1 << 10, 1 << 20
PROBE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Probes:
    """Acts as a kubelet: /healthz on both listeners every 200 ms ± 20 %, so as not to synchronize with
    the quota's period; each on a new connection, without waiting for the previous answer."""

    def __init__(self, server, period_s=0.2):
        self.server, self.period_s = server, period_s
        self.took_s, self.failed, self.pending = {"main": [], "admin": []}, [], []
        self.stopped = threading.Event()
        self.clock = threading.Thread(target=self._run, daemon=True)
        self.clock.start()

    def _run(self):
        due = time.monotonic()
        while not self.stopped.wait(max(0, due - time.monotonic())):
            due += self.period_s * random.uniform(0.8, 1.2)
            for listener in self.took_s:
                probe = threading.Thread(target=self._ask, args=(listener,), daemon=True)
                probe.start()
                self.pending.append(probe)

    def _ask(self, listener):
        since = time.monotonic()
        try:
            with socket.create_connection(self.server.listeners[listener], timeout=10) as stream:
                stream.sendall(PROBE)
                answer = b""
                while data := stream.recv(4096):
                    answer += data
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise OSError(f"answered {answer[:40]!r}")
        except OSError as error:
            self.failed.append(f"{listener}: {error}")
        self.took_s[listener].append(time.monotonic() - since)

    def stop(self):
        self.stopped.set()
        self.clock.join()
        for probe in self.pending:
            probe.join(15)

    def share(self, listener, share):
        """The quantile `share` of the answer times, in milliseconds."""
        took_s = sorted(self.took_s[listener])
        return 1000 * took_s[min(len(took_s) - 1, int(share * len(took_s)))]

    def __str__(self):
        return ", ".join(f"{listener} n {len(took)} p50 {self.share(listener, 0.5):.0f} p99 {self.share(listener, 0.99):.0f} "
                         f"max {self.share(listener, 1):.0f} ms" for listener, took in self.took_s.items())


def flood(server, kind, seconds, connections, *options):
    """Starts `floods.py` in its own process."""
    host, port = server.main
    command = [sys.executable, "-B", str(HERE / "floods.py"), kind, host, str(port), str(seconds), str(connections)]
    return harness.launch([*command, *options], stdout=subprocess.PIPE, text=True)


def outcome(process, budget_s=60):
    out, _ = process.communicate(timeout=budget_s)
    return json.loads(out)


def cpu_s(server):
    """CPU seconds that the server has used."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss(server):
    """Resident bytes."""
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096


def limited(what, **limits):
    """A control group, or None, reported as not run."""
    try:
        return Group(**limits)
    except Unavailable as error:
        harness.not_run(what, error)
        return None


# ---- CPU ------------------------------------------------------------------------------------

LOADS = (("gets", 64, "64 connections × 16 pipelined GETs"), ("echoes", 64, "64 connections flooding 4-byte echoes"),
         ("pings", 64, "64 connections flooding pings"), ("handshakes", 64, "64 clients that upgrade, disconnect and reconnect"),
         ("slowbombs", 8, "8 clients with compressed bombs at 35 KB/s, on /socket", "/socket"),
         ("bombs", 8, "8 clients flooding compressed bombs, on /echo", "/echo"),
         ("controls", 8, "8 clients whose answers are six times as long", "/socket"),
         ("leavers", 16, "16 clients that disconnect with work queued and reconnect", "/throttled"),
         ("leavers", 16, "16 clients that disconnect with echoes queued and reconnect", "/websocket"))
PROBED_S = {100: 7, 10: 21}  # at 10m, long enough that one stall does not set the p99
ADMIN_MS = {100: 250, 10: 1000}


def starve(milli, kind, connections, what, path=None):
    """Health checks during a flood with very little CPU."""
    what = f"{milli}m CPU, {what}"
    group = limited(what, cpu_milli=milli)
    if group is None:
        return
    with group, Server(prefix=group.prefix, budget_s=30) as server:
        load = flood(server, kind, PROBED_S[milli] + 2, connections, *([path] if path else []))
        time.sleep(1)
        used_s, since = cpu_s(server), time.monotonic()
        probes = Probes(server)
        time.sleep(PROBED_S[milli])
        share = (cpu_s(server) - used_s) / (time.monotonic() - since)
        probes.stop()
        did = outcome(load)
    print(f"# {what}: {probes}; CPU {share:.3f}; {did}", flush=True)
    check(f"{what}: the flood uses the CPU quota", share > 0.9 * milli / 1000, f"CPU {share:.3f}, {did}")
    check(f"{what}: every probe is answered, within 1 s", not probes.failed and max(
        probes.share(listener, 1) for listener in probes.took_s) < 1000, f"{probes} {probes.failed[:3]}")
    check(f"{what}: admin p99 ≤ {ADMIN_MS[milli]} ms",
          probes.share("admin", 0.99) <= ADMIN_MS[milli], probes)


def hangups(milli=100):
    """SIGHUP every second: files are read and compressed again on another thread."""
    what = f"{milli}m CPU, SIGHUP each second with 7 MiB of files"
    group = limited(what, cpu_milli=milli)
    if group is None:
        return
    folder = Path(tempfile.mkdtemp(prefix="wspulse-assets-"))
    words = random.Random(7)
    for number in range(7):
        text = " ".join(str(words.randrange(10**6)) for _ in range(150_000))
        (folder / f"{number}.txt").write_text(text[:MIB])
    with group, Server("--assets", str(folder), prefix=group.prefix, budget_s=60) as server:
        probes, end = Probes(server), time.monotonic() + PROBED_S[milli]
        while time.monotonic() < end:
            os.kill(server.process.pid, signal.SIGHUP)
            time.sleep(1)
        probes.stop()
    shutil.rmtree(folder)
    print(f"# {what}: {probes}", flush=True)
    check(f"{what}: every probe is answered, within 1 s", not probes.failed and max(
        probes.share(listener, 1) for listener in probes.took_s) < 1000, f"{probes} {probes.failed[:3]}")
    check(f"{what}: admin p99 ≤ {ADMIN_MS[milli]} ms", probes.share("admin", 0.99) <= ADMIN_MS[milli], probes)


def stopped(milli=100, clients=1000):
    """SIGTERM with 64 clients that reconnect all the time, and 1 000 that do not answer a Close."""
    what = f"{milli}m CPU, SIGTERM with {clients} clients that stay and 64 that reconnect"
    group = limited(what, cpu_milli=milli)
    if group is None:
        return
    with group, Server("--profile", "plain", prefix=group.prefix, budget_s=30) as server:
        stay = flood(server, "once", 40, clients, "once")
        steady(server, 'websocket_connections_active{mount="/echo"}')
        back = flood(server, "handshakes", 40, 64)
        time.sleep(1)
        probes, since = Probes(server), time.monotonic()
        os.kill(server.process.pid, signal.SIGTERM)
        while server.process.poll() is None and time.monotonic() - since < 30:
            time.sleep(0.01)
        took_s = time.monotonic() - since
        probes.stop()
        for load in (stay, back):
            load.kill()
    # The main listener closes first, the admin listener last.
    admin_s = [took for took in probes.took_s["admin"]]
    silent_s = max(admin_s, default=9)
    print(f"# {what}: exit {server.process.returncode} after {took_s:.2f} s, {probes}", flush=True)
    check(f"{what}: the hard stop of 8 s is kept within 1 s", took_s <= 9, f"{took_s:.2f} s")
    check(f"{what}: the admin listener always answers within a second", silent_s < 1, probes)


# ---- memory ---------------------------------------------------------------------------------

ATTACKS = (("silent", 200), ("fragments", 100), ("halves", 300), ("large", 32), ("unfinished", 100))
ATTACKED_S = 11


def metric(server, name):
    """The value of a metric without labels."""
    text = ask(server, "admin", "/metrics")
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(name + " ")))


def ask(server, listener, path):
    """An answer, head and body."""
    with socket.create_connection(server.listeners[listener], timeout=10) as stream:
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := stream.recv(65536):
            answer += data
    return answer.decode()


def crush(mib):
    """All memory attacks at once, with a small memory limit."""
    what = f"{mib} MiB"
    group = limited(what, memory=mib * MIB)
    if group is None:
        return
    with group, Server(prefix=group.prefix) as server:
        probes = Probes(server)
        loads = [flood(server, kind, ATTACKED_S, connections) for kind, connections in ATTACKS]
        most, end = {"rss": 0, "usage": 0, "sockets": 0, "stage": 0}, time.monotonic() + ATTACKED_S
        while time.monotonic() < end and server.process.poll() is None:
            now = {"rss": rss(server), "usage": group.usage(), "sockets": group.sockets(),
                   "stage": metric(server, "server_memory_stage")}
            most = {key: max(most[key], value) for key, value in now.items()}
            time.sleep(0.02)
        probes.stop()
        did = [outcome(load) for load in loads]
        shares = {key: round(most[key] / mib / MIB, 2) for key in ("rss", "usage", "sockets")}
        print(f"# {what}: of the limit {shares}, stage {most['stage']:.0f}, reached {group.refusals()} times; "
              f"{probes}; failed {len(probes.failed)} {probes.failed[:3]}", flush=True)
        for line in did:
            print(f"#   {line}", flush=True)
        stages = {r["stage"] for r in harness.records(server.log_text()) if r.get("event") == "memory"}
        check(f"{what}: the log has both stages", {1, 2} <= stages, stages)
        equal(f"{what}: no OOM kill, still running", (group.kills(), server.process.poll()), (0, None))
        check(f"{what}: usage with kernel memory below the limit", shares["usage"] < 1, shares)
        time.sleep(2.5)
        equal(f"{what}: memory normal and ready again after the load",
              (metric(server, "server_memory_stage"), " 200 OK" in ask(server, "main", "/readyz")), (0, True))


def steady(server, name, budget_s=20):
    """Waits until a metric is not 0 and has not changed for a second."""
    seen, end = [0], time.monotonic() + budget_s
    while (not seen[-1] or len(set(seen[-5:])) > 1) and time.monotonic() < end:
        time.sleep(0.25)
        seen.append(metric(server, name))


# ---- hostile clients ------------------------------------------------------------------------

def fragments(count=100, payload=131_000):
    """1-byte fragments of messages that are never finished."""
    with Server() as server:
        before = rss(server)
        load = flood(server, "fragments", 20, count)
        steady(server, "server_accounted_bytes")
        each = (rss(server) - before) / count
        at_most = 1.5 * payload + 4 * KIB
        print(f"# {count} × {payload} 1-byte fragments: {each:.0f} B each, {each / payload:.2f} of the payload",
              flush=True)
        check(f"{count} × {payload} 1-byte fragments, never finished: ≤ 1.5 × payload + 4 KiB each",
              payload <= each <= at_most, f"{each:.0f} B, at most {at_most:.0f}")
        load.kill()


def slowloris(count=1000):
    """Request heads sent a byte at a time: closed in time, without effect on other clients."""
    with Server() as server:
        load = flood(server, "slowloris", 14, count, "once")
        good = flood(server, "good", 13, 20)
        did, fared = outcome(load), outcome(good)
        print(f"# slowloris: {did}; good: {fared}", flush=True)
        equal(f"slowloris × {count}: all are closed", (did["open"], len(did["counts"]) > 0), (0, True))
        check(f"slowloris × {count}: within 11 s", did["longest_s"] <= 11, did)
        served(f"slowloris × {count}", fared, 20)


def served(what, fared, clients):
    """Well-behaved clients: every echo came back."""
    lost = {key: n for key, n in fared["counts"].items() if key not in ("101", "echo")}
    check(f"{what}: good clients 100 %", not lost and fared["counts"].get("echo", 0) > clients
          and fared["counts"].get("101") == clients == fared["open"], fared)


def descriptors(limit=64, clients=200):
    """Few descriptors, many clients: they get 503, and the admin listener is not affected."""
    what = f"{limit} descriptors, {clients} clients"
    prefix = ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh"]
    with Server(prefix=prefix) as server:
        quiet = flood(server, "idle", 9, clients, "once")
        time.sleep(2)
        rate, share = accept_rate(server)
        crowd = flood(server, "idle", 9, clients)  # refused clients reconnect at once
        time.sleep(0.5)
        probes = Probes(server)
        time.sleep(3)
        probes.stop()
        refused = [line for line in probes.failed if line.startswith("admin")]
        print(f"# {what}: {rate:.1f} accept errors/s, CPU {share:.4f}, {probes}", flush=True)
        check(f"{what}: ≤ 50 accept errors/s", rate <= 50, rate)
        check(f"{what}: CPU < 2 %", share < 0.02, share)
        check(f"{what}: every admin probe is answered, p99 ≤ 250 ms", not refused
              and probes.share("admin", 0.99) <= 250, f"{probes} {refused[:3]}")
        quiet.kill()
        crowd.kill()


def accept_rate(server, seconds=4):
    """Accept errors per second, and the share of a CPU."""
    errors, used_s, since = accept_errors(server), cpu_s(server), time.monotonic()
    time.sleep(seconds)
    took_s = time.monotonic() - since
    return (accept_errors(server) - errors) / took_s, (cpu_s(server) - used_s) / took_s


def accept_errors(server):
    """Counts their log lines, and those that a `suppressed` line stands for."""
    count = 0
    for record in harness.records(server.log_text()):
        if record.get("event") == "accept-error":
            count += 1
        elif record.get("kind") == "accept-error":
            count += int(record["message"].split()[1])
    return count


def exhausted(limit=64, clients=200):
    """The limit drops while the server runs: accept fails, and edge-triggered epoll reports that once."""
    what = f"descriptors run out at {limit}, {clients} clients"
    with Server() as server:
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        first = flood(server, "idle", 30, clients)
        time.sleep(2)
        rate, share = accept_rate(server)
        print(f"# {what}: {rate:.1f} accept errors/s, CPU {share:.4f}", flush=True)
        check(f"{what}: ≤ 50 accept errors/s", 0 < rate <= 50, rate)
        check(f"{what}: CPU < 2 %", share < 0.02, share)
        first.kill()
        since = time.monotonic()
        first.wait()
        answer = ""
        while " 200 OK" not in answer and time.monotonic() - since < 5:
            answer = ask(server, "main", "/healthz")
        took_ms = (time.monotonic() - since) * 1000
        print(f"# {what}: free descriptors are used after {took_ms:.0f} ms", flush=True)
        check(f"{what}: free descriptors are used within 200 ms", took_ms <= 200, f"{took_ms:.0f}")


def neighbours(good=50, silent=200):
    """Good clients alone, and with silent readers whose buffers are already full."""
    p99_ms = {False: [], True: []}
    for beside in (False, True) * 3:
        with Server() as server:
            load = flood(server, "silent", 20, silent) if beside else None
            if beside:
                steady(server, "websocket_received_bytes_total")
            fared = outcome(flood(server, "good", 3, good))
            served(f"{good} good clients{f' beside {silent} silent ones' if beside else ''}", fared, good)
            p99_ms[beside].append(fared["p99_ms"])
            if load:
                load.kill()
    print(f"# p99 of an echo alone {p99_ms[False]} ms, beside silent readers {p99_ms[True]} ms", flush=True)
    check(f"{good} good clients beside {silent} silent readers: p99 ≤ 2 × without them",
          sorted(p99_ms[True])[1] <= 2 * sorted(p99_ms[False])[1], p99_ms)


def waiting():
    """These groups mostly wait, so they run in parallel."""
    in_parallel((slowloris,), (descriptors,), (exhausted,))


def in_parallel(*calls):
    threads = [threading.Thread(target=timed_section, args=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# At 10m not in parallel either: two throttled groups at once stall a spinning process for 800 ms,
# one alone for 400 ms.
GROUPS = {
    "cpu_100m": [(starve, 100, *load) for load in LOADS] + [(hangups,), (stopped,)],
    "cpu_10m": [(starve, 10, *load) for load in LOADS],
    "memory": [(crush, mib) for mib in (16, 32, 128)],
    "fragments": [(fragments,)],
    "waiting": [(waiting,)],
    "neighbours": [(neighbours,)],
}


def main():
    harness.require_binary()
    harness.raise_descriptor_limit()
    words = sys.argv[1:]
    for name, runs in GROUPS.items():
        if not words or any(word in name for word in words):
            for run in runs:
                timed_section(*run)
    harness.finish()


if __name__ == "__main__":
    main()
