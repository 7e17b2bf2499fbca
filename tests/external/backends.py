#!/usr/bin/env -S python3 -B
"""Backends behind the gateway that come and go: shares of 1 -> 5, a rollout, none at all for a while.

Real processes on 127.0.0.x, a DNS server and a /etc/resolv.conf of its own in a namespace; needs `unshare`.
"""

import asyncio
import base64
import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request

INSIDE = "WSPULSE_TEST_NAMESPACE"
PORT = 8501
IDLE_S = 7  # a name is looked up every 5 s

if __name__ == "__main__" and sys.argv[1:2] == ["--install"]:
    sys.exit(0)
if __name__ == "__main__" and INSIDE not in os.environ and sys.argv[1:2] != ["--backend"]:
    user = [] if os.geteuid() == 0 else ["-r"]
    probe = subprocess.run(["unshare", *user, "-mn", "true"], capture_output=True, check=False)
    if probe.returncode == 0:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", *user, "-mn", sys.executable, "-B", *sys.argv])

from harness import (BINARY, SCRATCH, Server, check, equal, finish, launch, not_run,  # noqa: E402
                     require_binary, section, until)


# ---- a backend, as a process of its own ------------------------------------------------------

async def backend(address):
    """Answers each POST with its own address and the body. SIGTERM: no new connections, those in
    use are closed with their next answer, idle ones once DNS has been asked again and names it no
    more: closing them earlier may meet a request on its way. Then it ends.

    `asyncio.start_server` would lose connections that it accepts just before it is closed."""
    loop, draining, open_since = asyncio.get_running_loop(), asyncio.Event(), {}
    listener = socket.create_server((address, PORT), backlog=1024)
    listener.setblocking(False)

    def accept():
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = listener.accept()
                open_since[connection] = time.monotonic()
                tasks.add(asyncio.create_task(serve(connection)))

    async def serve(connection):
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                open_since[connection] = None
                length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n")
                               if line.lower().startswith(b"content-length:")), 0)
                body = await reader.readexactly(length)
                await asyncio.sleep(0.005)
                answer = address.encode() + b" " + body
                close = b"Connection: close\r\n" if draining.is_set() else b""
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s"
                             % (len(answer), close, answer))
                await writer.drain()
                if close:
                    break
                open_since[connection] = time.monotonic()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            open_since.pop(connection, None)
            writer.close()

    tasks = set()
    loop.add_reader(listener, accept)
    loop.add_signal_handler(signal.SIGTERM, draining.set)
    await draining.wait()
    loop.remove_reader(listener)
    accept()
    listener.close()
    while open_since:
        await asyncio.sleep(0.05)
        for connection, since in list(open_since.items()):
            is_idle = since is not None and time.monotonic() - since > IDLE_S
            if is_idle and not select.select([connection], [], [], 0)[0]:
                connection.shutdown(socket.SHUT_RDWR)


def start(last):
    process = launch([sys.executable, "-B", __file__, "--backend", f"127.0.0.{last}"])
    assert until(lambda: reachable(last)), f"127.0.0.{last} does not listen"
    return process


def reachable(last):
    with socket.socket() as probe:
        return probe.connect_ex((f"127.0.0.{last}", PORT)) == 0


# ---- DNS -------------------------------------------------------------------------------------

class Names(threading.Thread):
    """Answers A queries from `self.names`; a name with None is never answered."""

    def __init__(self):
        super().__init__(daemon=True)
        self.names, self.asked = {}, []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.53", 53))
        self.start()

    def run(self):
        while True:
            query, peer = self.socket.recvfrom(512)
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1:at + 1 + query[at]].decode())
                at += 1 + query[at]
            kind, question = struct.unpack(">H", query[at + 1:at + 3])[0], query[12:at + 5]
            name = ".".join(labels).lower()
            self.asked.append(name)
            addresses = self.names.get(name, [])
            if addresses is None:
                continue
            code = 3 if not addresses else 0
            records = addresses if kind == 1 else []
            answer = b"".join(b"\xc0\x0c\0\x01\0\x01\0\0\0\x01\0\x04" + bytes([127, 0, 0, last])
                              for last in records)
            self.socket.sendto(query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(records), 0, 0)
                               + question + answer, peer)


def ask_own_names():
    """In a namespace of its own: loopback is up, and names are asked of `Names`."""
    resolv = SCRATCH / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.53\noptions timeout:2 attempts:1\n")
    for command in (["ip", "link", "set", "lo", "up"],
                    ["mount", "--bind", str(resolv), os.path.realpath("/etc/resolv.conf")]):
        subprocess.run(command, check=True)


# ---- clients ---------------------------------------------------------------------------------

class Client:
    """A WebSocket with one message in flight: who answered, and whether each was answered once."""

    def __init__(self, server):
        self.server, self.answers, self.errors, self.wrong, self.sent = server, [], [], 0, 0

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection(*self.server.main)
        key = base64.b64encode(os.urandom(16)).decode()
        self.writer.write(f"GET /gateway/prod HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n"
                          f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                          f"Sec-WebSocket-Key: {key}\r\n\r\n".encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        return int(head.split(b" ")[1])

    def send(self, text):
        self.writer.write(bytes([0x81, 0x80 | len(text)]) + b"\0\0\0\0" + text.encode())
        self.sent += 1

    async def read(self):
        while True:
            first, length = await self.reader.readexactly(2)
            if length == 126:
                length = int.from_bytes(await self.reader.readexactly(2), "big")
            payload = await self.reader.readexactly(length)
            if first == 0x81:
                return payload.decode()

    async def ask(self, text):
        self.send(text)
        answer = await self.read()
        if answer.startswith("{"):
            self.errors.append(answer)
            return
        address, said = answer.split(" ", 1)
        self.wrong += said != text
        self.answers.append((time.monotonic(), address))

    async def talk(self, until_event, pause_s):
        number = 0
        while not until_event.is_set():
            await self.ask(f"m{number}")
            number += 1
            await asyncio.sleep(pause_s)


async def crowd(server, count, work, pause_s=0.1):
    """So many clients that talk while `work` runs."""
    clients, over = [Client(server) for _ in range(count)], asyncio.Event()
    equal(f"{count} clients get in", {await client.open() for client in clients}, {101})
    talks = [asyncio.create_task(client.talk(over, pause_s)) for client in clients]
    try:
        await work(clients)
    finally:
        over.set()
        await asyncio.wait_for(asyncio.gather(*talks, return_exceptions=True), 15)
    return clients


def gateway(*args):
    return Server("--gateway-backend", f"http://api.test:{PORT}", "--gateway-format", "proxy",
                  "--gateway-reply", "on", *args)


def stats(server):
    with urllib.request.urlopen(server.url("/stats", "admin"), timeout=5) as answer:
        return json.load(answer)["gateway"]


def judge(what, clients):
    errors = [error for client in clients for error in client.errors]
    answered = sum(len(client.answers) for client in clients)
    equal(f"{what}: no error in {answered} messages", errors[:3], [])
    equal(f"{what}: each answer is to its message", sum(client.wrong for client in clients), 0)


async def one_to_five(names):
    backends = [start(1)]
    names.names["api.test"] = [1]
    shares = {}

    async def work(clients):
        await asyncio.sleep(1)
        backends.extend(start(last) for last in range(2, 6))
        names.names["api.test"] = [1, 2, 3, 4, 5]
        await asyncio.sleep(7)
        since = time.monotonic()
        await asyncio.sleep(4)
        for client in clients:
            for at, address in client.answers:
                if at > since:
                    shares[address] = shares.get(address, 0) + 1

    with gateway() as server:
        judge("1 -> 5", await crowd(server, 40, work))
    total = max(1, sum(shares.values()))
    percent = {address: round(100 * n / total) for address, n in sorted(shares.items())}
    check("each of five has 20 % +- 5 points 7 s after DNS names it",
          len(percent) == 5 and all(15 <= share <= 25 for share in percent.values()), percent)
    print(f"# shares: {percent} of {total}")
    return backends


async def rollout(names, backends):
    async def work(_):
        for step in range(5):
            last = 11 + step
            new = start(last)
            names.names["api.test"] = [*range(2 + step, 6), *range(11, last + 1)]
            old = backends[step]
            old.send_signal(signal.SIGTERM)
            backends.append(new)
            await asyncio.sleep(1.5)
        codes = [await asyncio.to_thread(old.wait, 2 * IDLE_S) for old in backends[:5]]
        equal("the old backends end by themselves", codes, [0] * 5)

    with gateway() as server:
        judge("rollout", await crowd(server, 40, work, 0.05))
    del backends[:5]


async def silent_name(names):
    """A name that DNS does not answer delays no other."""
    names.names["silent.test"] = None
    route = f"silent=http://silent.test:{PORT}"
    with gateway("--gateway-route", "$request.body.r", "--gateway-routes", route) as server:
        quiet, healthy = [Client(server) for _ in range(4)], Client(server)
        for client in (*quiet, healthy):
            equal("a client gets in", await client.open(), 101)
        for client in quiet:
            client.send('{"r":"silent"}')
        slowest = 0
        for number in range(10):
            began = time.monotonic()
            await healthy.ask(f"h{number}")
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.2)
        judge("beside a silent name", [healthy])
        check("and without delay", slowest < 0.5, f"{slowest:.2f} s")
        frames = [await asyncio.wait_for(client.read(), 5) for client in quiet]
        check("the others are told within 5 s", all("Internal server error" in f for f in frames), frames)


async def at_zero(names, backends):
    for process in backends:
        process.kill()
        process.wait()
    names.names["api.test"] = []
    with gateway("--gateway-hold", "30s") as server:
        clients = [Client(server) for _ in range(20)]
        opens = [asyncio.create_task(client.open()) for client in clients]
        await asyncio.sleep(4)
        equal("20 clients wait", stats(server)["waiting"], 20)
        check("none is turned away", not any(task.done() for task in opens))
        process = start(1)
        began = time.monotonic()
        names.names["api.test"] = [1]
        equal("all get in", {await task for task in opens}, {101})
        took = time.monotonic() - began
        check("within 3 s of the first backend", took < 3, f"{took:.1f} s")
        process.kill()
        process.wait()
        names.names["api.test"] = []
        for client in clients:
            for number in range(3):
                client.send(f"z{number}")
        await asyncio.sleep(4)
        check("messages wait", stats(server)["waiting"] >= 20, stats(server))
        backends[:] = [start(2)]
        names.names["api.test"] = [2]
        for client in clients:
            heard = [await asyncio.wait_for(client.read(), 10) for _ in range(3)]
            if heard != [f"127.0.0.2 z{number}" for number in range(3)]:
                check("each message is answered once and in order", False, heard)
                break
        else:
            check("60 messages are answered once and in order after 0 -> 1", True)
    backends[0].kill()
    names.names["api.test"] = []
    with gateway("--gateway-hold", "2s") as server:
        began = time.monotonic()
        equal("after the hold a client is turned away", await Client(server).open(), 502)
        took = time.monotonic() - began
        check("that is after 2 s", 1.9 < took < 3.5, f"{took:.1f} s")


async def everything(names):
    backends = await one_to_five(names)
    await rollout(names, backends)
    await silent_name(names)
    await at_zero(names, backends)


def main():
    require_binary()
    if INSIDE not in os.environ:
        not_run("backends that come and go", "no namespace of its own: unshare -mn")
        check("the script is there", True)
        finish()
    ask_own_names()
    print(f"# {BINARY}")
    names = Names()
    section(everything, names)
    finish()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--backend"]:
        asyncio.run(backend(sys.argv[2]))
    else:
        main()
