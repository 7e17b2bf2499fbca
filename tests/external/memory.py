#!/usr/bin/env -S python3 -B
"""No client can get the server OOM-killed: each way to make it hold memory, in memory groups of 16 to
128 MiB, alone and together, including the kernel memory charged to it.

    tests/external/memory.py            16, 32 and 128 MiB
    tests/external/memory.py 64         one size
"""

import socket
import subprocess
import sys
import threading
import time

import harness
from harness import Server, check, equal
from pressure import MIB, Probes, ask, flood, limited, metric, outcome, rss

SIZES = (16, 32, 128)
MOUNTS = ("/websocket", "/echo", "/socket", "/throttled", "/gateway/prod")
# (kind of flood, connections per MiB of the limit, mount, description)
ATTACKS = (
    ("leavers", 2, "/throttled", "messages for the worker from clients that disconnect"),
    ("parked", 55, None, "small messages that wait for their delay"),
    ("parked", 55, "/throttled", "small messages that wait for the worker"),
    ("offers", 12, None, "upgrades that wait for the backend"),
    ("controls", 2, None, "control characters, escaped as six in JSON"),
    ("unreadcontrols", 2, None, "the same, unread"),
    ("unreadbombs", 4, "/socket", "compressed bombs, unread"),
    ("texts", 4, "/socket", "messages that are never finished"),
)
WAYS = ("silent", "texts", "parked", "unreadbombs", "leavers")  # unread, half-sent, delayed, compressed, disconnected
HELD_S = 4


class Sink:
    """A backend that takes requests and never answers."""

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port, self.taken = self.listener.getsockname()[1], []
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def _run(self):
        try:
            while True:
                self.taken.append(self.listener.accept()[0])
        except OSError:
            pass

    def drop(self):
        """Closes its connections: the gateway would wait 29 s for the answers."""
        while self.taken:
            self.taken.pop().close()

    def __exit__(self, *_):
        self.listener.close()
        self.drop()


def closes(server):
    """How many clients got 1013 or 503, or were refused at accept."""
    text = ask(server, "admin", "/metrics")
    rows = [line for line in text.splitlines() if 'code="1013"' in line or 'status="503"' in line
            or 'reason="unavailable"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in rows)


def hold(what, group, server, loads, mib, seconds=HELD_S):
    """Runs the loads; checks memory in use, and that probes are answered."""
    probes, most, stage, end = Probes(server), 0, 0, time.monotonic() + seconds
    running = [flood(server, kind, seconds, count, *([path] if path else []))
               for kind, count, path in loads]
    while time.monotonic() < end and server.process.poll() is None:
        most = max(most, group.usage())
        stage = max(stage, metric(server, "server_memory_stage"))
        time.sleep(0.01)
    probes.stop()
    did = [outcome(load) for load in running]
    share = most / mib / MIB
    slowest = max(probes.share(listener, 1) for listener in probes.took_s)
    print(f"# {what}: {share:.2f} of the limit, stage {stage:.0f}, reached {group.refusals()} times, probes ≤ {slowest:.0f} ms, "
          f"{[(load['kind'], load['counts'], load['open'], load['sent'] >> 20) for load in did][:3]}", flush=True)
    equal(f"{what}: no OOM kill, still running", (group.kills(), server.process.poll()), (0, None))
    check(f"{what}: below the limit", share < 1, f"{share:.3f}")
    # The main listener may answer 503 while memory is used up; the admin listener never does.
    failed = [line for line in probes.failed if "503" not in line or line.startswith("admin")]
    check(f"{what}: every probe is answered within 1 s", not failed and slowest < 1000,
          f"{slowest:.0f} ms {failed[:3]}")


def at_rest(server, sink, what, base):
    """Waits until the account is back at its base after an attack."""
    harness.until(lambda: sink.drop() or metric(server, "server_accounted_bytes") <= base, 30)
    check(f"{what}: the account is at its base", metric(server, "server_accounted_bytes") <= base,
          metric(server, "server_accounted_bytes"))
    harness.until(lambda: metric(server, "server_memory_stage") == 0, 10)
    check(f"{what}: memory normal and ready again", " 200 OK" in ask(server, "main", "/readyz"))


def attack(mib):
    group = limited(f"{mib} MiB", memory=mib * MIB)
    if group is None:
        return
    with Sink() as sink, group, Server("--gateway-backend", f"http://127.0.0.1:{sink.port}", prefix=group.prefix) as server:
        base = metric(server, "server_accounted_bytes") + 4096
        for kind, each, path, words in ATTACKS:
            what = f"{mib} MiB, {words}"
            hold(what, group, server, [(kind, each * mib, path)], mib)
            at_rest(server, sink, what, base)
        together = [(kind, max(2, each * mib // 6), path) for kind, each, path, _ in ATTACKS]
        what, after = f"{mib} MiB, all together", []
        for again in range(2):
            hold(f"{what}, {['once', 'and again'][again]}", group, server, together, mib, 2 * HELD_S)
            at_rest(server, sink, what, base)
            after.append(rss(server))
        check(f"{what}: the second time adds ≤ 2 MiB", after[1] - after[0] <= 2 * MIB, after)
        check(f"{mib} MiB: clients got 1013 or 503", closes(server) > 0, closes(server))
        grid = [(way, max(1, mib // 8), mount) for mount in MOUNTS for way in WAYS]
        what = f"{mib} MiB, each mount unread, half-sent, delayed, compressed, disconnected"
        hold(what, group, server, grid, mib, 2 * HELD_S)
        at_rest(server, sink, what, base)


def handshakes(mib):
    """Half a TLS handshake, as long as the server accepts, then nothing."""
    what = f"{mib} MiB, half TLS handshakes"
    group = limited(what, memory=mib * MIB)
    if group is None:
        return
    cert, key = harness.SCRATCH / "memory.pem", harness.SCRATCH / "memory.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "9", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert)],
                   check=True, capture_output=True, timeout=20)
    tls = ("--tls-cert", str(cert), "--tls-key", str(key))
    with group, Server(*tls, prefix=group.prefix) as server:
        base = metric(server, "server_accounted_bytes") + 4096
        load = flood(server, "hellos", HELD_S, 20 * mib)
        most, accounted, end = 0, 0, time.monotonic() + HELD_S
        while time.monotonic() < end and server.process.poll() is None:
            most = max(most, group.usage())
            accounted = max(accounted, metric(server, "server_accounted_bytes"))
            time.sleep(0.01)
        did = outcome(load)
        print(f"# {what}: {most / mib / MIB:.2f} of the limit, {accounted / MIB:.1f} MiB accounted, {did['counts']}, "
              f"{did['open']} open", flush=True)
        equal(f"{what}: no OOM kill, still running", (group.kills(), server.process.poll()), (0, None))
        check(f"{what}: below the limit", most < mib * MIB, most)
        check(f"{what}: their memory is accounted", accounted >= 0.8 * 11000 * min(did["open"], 64), accounted)
        harness.until(lambda: metric(server, "server_accounted_bytes") <= base, 15)
        check(f"{what}: the account is at its base", metric(server, "server_accounted_bytes") <= base)


def main():
    harness.require_binary()
    harness.raise_descriptor_limit()
    for mib in [int(word) for word in sys.argv[1:]] or SIZES:
        harness.section(attack, mib)
        harness.section(handshakes, mib)
    harness.finish()


main()
