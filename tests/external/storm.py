#!/usr/bin/env -S python3 -B
"""A reconnect storm, a drain under load, kill -9 and repeated SIGTERM against `wspulse`.

    tests/external/storm.py             10 000 connections at once
    tests/external/storm.py 2000        a smaller storm
"""

import signal
import sys
import threading
import time
import urllib.request
from collections import Counter

import harness
from crowd import Crowd
from harness import Server, check, equal, section

STORM = int(sys.argv[1]) if sys.argv[1:2] and sys.argv[1].isdigit() else 10_000
REQUEST = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"
WINDOW_S, HARD_STOP_S = 3, 8  # plain profile


class Prober(threading.Thread):
    """Acts as a kubelet: requests /healthz continuously, records the slowest answer."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.url, self.worst_s, self.count, self.failed, self.stop = server.url("/healthz", "admin"), 0, 0, [], False
        self.start()

    def run(self):
        while not self.stop:
            since = time.monotonic()
            try:
                urllib.request.urlopen(self.url, timeout=5).read()
            except OSError as error:
                self.failed.append(str(error))
            self.worst_s, self.count = max(self.worst_s, time.monotonic() - since), self.count + 1
            time.sleep(0.05)


def answered(peer):
    return peer.end or peer.echoes


def storm():
    with Server("--drain-window", f"{WINDOW_S}s") as server:
        prober = Prober(server)
        since = time.monotonic()
        crowd = Crowd(STORM, server.main)
        dialled_s = time.monotonic() - since
        crowd.run_until(answered, 30)
        took_s = time.monotonic() - since
        print(f"# {STORM} dialled in {dialled_s:.2f} s, all answered after {took_s:.2f} s", flush=True)
        equal(f"{STORM} at once: none refused, none reset, each gets 101 and its echo",
              crowd.count("stage", "end"), {("echoed", None): STORM})
        check("the storm is over within 10 s", took_s < 10, f"{took_s:.1f} s")
        prober.stop = True
        prober.join()
        check("admin /healthz answers within 1 s during the storm", prober.worst_s < 1 and not prober.failed,
              f"worst {prober.worst_s:.2f} s of {prober.count}, {prober.failed[:3]}")
        drain(server, crowd)


def drain(server, crowd):
    since = time.monotonic()
    server.signal(signal.SIGTERM)
    crowd.run_until(lambda peer: peer.end, HARD_STOP_S + 2)
    code = server.wait(5)
    took_s = time.monotonic() - since
    equal("SIGTERM: every client is closed with 1001", crowd.count("close_code"), {1001: STORM})
    equal("… and every connection ends with a FIN, none with a reset", crowd.count("end"), {"eof": STORM})
    equal("… exit code", code, 0)
    check(f"… exit within {HARD_STOP_S} s", took_s < HARD_STOP_S, f"{took_s:.2f} s")
    closed = Counter(int(peer.closed_at - since) for peer in crowd.peers.values() if peer.closed_at)
    print(f"# exit after {took_s:.2f} s; closed in each second {dict(sorted(closed.items()))}", flush=True)
    check(f"… spread over {WINDOW_S} s: each second between 20 % and 50 %",
          all(0.2 < closed[second] / STORM < 0.5 for second in range(WINDOW_S)), dict(closed))
    record = server.record("drained") or {}
    equal("… and the log has the counts", (record.get("clean"), record.get("forced")), (STORM, 0))
    crowd.leave()


def kills(rounds=20):
    """kill -9 with clients connected: the next server can bind the same address at once."""
    port, worst_ms = harness.free_port(), 0
    for number in range(rounds):
        with Server(main=f"127.0.0.1:{port}") as server:
            worst_ms = max(worst_ms, server.started_ms)
            crowd = Crowd(20, server.main)
            crowd.run_until(answered, 5)
            if crowd.count("echoes") != {1: 20}:
                return check(f"kill -9, round {number + 1}: it serves again", False, crowd.count("stage", "end"))
            server.kill()
            crowd.leave()
    check(f"kill -9 and the same port at once, {rounds} times", True)
    check("… listening again within 500 ms each time", worst_ms < 500, f"{worst_ms:.0f} ms")


def hurry():
    """SIGTERM, again 0.3 s later (a kubelet's resend), and again when it is meant."""
    with Server("--drain-window", f"{WINDOW_S}s") as server:
        crowd = Crowd(100, server.main, answers_close=False)
        crowd.run_until(answered, 5)
        server.signal()
        time.sleep(0.3)
        server.signal()
        crowd.run_until(lambda peer: False, 0.5)
        equal("a second SIGTERM after 0.3 s is ignored", server.process.poll(), None)
        crowd.run_until(lambda peer: False, 0.5)
        since = time.monotonic()
        server.signal()
        code = server.wait(5)
        took_ms = (time.monotonic() - since) * 1000
        equal("SIGTERM 1.3 s after the first: exit code", code, 0)
        check("… within 200 ms", took_ms <= 200, f"{took_ms:.0f} ms")
        crowd.run_until(lambda peer: peer.end, 2)
        equal("… and each client got 1001", crowd.count("close_code"), {1001: 100})
        crowd.leave()


def frozen(rounds=4):
    """What reached the kernel before SIGTERM is answered, and nobody is reset. SIGSTOP makes that
    moment long enough to hit; in which order the server then finds it all is up to the kernel."""
    ends = Counter()
    for _ in range(rounds):
        with Server("--drain-window", "1s") as server:
            talking = Crowd(50, server.main)
            talking.run_until(answered, 5)
            keptalive = Crowd(50, server.main, first=REQUEST)
            keptalive.run_until(lambda peer: peer.stage == "200", 5)
            server.signal(signal.SIGSTOP)
            for peer in (*talking.peers.values(), *keptalive.peers.values()):
                peer.ask()
            requests, upgrades = Crowd(200, server.main, first=REQUEST), Crowd(50, server.main)
            for crowd in (requests, upgrades):
                crowd.run_until(lambda peer: peer.stage == "asked", 5)
            server.signal(signal.SIGTERM)
            server.signal(signal.SIGCONT)
            for crowd in (talking, keptalive, requests, upgrades):
                crowd.run_until(lambda peer: peer.end, 6)
            ends.update({("message", *end): n for end, n in talking.count("echoes", "close_code", "end").items()})
            for name, crowd in (("kept alive", keptalive), ("request", requests), ("upgrade", upgrades)):
                ends.update({(name, *end): n for end, n in crowd.count("stage", "close_code", "end").items()})
            ends[("exit code", server.wait())] += 1
    for what, allowed in (
            ("messages in flight: echoed, then 1001, then FIN", {("message", 2, 1001, "eof")}),
            ("requests on kept-alive connections: answered, then FIN",
             {("kept alive", "200", None, "eof"), ("kept alive", "503", None, "eof")}),
            # The first in the queue may be accepted before the server sees the signal.
            ("requests in the accept queue: 503 or answered, then FIN",
             {("request", "503", None, "eof"), ("request", "200", None, "eof")}),
            ("upgrades in the accept queue: 503, or 101 and then 1001",
             {("upgrade", "503", None, "eof"), ("upgrade", "closing", 1001, "eof")}),
            ("exit code", {("exit code", 0)})):
        kind = next(iter(allowed))[0]
        got = {end: n for end, n in ends.items() if end[0] == kind}
        check(f"at SIGTERM, {what}", set(got) <= allowed, got)


def idle_stop():
    with Server() as server:
        since = time.monotonic()
        equal("SIGTERM without connections: exit code", server.stop(), 0)
        took_ms = (time.monotonic() - since) * 1000
        check("… at once (< 200 ms)", took_ms < 200, f"{took_ms:.0f} ms")


def main():
    harness.require_binary()
    limit = harness.raise_descriptor_limit()
    if limit < STORM + 500:
        harness.not_run(f"a storm of {STORM}", f"the hard limit of descriptors is {limit}")
    else:
        section(storm)
    for group in (kills, hurry, frozen, idle_stop):
        section(group)
    harness.finish()


main()
