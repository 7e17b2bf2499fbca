"""What `soak.py` lets loose on a server: clients that behave, clients that do not, an API server and
a backend with moods. Each client of `KINDS` is one short life; what it raises is a failed check.
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
    """A server that does not do what it should."""


def trust():
    return ssl.create_default_context(cafile=SCRATCH / "ca.pem")


# ---- around the server ------------------------------------------------------------------------------

class MoodyApi(Api):
    """Changes Deployments all the while, and is `well`, or answers `500`, or `410`, or leaves half a
    line; `calm` says nothing new."""

    mood, calm = "well", False

    def page(self, stream, line):
        if self.mood == "500":
            stream.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\n{}")
        else:
            super().page(stream, line)

    def watch(self, stream):
        stream.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            stream.flush()
            time.sleep(0.1)
            if self.mood == "410":
                gone = {"kind": "Status", "code": 410, "reason": "Expired"}
                self.say(stream, {"type": "ERROR", "object": gone})
            if self.mood in ("410", "500"):
                stream.write(b"0\r\n\r\n")
                return
            if self.mood == "half":
                stream.write(b"80\r\n{\"type\":\"MODIFIED\"")
                stream.flush()
                while self.mood == "half":  # its connection is broken meanwhile
                    time.sleep(0.1)
                raise OSError
            if not self.calm:
                self.change(stream)

    def change(self, stream):
        """One Deployment more, another now, one less."""
        for kind, name in ("ADDED", "new"), ("MODIFIED", f"d{self.version % self.count}"), ("DELETED", "new"):
            self.version += 1
            self.say(stream, {"type": kind, "object": deployment(name, self.version, self.version)})

    @staticmethod
    def say(stream, event):
        line = json.dumps(event).encode() + b"\n"
        stream.write(b"%x\r\n%s\r\n" % (len(line), line))

    async def live(self, rng, stop):
        """Mood after mood; well at the end."""
        while not await asleep(stop, rng.uniform(2, 6)):
            self.mood = rng.choice(["500", "410", "half", "away"])
            if self.mood in ("half", "away"):
                await asyncio.sleep(0.3)
                self.stop()
                await asyncio.sleep(rng.uniform(0, 2) if self.mood == "away" else 0)
                self.start()
            await asyncio.sleep(rng.uniform(0.2, 1))
            self.mood = "well"


class MoodyBackend:
    """`wspulse backend` on one port, killed or stopped now and then; in its stead nobody for a while,
    or somebody who answers 500, soon or late, or hangs up."""

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
            mood = rng.choice(["soon", "late", "cut"])
            time.sleep(rng.uniform(0.5, 2) if mood == "late" else 0)
            if mood == "cut":
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
    """Whether it was told to stop meanwhile."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True


# ---- clients that behave ----------------------------------------------------------------------------

def message(rng, number, largest=LARGEST):
    """Text or bytes of some size, different each time, and not all of it compressible."""
    size = rng.choice([size for size in SIZES if size <= largest])
    if rng.random() < 0.5:
        return rng.randbytes(size)
    return (f"{number} " + TEXT * (size // len(TEXT.encode()) + 1)).encode()[:size].decode(errors="ignore")


def client(world, path, rng, **more):
    return connect(world.ws(path), ssl=world.trust, compression=rng.choice([None, "deflate"]),
                   max_size=None, open_timeout=30, close_timeout=30, ping_interval=None, **more)


async def heard(socket_, budget_s=30):
    return await asyncio.wait_for(socket_.recv(), budget_s)


async def talks(world, rng, seconds):
    """One connection, echo after echo, until its time is over."""
    async with client(world, rng.choice(["/ws", "/echo", "/", "/echo?delay=20ms"]), rng) as peer:
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end and not world.stop.is_set():
            said = [message(rng, number + n) for n in range(rng.choice([1, 1, 4]))]
            for text in said:
                await peer.send(text)
            for text in said:
                if (got := await heard(peer)) != text:
                    raise Wrong(f"{len(text)} of {type(text)} came back as {len(got)} of {type(got)}")
                world.count("echoes", bytes_=len(text))
            number += len(said)
            if rng.random() < 0.2:
                await asyncio.wait_for(await peer.ping(), 30)
            await asyncio.sleep(rng.uniform(0, 0.1))


async def stays(world, rng):
    await talks(world, rng, rng.uniform(3, 20))


async def comes_and_goes(world, rng):
    for _ in range(5):
        await talks(world, rng, 0.05)


async def is_pushed_to(world, rng):
    async with client(world, "/websocket", rng) as peer:
        await peer.send("hello")
        while (got := await heard(peer)) == "randping":
            world.count("pushes")
        if got != "hello":
            raise Wrong(f"/websocket said {got[:40]!r}")
    async with client(world, "/socket", rng) as peer:
        if not (await heard(peer)).startswith("Welcome!"):
            raise Wrong("/socket did not welcome")
        await peer.send("abc ☃")
        if "☃ cba" not in json.loads(await heard(peer)).values():
            raise Wrong("/socket did not reverse")
    async with client(world, "/throttled", rng) as peer:
        await peer.send("work")
        if await heard(peer) != "work":
            raise Wrong("/throttled did not echo")


async def views(world, rng):
    seen = set()
    try:
        async with client(world, "/api/wds/logs?format=json", rng) as peer:
            async with asyncio.timeout(rng.uniform(1, 6)):
                async for text in peer:
                    seen.add(json.loads(text)["type"])
                    world.count("Deployment events")
    except TimeoutError:
        pass
    if strange := seen - {"added", "modified", "deleted", "synced", "stale"}:
        raise Wrong(f"events {strange}")


async def asks_the_gateway(world, rng):
    """Each message is answered, or its error told; what comes late was asked for earlier."""
    try:
        async with client(world, "/gateway/prod", rng) as peer:
            for number in range(10):
                await peer.send(text := f"{number} {TEXT}")
                while (got := await heard(peer, 45)) != "Got message:" + text:
                    if "requestId" in got:
                        world.count("gateway errors told")
                        break
                    if not (got.endswith(TEXT) and int(got.split(":")[1].split(" ")[0]) < number):
                        raise Wrong(f"the gateway said {got[:80]!r}")
                else:
                    world.count("gateway answers")
                await asyncio.sleep(rng.uniform(0, 0.3))
                if world.stop.is_set():
                    return
    except InvalidStatus as refused:
        if refused.response.status_code != 502:
            raise
        world.count("gateway refusals")


async def loads(world, rng):
    """`wspulse load --verify` beside the others."""
    size, deflate = rng.choice(["20B", "1KiB", "16KiB"]), rng.choice(["on", "off"])
    url = world.ws("/echo").replace("127.0.0.1", "localhost")
    trusted = ["--ca-file", str(SCRATCH / "ca.pem")] if world.trust else []
    with open(SCRATCH / f"load-{world.name}.log", "w+b") as log:
        process = launch([BINARY, "load", url, "--clients", "20", "--duration", "3s", "--rate", "50/s",
                          "--size", size, "--deflate", deflate, "--verify", "--max-errors", "0", *trusted],
                         stdout=log, stderr=log, env=clean_environment())
        code = await asyncio.to_thread(process.wait, 60)
        log.seek(0)
        if code != 0:
            raise Wrong(f"load ended with {code}: {log.read()[-400:]}")
    world.count("runs of load")


async def floods(world, rng):
    """Two seconds of `floods.py`, which knows no TLS: mostly thousands that come and go."""
    kind = rng.choice(["handshakes"] * 6 + ["gets", "echoes", "pings", "silent", "fragments", "halves",
                                            "large", "unfinished"])
    host, port = world.server.main
    process = launch([sys.executable, "-B", FLOODS, kind, host, str(port), "2", "8"], stdout=subprocess.PIPE)
    out, _ = await asyncio.to_thread(process.communicate, timeout=60)
    world.count("WebSockets of floods", json.loads(out)["counts"].get("101", 0))


async def browses(world, rng):
    """Requests on one connection, then the figures for Prometheus and KEDA on the other listener."""
    async with world.dial() as (reader, writer):
        for path, status in rng.sample([("/", 200), ("/whoami", 200), ("/version", 200), ("/nowhere", 404),
                                        ("/readyz", 200), ("/api/health", 200)], 5):
            await asked(reader, writer, path, status)
        world.count("requests", 5)
    async with world.dial("admin") as (reader, writer):
        body = await asked(reader, writer, "/metrics", 200)
        if b"\nbuild_info{" not in body:
            raise Wrong(f"/metrics ended after {len(body)} bytes")
        json.loads(await asked(reader, writer, "/stats", 200))
        world.count("scrapes")


async def asked(reader, writer, path, status):
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode().lower()
    length = int(head.split("content-length:")[1].split("\r\n")[0])
    body = await asyncio.wait_for(reader.readexactly(length), 30)
    if f" {status} " not in head.split("\r\n")[0]:
        raise Wrong(f"{path} gave {head[:40]!r}")
    return body


# ---- clients that do not ----------------------------------------------------------------------------

GONE = (OSError, EOFError, asyncio.IncompleteReadError)


def reset(writer):
    """The next thing that the server hears is RST."""
    if plain := writer.get_extra_info("socket"):  # the server may have been quicker
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def upgraded(reader, writer, head=None):
    writer.write(head or upgrade())
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    if not answer.startswith(b"HTTP/1.1 101 "):
        raise Wrong(f"no 101: {answer[:40]!r}")


async def vanishes(world, rng):
    """At every stage of its life, with or without a last word."""
    async with world.dial() as (reader, writer):
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


async def closes_half(world, rng):
    """FIN from one side: what was said before is answered still."""
    async with world.dial() as (reader, writer):
        await upgraded(reader, writer)
        writer.write(frame(0x81, b"hello"))
        if not writer.can_write_eof():
            return
        writer.write_eof()
        if b"hello" not in await asyncio.wait_for(reader.read(-1), 30):
            raise Wrong("half closed, and no echo")


async def babbles(world, rng):
    """Bytes that mean nothing, on either layer."""
    async with world.dial("raw") as (reader, writer):
        writer.write(rng.choice([rng.randbytes(2000), b"\x16\x03\x01" + rng.randbytes(600), b"\r\n" * 500,
                                 b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /healthz HTTP/1.1\r\n\r\n"]))
        await asyncio.wait_for(reader.read(-1), 15)


async def never_reads(world, rng):
    async with world.dial() as (reader, writer):
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


async def drips(world, rng):
    """A head that never ends is 408, or nothing, after --head-timeout."""
    async with world.dial() as (reader, writer):
        for byte in upgrade()[:40]:
            writer.write(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(reader.read(-1), 0.25)
        raise Wrong("a head could drip for 10 s")


def compressed(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


BOMB = frame(0xC2, compressed(bytes(8 * LARGEST)))
OFFER = upgrade()[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
BROKEN = [("bad UTF-8", frame(0x81, b"\xc3\x28"), 1007), ("UTF-8 cut off", frame(0x81, b"ok \xe2\x98"), 1007),
          ("no mask", b"\x81\x01x", 1002), ("an opcode of nobody", frame(0x83, b"x"), 1002),
          ("a fragmented ping", frame(0x09, b"x"), 1002), ("bits of nobody", frame(0xB1, b"x"), 1002),
          ("too large", frame(0x82, bytes(1000), LARGEST + 1), 1009),
          ("too large in fragments", frame(0x02, bytes(LARGEST)) + frame(0x80, b"x"), 1009),
          ("a bomb", BOMB, 1009), ("not deflated", frame(0xC2, b"\xff" * 20), 1007)]


async def breaks_rules(world, rng):
    """Each breach has its close code, whatever came before."""
    what, bytes_, code = rng.choice(BROKEN)
    async with world.dial() as (reader, writer):
        await upgraded(reader, writer, OFFER)
        writer.write(frame(0x81, b"before") + bytes_)
        got = [await received(reader)]
        while got[-1][0] != 8:
            got.append(await received(reader))
        if got[0] != (1, b"before") or int.from_bytes(got[-1][1][:2], "big") != code:
            raise Wrong(f"{what}: {got}")
        world.count("breaches answered")


async def received(reader):
    """One frame of the server's: opcode and payload."""
    first, length = await asyncio.wait_for(reader.readexactly(2), 30)
    if length >= 126:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
    return first & 15, await asyncio.wait_for(reader.readexactly(length), 30)


async def stops_half_way(world, rng):
    """A part of a ClientHello, all of it, or a handshake and no goodbye."""
    if not world.trust:
        return await vanishes(world, rng)
    outgoing = ssl.MemoryBIO()
    try:
        world.trust.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = outgoing.read()
    async with world.dial("raw") as (_, writer):
        writer.write(hello[:rng.choice([5, len(hello) // 2, len(hello)])])
        await asyncio.sleep(rng.uniform(0, 5))
        (reset if rng.random() < 0.5 else lambda writer: writer.transport.abort())(writer)


# How often, and whether a connection may end under it.
KINDS = [(stays, 6), (comes_and_goes, 8), (is_pushed_to, 4), (views, 5), (asks_the_gateway, 6), (browses, 4),
         (vanishes, 10), (closes_half, 3), (babbles, 4), (never_reads, 2), (drips, 2), (breaks_rules, 8),
         (stops_half_way, 6)]
HOSTILE = {vanishes, closes_half, babbles, never_reads, drips, stops_half_way}


async def one(world, rng):
    """The next client of a worker."""
    kind = rng.choices([kind for kind, _ in KINDS], [often for _, often in KINDS])[0]
    await judged(world, kind, rng)
    await asyncio.sleep(rng.uniform(0, 0.2))


async def judged(world, kind, rng):
    try:
        await asyncio.wait_for(kind(world, rng), 120)
        world.count(kind.__name__)
    except ConnectionClosed as end:
        if end.rcvd and (end.rcvd.code, end.rcvd.reason) == (1001, MAX_AGE):
            world.count("closed for its age")
        else:
            world.failures.append(f"{kind.__name__}: {end}")
    except GONE as error:
        if kind in HOSTILE and not isinstance(error, TimeoutError):
            world.count(kind.__name__)
        else:
            world.failures.append(f"{kind.__name__}: {type(error).__name__} {error}")
    except Exception as error:  # whatever it is, the soak goes on, and fails at its end
        world.failures.append(f"{kind.__name__}: {type(error).__name__} {error}"[:300])
