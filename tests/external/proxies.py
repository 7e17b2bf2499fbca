#!/usr/bin/env -S python3 -B
"""deploy/proxy: each configuration, with wspulse behind it.

    tests/external/proxies.py

Upgrade, Origin, 70 s idle with and without pings, a drain that passes on 1001, and the client's
address in wspulse's log. All run in parallel, since they mostly wait.
"""

import asyncio
import socket
import traceback

import recipes
import tools
from recipes import CLIENT, SNIPPETS, Proxy, get

tools.install_only()
tools.rerun_inside(recipes.PYTHON)

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import harness
from harness import Server, check, equal, records

IDLE_S = 70  # longer than the 60 s idle timeout of most proxies
MIB = 1 << 20


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
            proxy = Proxy(snippet, server.main[1])
            name = proxy.name
            if check(f"{name}: starts with its first line's command", await proxy.ready(), proxy.tail()):
                await through(name, proxy.port, server)
                logged(name, server)
            proxy.stop()
    except Exception as error:  # any error: the others continue
        where = traceback.extract_tb(error.__traceback__)[-1]
        check(f"{name}: runs to its end", False,
              f"{type(error).__name__}: {error} (line {where.lineno})")


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
