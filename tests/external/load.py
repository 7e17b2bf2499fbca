#!/usr/bin/env -S python3 -B
"""`wspulse load`: system D's experiment, many connections, few descriptors, the generator's CPU per
message, and a comparison with other measurements.

    tests/external/load.py
"""

import asyncio
import json
import os
import pty
import random
import select
import shutil
import socket
import ssl
import statistics
import subprocess
import threading
import time

import harness
import tools
from harness import BINARY, SCRATCH, Server, check, clean_environment, equal, free_port, launch
from harness import not_run, timed_section

PYTHON = tools.venv("load", ["websockets==15.0.1"])
tools.install_only()
tools.rerun_inside(PYTHON)

import websockets  # noqa: E402  (it lies in that environment)

MANY = 19_000


def load(url, *flags, budget_s=60, before=()):
    """Exit code and report; stderr instead of the report if there is none."""
    process = launch([*before, str(BINARY), "load", url, "--json", *flags], env=clean_environment(),
                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate(timeout=budget_s)
    return process.returncode, json.loads(out) if out else err


# ---- system D ---------------------------------------------------------------------------------

def one_worker():
    """50 clients × 6 messages × 100 ms on one worker: 30 s, which is also the ideal."""
    with Server() as server:
        code, report = load(server.ws("/throttled"), "--clients", "50", "--messages", "6")
    print(f"# one worker: {report['elapsed_ms']:.0f} ms, ideal {report['ideal_ms']:.0f} ms", flush=True)
    equal("50 × 6 on /throttled: exit code", code, 0)
    check("… takes 30 s ± 5 %", abs(report["elapsed_ms"] - 30_000) <= 1_500, report["elapsed_ms"])
    check("… which is its ideal ± 5 %", abs(report["elapsed_ms"] / report["ideal_ms"] - 1) <= 0.05, report)
    equal("… all answered, no errors", (report["answered"], report["errors"]), (300, 0))


def pods(port, count=10):
    return [Server("--reuse-port", main=f"127.0.0.1:{port}", admin="off", env={"POD_NAME": f"pod-{index}"})
            for index in range(count)]


def ten_processes():
    """The same on ten processes that share a port: the time is that of the busiest one."""
    port = free_port()
    servers = pods(port)
    try:
        url = f"ws://127.0.0.1:{port}/throttled"
        code, report = load(url, "--clients", "50", "--messages", "6")
        equal("ten processes: exit code", code, 0)
        share = max(server["connections"] for server in report["servers"])
        elapsed_s = report["elapsed_ms"] / 1000
        print(f"# ten processes: {elapsed_s:.2f} s, the busiest has {share} of 50, ideal "
              f"{report['ideal_ms'] / 1000:.2f} s, imbalance {report['imbalance']:.2f}", flush=True)
        check("… the largest share × 0.6 s ± 5 %", abs(elapsed_s / (share * 0.6) - 1) <= 0.05,
              f"{elapsed_s:.2f} s, not {share * 0.6:.2f} s")
        equal("… every answer has its server", sum(s["answers"] for s in report["servers"]), 300)
        few_descriptors(url)
    finally:
        for server in servers:
            server.kill()


def few_descriptors(url):
    code, report = load(url, "--clients", "500", "--messages", "1",
                        before=["bash", "-c", 'ulimit -n 512; exec "$@"', "-"])
    equal("500 clients under ulimit -n 512", (code, report["connected"], report["errors"]), (0, 500, 0))
    code, err = load(url, "--clients", "500", before=["bash", "-c", 'ulimit -n 256; exec "$@"', "-"])
    check("500 under ulimit -n 256: one line with the possible number and the limit to raise", code == 1
          and len(err.splitlines()) == 1 and "room for 2" in err and "ulimit -n 5" in err, err)


# ---- many connections and CPU -----------------------------------------------------------------------------------

def many():
    """19 000 connections that stay open, between two processes."""
    if harness.raise_descriptor_limit() < MANY + 200:
        return not_run(f"{MANY} connections", "the descriptor limit is lower")
    with Server() as server:
        code, report = load(server.ws(), "--clients", str(MANY), "--hold", "2s", "--max-errors", "0")
        print(f"# {MANY} connections: all open after {report['connect_ms']:.0f} ms", flush=True)
        equal(f"{MANY} connections: exit code, connected, answered",
              (code, report["connected"], report["answered"]), (0, MANY, MANY))
        equal("… all closed with 1000", report["closes"], {"1000": MANY})


def cpu_ns(pid):
    return int(open(f"/proc/{pid}/schedstat", encoding="ascii").read().split()[0])


def cost(flags):
    """Nanoseconds of CPU per message, of the generator and of the server in the same run."""
    with Server() as server:
        os.sched_setaffinity(server.process.pid, {0})
        before = cpu_ns(server.process.pid)
        process = launch(["taskset", "-c", "1", str(BINARY), "load", server.ws(), "--json", *flags],
                         env=clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        report = json.loads(process.stdout.readline())
        # The kernel keeps a process's figures until it is waited for.
        ours, theirs = cpu_ns(process.pid), cpu_ns(server.process.pid) - before
        process.wait()
    return ours / report["answered"], theirs / report["answered"]


def generator():
    """The generator may use up to 1.1 times the server's CPU."""
    if len(os.sched_getaffinity(0)) < 2:
        return not_run("CPU per message", "two cores are needed")
    pairs = [cost(["--clients", "64", "--size", "20B", "--duration", "1500ms", "--verify"]) for _ in range(5)]
    ratios = [ours / theirs for ours, theirs in pairs]
    print(f"# CPU per message, 64 × 20 B: ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}–"
          f"{max(ratios):.2f}), {pairs[0][0]:.0f} ns beside {pairs[0][1]:.0f} ns", flush=True)
    check("the generator's CPU per message ≤ 1.1 × the server's, median of 5", statistics.median(ratios) <= 1.1, ratios)


# ---- comparison with other measurements -----------------------------------------------------------

def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def known_delays(messages=1500, clients=5):
    """A python websockets server that delays its answers, 97 % by 5 to 15 ms and the others by 80 to
    120 ms, and records how long each message took from arrival to answer."""
    draw, took_ms = random.Random(7), []

    async def serve(peer):
        async for message in peer:
            since = time.monotonic()
            await asyncio.sleep(draw.uniform(0.005, 0.015) if draw.random() < 0.97 else draw.uniform(0.08, 0.12))
            await peer.send(message)
            took_ms.append((time.monotonic() - since) * 1000)

    async with websockets.serve(serve, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        code, report = await asyncio.to_thread(
            load, f"ws://127.0.0.1:{port}/", "--clients", str(clients), "--messages", str(messages // clients),
            "--verify")
    equal("python websockets serves: exit code, answered", (code, report["answered"]), (0, messages))
    for name, share in (("p50", 0.50), ("p99", 0.99)):
        theirs, ours = quantile(took_ms, share), report["latency"][f"{name}_ms"]
        print(f"# {name}: the server measured {theirs:.2f} ms, load {ours:.2f} ms", flush=True)
        # Allowed: the network both ways, both event loops, and histogram buckets of 0.8 %.
        check(f"{name} is the server's own figure, + 2 ms and ± 2 %",
              -0.02 * theirs <= ours - theirs <= 2 + 0.02 * theirs, f"{ours} beside {theirs}")


def plain_client(server, messages):
    """Median round trip of a blocking socket: only send and recv."""
    with socket.create_connection(server.main) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(b"GET /echo HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        while not peer.recv(4096).endswith(b"\r\n\r\n"):
            pass
        took_us = []
        for _ in range(messages):
            since = time.perf_counter()
            peer.sendall(b"\x81\x85\0\0\0\0hello")
            peer.recv(4096)
            took_us.append((time.perf_counter() - since) * 1e6)
    return quantile(took_us, 0.5)


def round_trips():
    """Both clients in turn, so that other load affects both alike. All on one core: waking a sleeping
    core takes ten times as long as a round trip."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        with Server() as server:
            pairs = []
            for _ in range(5):
                _, report = load(server.ws(), "--clients", "1", "--messages", "3000")
                pairs.append((report["latency"]["p50_ms"] * 1000, plain_client(server, 3000)))
    finally:
        os.sched_setaffinity(0, cores)
    ours, theirs = (statistics.median(column) for column in zip(*pairs))
    print(f"# round trip of one client, p50: load {ours:.0f} µs, a blocking socket {theirs:.0f} µs", flush=True)
    check("one client's p50 is a blocking socket's ± (30 µs + 30 %)",
          abs(ours - theirs) <= 30 + 0.3 * theirs, f"{ours} beside {theirs}")


# ---- targets that do not work -----------------------------------------------------------------------

def tls():
    """Plain text to a TLS server: the report names the cause."""
    if not shutil.which("openssl"):
        return not_run("TLS on a plain port", "there is no openssl")
    key, certificate = SCRATCH / "key.pem", SCRATCH / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out",
                    str(certificate), "-days", "1", "-subj", "/CN=localhost"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            peer, _ = listener.accept()
            try:
                context.wrap_socket(peer, server_side=True)
            except OSError:
                pass  # expected: the client sends plain text
        threading.Thread(target=serve, daemon=True).start()
        code, report = load(f"ws://127.0.0.1:{listener.getsockname()[1]}/", "--clients", "1")
    check("the report names TLS as the cause", code == 1 and any("TLS" in cause or "connection lost" in cause
          for cause in report["causes"]), report)


def unreachable():
    """A listener with a full accept queue drops each SYN, as a firewall does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        filling = [socket.socket() for _ in range(8)]
        for peer in filling:
            peer.setblocking(False)
            peer.connect_ex(address)
        time.sleep(0.1)
        code, report = load(f"ws://127.0.0.1:{address[1]}/", "--clients", "2", "--timeout", "500ms")
        for peer in filling:
            peer.close()
    equal("no answer to SYN: exit code", code, 1)
    equal("… and the cause in the report", report["causes"], {"connecting timed out": 2})


# ---- in a terminal ------------------------------------------------------------------------------------

def at_a_terminal(arguments, typed):
    """The output in a terminal, and the exit code."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(BINARY, [str(BINARY), *arguments], clean_environment())
    shown, typed, end = b"", list(typed), time.monotonic() + 10
    while time.monotonic() < end:
        if typed and typed[0][0] in shown:
            os.write(terminal, typed.pop(0)[1])
        if not select.select([terminal], [], [], 0.05)[0]:
            continue
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # the other end is gone
            break
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def terminal():
    with Server() as server:
        shown, code = at_a_terminal(["connect", server.ws()], [(b"> ", b"hello\n"), (b"< hello", b"\x04")])
        check("connect: connected, prompt, answer above it, Ctrl-D", code == 0 and
              shown.startswith(f"\r\x1b[KConnected to {server.ws()}.\r\n") and "\r\n> " in shown and
              "\x1b[L< hello\r\n" in shown and shown.endswith("Connection closed: 1000 (OK).\r\n"), repr(shown))
        shown, code = at_a_terminal(["load", server.ws(), "--hold", "1h"], [(b"10 open", b"\x03")])
        check("load: a line of progress, and the report after Ctrl-C", code == 0 and
              "\r1s  10 open  10 answered" in shown and "connected   10 of 10 clients" in shown, repr(shown))


def main():
    harness.require_binary()
    for run in (terminal, generator, round_trips, known_delays, tls, unreachable, ten_processes, many, one_worker):
        timed_section(run)
    harness.finish()


if __name__ == "__main__":
    main()
