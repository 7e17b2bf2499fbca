"""The clients of `soak.py`, well-behaved and hostile, an unreliable API server and an unreliable
backend. Each function of `KINDS` is one short client; an exception in it is a failed check.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from backend_parts import Backend, Web
from cluster_api import Api, deployment
from floods import frame, upgrade
from harness import BINARY, SCRATCH, clean_environment, launch

LARGEST = 1 << 20
SIZES = [0, 1, 20, 20, 20, 125, 126, 1000, 4096, 16_384, 65_535, 65_536, 200_000, LARGEST]
TEXT = "wspulse ☃ κόσμε "
MAX_AGE = "max age"
FLOODS = Path(__file__).with_name("floods.py")


class Wrong(Exception):
    """The server behaved incorrectly."""


def trust():
    return ssl.create_default_context(cafile=SCRATCH / "ca.pem")


# ---- around the server ------------------------------------------------------------------------------

class FlakyApi(Api):
    """Changes Deployments continuously. Modes: `well`, answers `500` or `410`, sends `half` a line, is
    `away`; `calm` stops the changes."""

    mode, calm = "well", False

    def page(self, stream, line):
        if self.mode == "500":
            stream.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\n{}")
        else:
            super().page(stream, line)

    def watch(self, stream, initial):
        stream.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            stream.flush()
            time.sleep(0.1)
            if self.mode == "410":
                gone = {"kind": "Status", "code": 410, "reason": "Expired"}
                self.send_event(stream, {"type": "ERROR", "object": gone})
            if self.mode in ("410", "500"):
                stream.write(b"0\r\n\r\n")
                return
            if self.mode == "half":
                stream.write(b"80\r\n{\"type\":\"MODIFIED\"")
                stream.flush()
                while self.mode == "half":  # `live` closes the connection meanwhile
                    time.sleep(0.1)
                raise OSError
            if not self.calm:
                self.change(stream)

    def change(self, stream):
        """Adds, changes and deletes a Deployment."""
        for kind, name in ("ADDED", "new"), ("MODIFIED", f"d{self.version % self.count}"), ("DELETED", "new"):
            self.version += 1
            self.send_event(stream, {"type": kind, "object": deployment(name, self.version, self.version)})

    @staticmethod
    def send_event(stream, event):
        line = json.dumps(event).encode() + b"\n"
        stream.write(b"%x\r\n%s\r\n" % (len(line), line))

    async def live(self, rng, stop):
        """One mode after the other; `well` at the end."""
        while not await asleep(stop, rng.uniform(2, 6)):
            self.mode = rng.choice(["500", "410", "half", "away"])
            if self.mode in ("half", "away"):
                await asyncio.sleep(0.3)
                self.stop()
                await asyncio.sleep(rng.uniform(0, 2) if self.mode == "away" else 0)
                self.start()
            await asyncio.sleep(rng.uniform(0.2, 1))
            self.mode = "well"


class FlakyBackend:
    """`wspulse backend` on one port, killed or stopped now and then; meanwhile the port is closed, or a
    server answers 500, at once or late, or closes the connection."""

    def __init__(self, server, port):
        self.command = ("--listen", f"127.0.0.1:{port}", "--gateway", server.url("", "admin"))
        self.port, self.deaths, self.logs, self.real = port, 0, [], None
        self.begin()

    def begin(self):
        self.real = Backend(*self.command, "--log-level", "info")
        self.logs.append(self.real)

    def end(self, gently):
        self.deaths += 1
        if gently and (code := self.real.stop()) != 0:
            raise Wrong(f"SIGTERM ended the backend with {code}")
        self.real.kill()

    async def live(self, rng, stop):
        def answer(*_):
            mode = rng.choice(["soon", "late", "cut"])
            time.sleep(rng.uniform(0.5, 2) if mode == "late" else 0)
            if mode == "cut":
                raise OSError
            return 500, b"oops"

        while not await asleep(stop, rng.uniform(3, 8)):
            await asyncio.to_thread(self.end, rng.random() < 0.5)
            await asyncio.sleep(rng.uniform(0, 1))
            if rng.random() < 0.5:
                other = Web(answer, self.port)
                await asyncio.sleep(rng.uniform(1, 2))
                await asyncio.to_thread(other.close)
            await asyncio.to_thread(self.begin)


async def asleep(stop, seconds):
    """Sleeps; returns whether `stop` was set meanwhile."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True


# ---- well-behaved clients ---------------------------------------------------------------------------

def message(rng, number, largest=LARGEST):
    """Text or bytes of a random size, different each time, partly incompressible."""
    size = rng.choice([size for size in SIZES if size <= largest])
    if rng.random() < 0.5:
        return rng.randbytes(size)
    return (f"{number} " + TEXT * (size // len(TEXT.encode()) + 1)).encode()[:size].decode(errors="ignore")


def client(setup, path, rng, **more):
    return connect(setup.ws(path), ssl=setup.trust, compression=rng.choice([None, "deflate"]),
                   max_size=None, open_timeout=30, close_timeout=30, ping_interval=None, **more)


async def receive(socket_, budget_s=30):
    return await asyncio.wait_for(socket_.recv(), budget_s)


async def talks(setup, rng, seconds):
    """One connection, one echo after the other for `seconds`."""
    async with client(setup, rng.choice(["/ws", "/echo", "/", "/echo?delay=20ms"]), rng) as peer:
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end and not setup.stop.is_set():
            messages = [message(rng, number + n) for n in range(rng.choice([1, 1, 4]))]
            for text in messages:
                await peer.send(text)
            for text in messages:
                if (got := await receive(peer)) != text:
                    raise Wrong(f"{len(text)} of {type(text)} came back as {len(got)} of {type(got)}")
                setup.count("echoes", bytes_=len(text))
            number += len(messages)
            if rng.random() < 0.2:
                await asyncio.wait_for(await peer.ping(), 30)
            await asyncio.sleep(rng.uniform(0, 0.1))


async def stays(setup, rng):
    await talks(setup, rng, rng.uniform(3, 20))


async def comes_and_goes(setup, rng):
    for _ in range(5):
        await talks(setup, rng, 0.05)


async def is_pushed_to(setup, rng):
    async with client(setup, "/websocket", rng) as peer:
        await peer.send("hello")
        while (got := await receive(peer)) == "randping":
            setup.count("pushes")
        if got != "hello":
            raise Wrong(f"/websocket sent {got[:40]!r}")
    async with client(setup, "/socket", rng) as peer:
        if not (await receive(peer)).startswith("Welcome!"):
            raise Wrong("/socket sent no welcome")
        await peer.send("abc ☃")
        if "☃ cba" not in json.loads(await receive(peer)).values():
            raise Wrong("/socket did not reverse")
    async with client(setup, "/throttled", rng) as peer:
        await peer.send("work")
        if await receive(peer) != "work":
            raise Wrong("/throttled did not echo")


async def views(setup, rng):
    seen = set()
    try:
        async with client(setup, "/api/wds/logs?format=json", rng) as peer:
            async with asyncio.timeout(rng.uniform(1, 6)):
                async for text in peer:
                    seen.add(json.loads(text)["type"])
                    setup.count("Deployment events")
    except TimeoutError:
        pass
    if strange := seen - {"added", "modified", "deleted", "synced", "stale"}:
        raise Wrong(f"events {strange}")


async def asks_the_gateway(setup, rng):
    """Each message gets an answer or an error; a late answer belongs to an earlier message."""
    try:
        async with client(setup, "/gateway/prod", rng) as peer:
            for number in range(10):
                await peer.send(text := f"{number} {TEXT}")
                while (got := await receive(peer, 45)) != "Got message:" + text:
                    if "requestId" in got:
                        setup.count("gateway errors")
                        break
                    if not (got.endswith(TEXT) and int(got.split(":")[1].split(" ")[0]) < number):
                        raise Wrong(f"the gateway sent {got[:80]!r}")
                else:
                    setup.count("gateway answers")
                await asyncio.sleep(rng.uniform(0, 0.3))
                if setup.stop.is_set():
                    return
    except InvalidStatus as refused:
        if refused.response.status_code != 502:
            raise
        setup.count("gateway refusals")


async def loads(setup, rng):
    """`wspulse load --verify` beside the other clients."""
    size, deflate = rng.choice(["20B", "1KiB", "16KiB"]), rng.choice(["on", "off"])
    url = setup.ws("/echo").replace("127.0.0.1", "localhost")
    trusted = ["--ca-file", str(SCRATCH / "ca.pem")] if setup.trust else []
    with open(SCRATCH / f"load-{setup.name}.log", "w+b") as log:
        process = launch([BINARY, "load", url, "--clients", "20", "--duration", "3s", "--rate", "50/s",
                          "--size", size, "--deflate", deflate, "--verify", "--max-errors", "0", *trusted],
                         stdout=log, stderr=log, env=clean_environment())
        code = await asyncio.to_thread(process.wait, 60)
        log.seek(0)
        if code != 0:
            raise Wrong(f"load ended with {code}: {log.read()[-400:]}")
    setup.count("runs of load")


async def floods(setup, rng):
    """Two seconds of `floods.py`, which has no TLS: mostly thousands of short connections."""
    kind = rng.choice(["handshakes"] * 6 + ["gets", "echoes", "pings", "silent", "fragments", "halves",
                                            "large", "unfinished"])
    host, port = setup.server.main
    process = launch([sys.executable, "-B", FLOODS, kind, host, str(port), "2", "8"], stdout=subprocess.PIPE)
    out, _ = await asyncio.to_thread(process.communicate, timeout=60)
    setup.count("WebSockets of floods", json.loads(out)["counts"].get("101", 0))


async def browses(setup, rng):
    """Requests on one connection, then the figures for Prometheus and KEDA on the other listener."""
    async with setup.dial() as (reader, writer):
        for path, status in rng.sample([("/", 200), ("/whoami", 200), ("/version", 200), ("/nowhere", 404),
                                        ("/readyz", 200), ("/api/health", 200)], 5):
            await request(reader, writer, path, status)
        setup.count("requests", 5)
    async with setup.dial("admin") as (reader, writer):
        body = await request(reader, writer, "/metrics", 200)
        if b"\nbuild_info{" not in body:
            raise Wrong(f"/metrics ended after {len(body)} bytes")
        json.loads(await request(reader, writer, "/stats", 200))
        setup.count("scrapes")


async def request(reader, writer, path, status):
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode().lower()
    length = int(head.split("content-length:")[1].split("\r\n")[0])
    body = await asyncio.wait_for(reader.readexactly(length), 30)
    if f" {status} " not in head.split("\r\n")[0]:
        raise Wrong(f"{path} gave {head[:40]!r}")
    return body


# ---- hostile clients --------------------------------------------------------------------------------

GONE = (OSError, EOFError, asyncio.IncompleteReadError)


def reset(writer):
    """Closes with RST."""
    if plain := writer.get_extra_info("socket"):  # None if the server has closed already
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def upgraded(reader, writer, head=None):
    writer.write(head or upgrade())
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    if not answer.startswith(b"HTTP/1.1 101 "):
        raise Wrong(f"no 101: {answer[:40]!r}")


async def vanishes(setup, rng):
    """Disconnects at a random stage, with RST or FIN."""
    async with setup.dial() as (reader, writer):
        stage = rng.randrange(6)
        if stage == 1:
            writer.write(upgrade()[:rng.randrange(1, 100)])
        if stage == 2:
            writer.write(upgrade())
        if stage >= 3:
            await upgraded(reader, writer, upgrade(rng.choice(["/echo", "/websocket", "/throttled", "/api/wds/logs"])))
        if stage == 4:
            writer.write(frame(0x82, bytes(300_000))[:200_000])
        if stage == 5:
            writer.write(frame(0x81, b"echo") * 1000)
        await asyncio.sleep(rng.uniform(0, 0.3))
        (reset if rng.random() < 0.5 else lambda writer: writer.transport.abort())(writer)


async def closes_half(setup, rng):
    """Half-closes: a message sent before the FIN is still echoed."""
    async with setup.dial() as (reader, writer):
        await upgraded(reader, writer)
        writer.write(frame(0x81, b"hello"))
        if not writer.can_write_eof():
            return
        writer.write_eof()
        if b"hello" not in await asyncio.wait_for(reader.read(-1), 30):
            raise Wrong("half-closed, and no echo")


async def babbles(setup, rng):
    """Invalid bytes, for TLS or for HTTP."""
    async with setup.dial("raw") as (reader, writer):
        writer.write(rng.choice([rng.randbytes(2000), b"\x16\x03\x01" + rng.randbytes(600), b"\r\n" * 500,
                                 b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /healthz HTTP/1.1\r\n\r\n"]))
        await asyncio.wait_for(reader.read(-1), 15)


async def never_reads(setup, rng):
    async with setup.dial() as (reader, writer):
        await upgraded(reader, writer)
        writer.transport.pause_reading()
        end = time.monotonic() + rng.uniform(2, 9)
        while time.monotonic() < end:
            writer.write(frame(0x82, bytes(1000)) * 60)
            try:
                await asyncio.wait_for(writer.drain(), 1)
            except TimeoutError:
                pass
            except GONE:
                break
            await asyncio.sleep(0.05)
        reset(writer)


async def drips(setup, rng):
    """A request head that is never finished gets 408 or a close after --head-timeout."""
    async with setup.dial() as (reader, writer):
        for byte in upgrade()[:40]:
            writer.write(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(reader.read(-1), 0.25)
        raise Wrong("an unfinished head was accepted for 10 s")


def compressed(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


BOMB = frame(0xC2, compressed(bytes(8 * LARGEST)))
OFFER = upgrade()[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
BROKEN = [("bad UTF-8", frame(0x81, b"\xc3\x28"), 1007), ("UTF-8 cut off", frame(0x81, b"ok \xe2\x98"), 1007),
          ("no mask", b"\x81\x01x", 1002), ("an unknown opcode", frame(0x83, b"x"), 1002),
          ("a fragmented ping", frame(0x09, b"x"), 1002), ("reserved bits", frame(0xB1, b"x"), 1002),
          ("too large", frame(0x82, bytes(1000), LARGEST + 1), 1009),
          ("too large in fragments", frame(0x02, bytes(LARGEST)) + frame(0x80, b"x"), 1009),
          ("a bomb", BOMB, 1009), ("not deflated", frame(0xC2, b"\xff" * 20), 1007)]


async def breaks_rules(setup, rng):
    """Each protocol error gets its close code, also after a valid message."""
    what, bytes_, code = rng.choice(BROKEN)
    async with setup.dial() as (reader, writer):
        await upgraded(reader, writer, OFFER)
        writer.write(frame(0x81, b"before") + bytes_)
        got = [await received(reader)]
        while got[-1][0] != 8:
            got.append(await received(reader))
        if got[0] != (1, b"before") or int.from_bytes(got[-1][1][:2], "big") != code:
            raise Wrong(f"{what}: {got}")
        setup.count("protocol errors answered")


async def received(reader):
    """One frame of the server's: opcode and payload."""
    first, length = await asyncio.wait_for(reader.readexactly(2), 30)
    if length >= 126:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
    return first & 15, await asyncio.wait_for(reader.readexactly(length), 30)


async def stops_half_way(setup, rng):
    """A part of a ClientHello or all of it, then disconnects."""
    if not setup.trust:
        return await vanishes(setup, rng)
    outgoing = ssl.MemoryBIO()
    try:
        setup.trust.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = outgoing.read()
    async with setup.dial("raw") as (_, writer):
        writer.write(hello[:rng.choice([5, len(hello) // 2, len(hello)])])
        await asyncio.sleep(rng.uniform(0, 5))
        (reset if rng.random() < 0.5 else lambda writer: writer.transport.abort())(writer)


# (kind, weight); HOSTILE: kinds whose connections the server may close.
KINDS = [(stays, 6), (comes_and_goes, 8), (is_pushed_to, 4), (views, 5), (asks_the_gateway, 6), (browses, 4),
         (vanishes, 10), (closes_half, 3), (babbles, 4), (never_reads, 2), (drips, 2), (breaks_rules, 8),
         (stops_half_way, 6)]
HOSTILE = {vanishes, closes_half, babbles, never_reads, drips, stops_half_way}


async def one(setup, rng):
    """The next client of a worker."""
    kind = rng.choices([kind for kind, _ in KINDS], [often for _, often in KINDS])[0]
    await run_client(setup, kind, rng)
    await asyncio.sleep(rng.uniform(0, 0.2))


async def run_client(setup, kind, rng):
    try:
        await asyncio.wait_for(kind(setup, rng), 120)
        setup.count(kind.__name__)
    except ConnectionClosed as end:
        if end.rcvd and (end.rcvd.code, end.rcvd.reason) == (1001, MAX_AGE):
            setup.count("closed for its age")
        else:
            setup.failures.append(f"{kind.__name__}: {end}")
    except GONE as error:
        if kind in HOSTILE and not isinstance(error, TimeoutError):
            setup.count(kind.__name__)
        else:
            setup.failures.append(f"{kind.__name__}: {type(error).__name__} {error}")
    except Exception as error:  # any error: the soak continues and fails at its end
        setup.failures.append(f"{kind.__name__}: {type(error).__name__} {error}"[:300])
