"""Hops with one fault each, for `probe.py`: in front of a server, on a port of 127.0.0.1.

    probe_hops.py PORT 'Hop(port, idle("fin"))'

A hop reads the request head, passes it on, and then copies bytes, or frames if its fault needs them.
Each has a process of its own: whatever else delays it would look like a fault. It prints its port and
ends with its standard input. `probe_h2.py` has the hop that speaks HTTP/2.
"""

import asyncio
import re
import socket
import struct
import sys
import time
from dataclasses import dataclass, field

UP, DOWN = "up", "down"  # from the client to the server, and back
SOURCE = "127.0.0.3"  # hops connect from here: the server sees a peer that is not the client
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
HOWS = ("fin", "rst", "hole", "close")  # how a connection can end without its own Close


@dataclass
class Frame:
    bits: int  # FIN and RSV1 to RSV3, as in the first byte
    opcode: int
    payload: bytes

    @property
    def fin(self):
        return bool(self.bits & 0x80)

    def encoded(self, masked):
        size, mask = len(self.payload), 0x80 if masked else 0
        if size < 126:
            length = bytes([mask | size])
        elif size < 65536:
            length = bytes([mask | 126]) + struct.pack(">H", size)
        else:
            length = bytes([mask | 127]) + struct.pack(">Q", size)
        # A mask of zeros is valid and leaves the payload as it is.
        return bytes([self.bits | self.opcode]) + length + (b"\0\0\0\0" if masked else b"") + self.payload


async def read_frame(reader):
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        size, = struct.unpack(">H", await reader.readexactly(2))
    elif size == 127:
        size, = struct.unpack(">Q", await reader.readexactly(8))
    mask = await reader.readexactly(4) if second & 0x80 else None
    payload = await reader.readexactly(size)
    if mask and size:
        key = (mask * (size // 4 + 1))[:size]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
    return Frame(first & 0xF0, first & 0x0F, payload)


def close_frame(code, reason=b""):
    return Frame(0x80, CLOSE, struct.pack(">H", code) + reason)


class Link:
    """One upgraded connection through a hop. `seen` has the time of the last traffic that counts."""

    def __init__(self, client, server):
        self.writers = {UP: server, DOWN: client}
        self.seen = dict.fromkeys((UP, DOWN), time.monotonic())
        self.swallows = False
        self.joined = {}

    def cut(self, how):
        if how == "hole":
            self.swallows = True  # both sockets stay open, and nothing arrives any more
            return
        if how == "close":
            self.writers[DOWN].write(close_frame(1001, b"idle").encoded(False))
        if how == "rst":
            # A close with a linger time of 0 sends RST instead of FIN.
            self.writers[DOWN].get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writers[DOWN].transport.abort()
        self.writers[UP].close()
        if how == "rst":
            return
        # FIN; closing would send RST if bytes of the client were still on their way. They are read and
        # dropped until the client closes as well.
        self.swallows = True
        if self.writers[DOWN].can_write_eof():
            self.writers[DOWN].write_eof()
        else:
            self.writers[DOWN].close()

    def write(self, way, data):
        if not self.swallows and not self.writers[way].is_closing():
            self.writers[way].write(data)

    def send(self, way, frame):
        self.write(way, frame.encoded(masked=way == UP))


@dataclass
class Fault:
    """What a hop does wrong; a field that is None does nothing."""
    head: object = None  # head -> head: edits the request head of an upgrade
    answer: object = None  # head -> head: edits the answer to an upgrade
    frame: object = None  # (link, way, frame) -> frames to pass on, or None if it did that itself
    watch: object = None  # coroutine function of a link, beside the copying
    collect_s: float = 0  # bytes from the server are passed on this often
    pings_count: bool = True  # as traffic, for an idle timeout
    never_answers: bool = False
    tls: object = None
    links: set = field(default_factory=set)


class Hop:
    def __init__(self, upstream, fault):
        self.upstream, self.fault, self.tasks = upstream, fault, set()

    async def __aenter__(self):
        self.listener = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.fault.tls,
                                                   limit=1 << 21)
        self.port = self.listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.listener.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self.tasks.add(task)
        opened = [writer]
        try:
            await self._serve(reader, writer, opened)
        except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # either side may close at any time; `__aexit__` cancels
        finally:
            self.tasks.discard(task)
            for each in opened:
                each.close()

    async def _serve(self, reader, writer, opened):
        head = await reader.readuntil(b"\r\n\r\n")
        upgrade = re.search(rb"(?i)\r\nupgrade:", head)
        if upgrade and self.fault.never_answers:
            await reader.read()
            return
        server = await asyncio.open_connection("127.0.0.1", self.upstream, local_addr=(SOURCE, 0),
                                               limit=1 << 21)
        opened.append(server[1])
        server[1].write(self.fault.head(head) if upgrade and self.fault.head else head)
        link = Link(writer, server[1])
        if not upgrade:
            await asyncio.gather(copy(reader, link, UP), copy(server[0], link, DOWN))
            return
        answer = await server[0].readuntil(b"\r\n\r\n")
        writer.write(self.fault.answer(answer) if self.fault.answer else answer)
        if b" 101 " not in answer.split(b"\r\n")[0]:
            await copy(server[0], link, DOWN)
            return
        await self._carry(link, reader, server[0])

    async def _carry(self, link, reader, server_reader):
        ways = ((reader, UP), (server_reader, DOWN))
        if self.fault.frame or not self.fault.pings_count:
            work = [self._copy_frames(source, link, way) for source, way in ways]
        else:
            work = [copy(reader, link, UP), copy(server_reader, link, DOWN, self.fault.collect_s)]
        watching = asyncio.ensure_future(self.fault.watch(link)) if self.fault.watch else None
        try:
            await asyncio.gather(*work)
        finally:
            if watching:
                watching.cancel()

    async def _copy_frames(self, reader, link, way):
        try:
            while True:
                frame = await read_frame(reader)
                if self.fault.pings_count or frame.opcode < CLOSE:
                    link.seen[way] = time.monotonic()
                passed = self.fault.frame(link, way, frame) if self.fault.frame else [frame]
                if asyncio.iscoroutine(passed):
                    passed = await passed
                for each in passed or ():
                    link.send(way, each)
        except (OSError, EOFError):
            pass
        finally:
            finish(link, way)


async def copy(reader, link, way, collect_s=0):
    """Copies bytes; with `collect_s` what arrived meanwhile is passed on together."""
    try:
        while data := await reader.read(65536):
            link.seen[way] = time.monotonic()
            if collect_s:
                data += await collected(reader, collect_s)
            link.write(way, data)
            if not link.swallows:
                await link.writers[way].drain()
    except OSError:
        pass
    finally:
        finish(link, way)


async def collected(reader, collect_s):
    data, end = b"", time.monotonic() + collect_s
    while (left_s := end - time.monotonic()) > 0:
        try:
            more = await asyncio.wait_for(reader.read(65536), left_s)
        except TimeoutError:
            break
        if not more:
            break
        data += more
    return data


def finish(link, way):
    """One side has ended: so does the other, unless the hop swallows everything."""
    if not link.swallows and not link.writers[way].is_closing():
        try:
            link.writers[way].write_eof()
        except (OSError, NotImplementedError):  # TLS cannot end one direction
            link.writers[way].close()


# ---- timeouts -----------------------------------------------------------------------------------

def idle(how, seconds=5, counts=(UP, DOWN), pings_count=True):
    """Cuts a connection that had no traffic in these directions."""
    async def watch(link):
        while (left_s := max(link.seen[way] for way in counts) + seconds - time.monotonic()) > 0:
            await asyncio.sleep(left_s)
        link.cut(how)
    return Fault(watch=watch, pings_count=pings_count)


def age(how, seconds=5.3):
    """Cuts each connection after this time, whatever it carries. The probe speaks once a second, so after
    5 s exactly a hole might seem to begin at 4 s."""
    async def watch(link):
        await asyncio.sleep(seconds)
        link.cut(how)
    return Fault(watch=watch)


def hole_then_reset(seconds=5):
    """As a load balancer that forgets a flow: nothing, and RST to the first bytes afterwards."""
    async def watch(link):
        while (left_s := max(link.seen.values()) + seconds - time.monotonic()) > 0:
            await asyncio.sleep(left_s)
        link.swallows, before = True, dict(link.seen)
        while link.seen[UP] == before[UP]:
            await asyncio.sleep(0.02)
        link.cut("rst")
    return Fault(watch=watch)


# ---- frames -------------------------------------------------------------------------------------

def on_frames(change, *opcodes, ways=(UP, DOWN)):
    """A fault that concerns frames of these opcodes in these directions; others are passed on."""
    def frame(link, way, found):
        return change(link, way, found) if found.opcode in opcodes and way in ways else [found]
    return Fault(frame=frame)


def passes_frames():
    return on_frames(lambda _link, _way, frame: [frame], TEXT)


def joins_fragments(*ways):
    def change(link, way, frame):
        if frame.opcode:
            link.joined[way] = [frame]
        else:
            link.joined[way].append(frame)
        if not frame.fin:
            return []
        parts = link.joined.pop(way)
        return [Frame(0x80 | parts[0].bits, parts[0].opcode, b"".join(part.payload for part in parts))]
    return on_frames(change, 0, TEXT, BINARY, ways=ways)


def answers_pings():
    def change(link, way, frame):
        link.send(DOWN, Frame(0x80, PONG, frame.payload))
        return []
    return on_frames(change, PING, ways=(UP,))


def drops_pings():
    return on_frames(lambda *_: [], PING, ways=(UP,))


def changes_bytes(way):
    def change(_link, _way, frame):
        payload = frame.payload
        if len(payload) > 100:
            payload = payload[:50] + bytes([payload[50] ^ 1]) + payload[51:]
        return [Frame(frame.bits, frame.opcode, payload)]
    # Changed both ways, an echo would be intact.
    return on_frames(change, TEXT, BINARY, ways=(way,))


def limits_size(most):
    def change(link, way, frame):
        if len(frame.payload) <= most:
            return [frame]
        for each in (UP, DOWN):
            link.send(each, close_frame(1009, b"too big"))
        link.cut("fin")
        return []
    return on_frames(change, 0, TEXT, BINARY, ways=(UP,))


def clears_rsv1():
    """Passes the negotiation on, and the compressed messages as if they were none."""
    return on_frames(lambda _link, _way, frame: [Frame(frame.bits & 0x80, frame.opcode, frame.payload)],
                     TEXT, BINARY)


# ---- closing ------------------------------------------------------------------------------------

def truncates_close():
    """Ends both connections within a Close frame."""
    def change(link, way, frame):
        link.write(way, frame.encoded(masked=way == UP)[:1])
        link.cut("fin")
        return []
    return on_frames(change, CLOSE)


def changes_close_code(code):
    def change(_link, _way, frame):
        return [Frame(0x80, CLOSE, struct.pack(">H", code) + frame.payload[2:])]
    return on_frames(change, CLOSE)


def drops_close_reason():
    return on_frames(lambda _link, _way, frame: [Frame(0x80, CLOSE, frame.payload[:2])], CLOSE)


def delays_close(seconds):
    async def later(frame):
        await asyncio.sleep(seconds)
        return [frame]
    return on_frames(lambda _link, _way, frame: later(frame), CLOSE)


# ---- heads --------------------------------------------------------------------------------------

def without(name):
    return lambda head: re.sub(rb"(?i)\r\n%b:[^\r]*" % name, b"", head)


def wrong_accept():
    return Fault(answer=lambda head: re.sub(rb"(?i)(\r\nsec-websocket-accept: )[^\r]*",
                                            rb"\1AAAAAAAAAAAAAAAAAAAAAAAAAAA=", head))


# ---- a process of its own -----------------------------------------------------------------------

async def main(port, expression):
    from probe_h2 import H2Hop  # not before this module is complete: that one imports it
    async with eval(expression, globals() | {"H2Hop": H2Hop, "port": int(port)}) as hop:
        print(hop.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
