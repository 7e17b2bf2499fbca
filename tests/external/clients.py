#!/usr/bin/env -S python3 -B
"""Real WebSocket clients against `wspulse`: wscat, npm ws, python websockets, aiohttp,
websocket-client: what each of them expects must work.

    tests/external/clients.py
"""

import asyncio
import json
import os
import subprocess
import time
from pathlib import Path

import tools

PYTHON = tools.venv("clients", ["websockets>=17,<18", "aiohttp>=3.14,<4", "websocket-client>=1.9,<2"])
NODE = tools.npm(["wscat@6", "ws@8"])
tools.install_only()
tools.rerun_inside(PYTHON)

import aiohttp
import websocket
import websockets
from websockets.asyncio.client import connect

import harness
from harness import Server, check, equal, section
from terminal import Terminal

MIB = 1 << 20
AT_ONCE_MS = 300


def wscat_command(*args):
    return ["node", NODE / "node_modules" / "wscat" / "bin" / "wscat", "--no-color", *args]


def python_client(server, path="/echo"):
    return Terminal(PYTHON, "-m", "websockets", server.ws(path))


def wscat(server):
    with Terminal(*wscat_command("-c", server.ws("/echo"))) as client:
        check("wscat connects", client.until("Connected"), client.seen)
        client.type("hello\r")
        check("wscat shows the echo", client.until("< hello"), client.seen)
    with Terminal(*wscat_command("-c", server.ws("/echo"), "-x", "one", "-x", "two", "-w", "1")) as client:
        check("wscat -x: both answers", client.until("one") and client.until("two"), client.seen)
    with Terminal(*wscat_command("-c", server.ws("/echo"), "--slash", "-P")) as client:
        client.until("Connected")
        client.type("/ping abc\r")
        check("wscat /ping gets its pong", client.until('Received pong (data: "abc")'), client.seen)
        client.type("/close 4001 later\r")
        check("wscat /close: code and reason come back",
              client.until('Disconnected (code: 4001, reason: "later")'), client.seen)
    with Terminal(*wscat_command("-c", server.ws("/websocket"))) as client:
        check("wscat sees randping", client.until("< randping"), client.seen)


NPM_ROWS = {
    "text echo": "grüß 😀false", "binary echo": "00ff0atrue", "empty text": "0false",
    "empty binary": "0true", "fragmented text": "one two threefalse",
    "ping and pong": "are you there", "a message of 1 MiB": f"{MIB}true",
    "the first of two subprotocols": "superchat", "without compression": "plain",
    "foreign Origin": "Unexpected server response: 403", "own Origin": "101",
    "unknown path": "Unexpected server response: 404", "over 1 MiB": "1009",
}
NPM_CLOSES = {"close 1000": (1000, "bye"), "close 4999": (4999, ""), "close without a code": (1005, "")}


def npm_ws(server):
    run = subprocess.run(
        ["node", Path(__file__).with_name("npm_ws.cjs"), server.ws("")],
        env=os.environ | {"NODE_PATH": str(NODE / "node_modules")}, timeout=60, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if not check("npm ws runs to its end", run.returncode == 0, run.stderr or run.returncode):
        return
    got = json.loads(run.stdout)
    for row, wanted in NPM_ROWS.items():
        equal(f"npm ws: {row}", got[row], wanted)
    for row, wanted in NPM_CLOSES.items():
        closed = got[row] if isinstance(got[row], dict) else {}
        equal(f"npm ws: {row} comes back", (closed.get("code"), closed.get("reason")), wanted)
        check(f"npm ws: {row} takes < {AT_ONCE_MS} ms", closed.get("ms", 1e9) < AT_ONCE_MS, got[row])


async def python_websockets(server):
    messages = {"text": "grüß 😀", "binary": b"\x00\xff\n", "empty text": "", "empty binary": b"",
                "1 MiB": bytes(MIB)}
    async with connect(server.ws()) as ws:
        for name, message in messages.items():
            await ws.send(message)
            got = await asyncio.wait_for(ws.recv(), 5)
            check(f"python websockets: {name} echo", got == message, f"got {str(got)[:60]!r}")
        await ws.send(["one ", "two ", "three"])
        pieces = [piece async for piece in ws.recv_streaming()]
        equal("python websockets: fragments come back as one message", "".join(pieces), "one two three")
        latency = await asyncio.wait_for(await ws.ping("still there"), 5)
        check("python websockets: a ping is answered at once", latency < 0.3, f"{latency:.3f} s")
        check("python websockets: 101 carries X-Served-By",
              ws.response.headers.get("X-Served-By"), dict(ws.response.headers))
        since = time.monotonic()
        await ws.close(1000, "bye")
        took_ms = (time.monotonic() - since) * 1000
        check(f"python websockets: close() takes < {AT_ONCE_MS} ms", took_ms < AT_ONCE_MS, f"{took_ms:.0f} ms")
        equal("python websockets: close code and reason", (ws.close_code, ws.close_reason), (1000, "bye"))
    async with connect(server.ws(), subprotocols=["superchat", "chat"]) as ws:
        equal("python websockets: the first of two subprotocols", ws.subprotocol, "superchat")
    for name, origin, wanted in (("foreign", "https://evil.example", 403), ("null", "null", 403),
                                 ("same-host", server.url("").rstrip("/"), 101)):
        equal(f"python websockets: {name} Origin", await status(server.ws(), origin=origin), wanted)
    for path, wanted in (("/ws", 101), ("/", 101), ("/nope", 404), ("/healthz", 404)):
        equal(f"python websockets: upgrade on {path}", await status(server.ws(path)), wanted)


async def status(url, **options):
    try:
        async with connect(url, **options):
            return 101
    except websockets.exceptions.InvalidStatus as refused:
        return refused.response.status_code


async def randping(server):
    """seeds.md A: at once, before any echo, then again after a random [0, 3) s per connection."""
    async with connect(server.ws("/websocket")) as one, connect(server.ws("/websocket")) as two:
        since = time.monotonic()
        await one.send("mine")
        first = await asyncio.wait_for(one.recv(), 1)
        check("randping comes first and within 100 ms",
              first == "randping" and time.monotonic() - since < 0.1, f"{first!r}")
        equal("/websocket echoes too", await next_but_randping(one), "mine")
        gaps = await asyncio.gather(gaps_between_randpings(one), gaps_between_randpings(two))
        check("each gap is under 3 s", all(gap < 3.1 for side in gaps for gap in side), gaps)
        check("the gaps differ within and between connections",
              len({round(gap, 2) for side in gaps for gap in side}) > 4, gaps)


async def next_but_randping(ws):
    while (message := await asyncio.wait_for(ws.recv(), 5)) == "randping":
        pass
    return message


async def gaps_between_randpings(ws, count=5):
    gaps, since = [], time.monotonic()
    while len(gaps) < count:
        if await asyncio.wait_for(ws.recv(), 5) == "randping":
            gaps.append(time.monotonic() - since)
            since = time.monotonic()
    return gaps[1:]  # the first is only a part of a gap


async def aiohttp_echo(server):
    async with aiohttp.ClientSession() as session:
        for name, compress in (("", 0), (", compression offered", 15)):
            async with session.ws_connect(server.ws(), compress=compress) as ws:
                await ws.send_str("x" * 1000)
                equal(f"aiohttp: text echo{name}", (await ws.receive(5)).data, "x" * 1000)
                await ws.send_bytes(b"\x00\x01")
                equal(f"aiohttp: binary echo{name}", (await ws.receive(5)).data, b"\x00\x01")
        equal("aiohttp: close code", ws.close_code, 1000)


def websocket_client(server):
    ws = websocket.create_connection(server.ws(), timeout=5)  # it sends an Origin header of its own
    ws.send("hello")
    equal("websocket-client: text echo", ws.recv(), "hello")
    ws.send_binary(b"\x00\x01")
    equal("websocket-client: binary echo", ws.recv(), b"\x00\x01")
    since = time.monotonic()
    ws.close()
    took_ms = (time.monotonic() - since) * 1000
    check(f"websocket-client: close() takes < {AT_ONCE_MS} ms", took_ms < AT_ONCE_MS, f"{took_ms:.0f} ms")


def interactive(server):
    with python_client(server) as client:
        check("python -m websockets connects", client.until(f"Connected to {server.ws()}."), client.seen)
        client.type("hello\n")
        check("python -m websockets shows the echo", client.until("< hello"), client.seen)
        client.type("\x04")
        check("Ctrl-D closes with 1000", client.until("Connection closed: 1000 (OK)."), client.seen)


def drained(args, shown):
    """kill -TERM while clients are connected: what their users see."""
    reason = "draining" if not args else ""
    with Server(*args) as server, python_client(server) as client, \
            Terminal(*wscat_command("-c", server.ws())) as cat:
        client.until("Connected"), cat.until("Connected")
        since = time.monotonic()
        server.signal()
        label = 'drain with --drain-reason ""' if args else "drain"
        check(f"{label}: python shows {shown!r}", client.until(shown), client.seen)
        cat_line = f'Disconnected (code: 1001, reason: "{reason}")'
        check(f"{label}: wscat shows it", cat.until(cat_line), cat.seen)
        equal(f"{label}: exit code", server.wait(), 0)
        took_s = time.monotonic() - since
        check(f"{label}: two clients take < 3 s", took_s < 3, f"{took_s:.1f} s")


def main():
    harness.require_binary()
    with Server() as server:
        for group in (wscat, npm_ws, python_websockets, interactive, aiohttp_echo, websocket_client, randping):
            section(group, server)
        equal("the server is still up", server.process.poll(), None)
    section(drained, [], "Connection closed: 1001 (going away) draining.")
    section(drained, ["--drain-reason", ""], "Connection closed: 1001 (going away).")
    harness.finish()


main()
