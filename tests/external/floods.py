#!/usr/bin/env -S python3 -B
"""Load for `pressure.py` and `memory.py`: hostile clients in one epoll loop, in their own process.

    floods.py KIND HOST PORT SECONDS CONNECTIONS [once] [PATH]

`once`: a client that ended does not reconnect. PATH: the mount, for kinds that work on any. At the end it
prints one line of JSON with its counts. Payloads are built in advance in large pieces, so that Python is
not the bottleneck.
"""

import collections
import errno
import heapq
import json
import select
import socket
import struct
import sys
import time
import zlib

SOURCES = [f"127.0.0.{n}" for n in range(1, 9)]  # 28 000 ports each
IP_BIND_ADDRESS_NO_PORT = 24
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
MASK = bytes(4)


def upgrade(path="/echo", fields=""):
    return (f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{fields}"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode()


def frame(first, payload, length=None):
    """A masked frame; a key of zeros is allowed. `length` may be more than the payload has."""
    length = len(payload) if length is None else length
    if length < 126:
        size = bytes([0x80 | length])
    elif length < 65536:
        size = bytes([0xFE]) + length.to_bytes(2, "big")
    else:
        size = bytes([0xFF]) + length.to_bytes(8, "big")
    return bytes([first]) + size + MASK + payload


class Client:
    """One connection; the kinds below define what it sends and how it handles answers."""

    reads = True
    path, query, fields = "/echo", "", ""
    pause_s = 0.5  # before it reconnects

    def __init__(self, flood, number):
        self.flood, self.number, self.opened, self.out = flood, number, time.monotonic(), b""
        self.head, self.up = b"", False
        self.socket = socket.socket()
        self.socket.setblocking(False)
        if not self.reads:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        self.socket.bind((SOURCES[number % len(SOURCES)], 0))
        code = self.socket.connect_ex(flood.address)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, "connect")
        self.out = self.opening()
        flood.poll.register(self.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        flood.clients[self.socket.fileno()] = self

    def opening(self):
        return upgrade((self.flood.path or self.path) + self.query, self.fields)

    def ready(self, events):
        try:
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                data = self.socket.recv(262144)
                if not data:
                    return self.over("eof")
                self.take(data)
            if self.socket.fileno() >= 0 and events & select.EPOLLOUT:
                self.give()
        except BlockingIOError:
            pass
        except OSError as error:
            self.over(errno.errorcode.get(error.errno, str(error)))

    def give(self):
        if not self.out:
            self.out = self.more()
        if not self.out:  # nothing to send until something arrives
            self.flood.poll.modify(self.socket.fileno(), select.EPOLLIN if self.reads or not self.up else 0)
            return
        sent = self.socket.send(self.out)
        self.out = self.out[sent:]
        self.flood.sent += sent

    def take(self, data):
        self.flood.received += len(data)
        if not self.up:
            self.head += data
            if b"\r\n\r\n" in self.head:
                self.flood.count(self.head.split(b" ")[1].decode())
                self.up = True
                self.began()

    def began(self):
        self.wake()

    def wake(self):
        events = select.EPOLLOUT | (select.EPOLLIN if self.reads else 0)
        self.flood.poll.modify(self.socket.fileno(), events)

    def more(self):
        return b""

    def over(self, how):
        self.flood.ended(self, how)


class Gets(Client):
    """Keeps 16 requests in flight."""

    length = 0

    def opening(self):
        return GET * 16

    def take(self, data):
        self.flood.received += len(data)
        self.length += len(data)
        if not self.flood.answer_bytes:
            self.flood.answer_bytes = data.index(b"\r\n\r\n") + 4 + 3
        while self.length >= 16 * self.flood.answer_bytes:
            self.length -= 16 * self.flood.answer_bytes
            self.flood.count("200", 16)
            self.out += GET * 16
            self.wake()


class Stream(Client):
    """Sends without end as fast as the socket accepts it, and reads the answers."""

    piece = b""

    def more(self):
        return self.piece if self.up else b""


class Echoes(Stream):
    piece = frame(0x81, b"echo") * 6000


class Pings(Stream):
    piece = frame(0x89, b"") * 10000


class Handshakes(Client):
    """Connects, waits for its 101, disconnects, reconnects at once."""

    pause_s = 0

    def began(self):
        # Close with RST: 100 000 connections in TIME_WAIT would fill the kernel's tables on this
        # machine, which then drops packets of all connections.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.over("done")


class Silent(Stream):
    """Sends messages and reads none of the echoes."""

    reads = False
    piece = frame(0x82, bytes(1000)) * 60


class Fragments(Stream):
    """A message in 1-byte fragments that is never finished; smaller than the largest message."""

    reads = False
    total = 131_000

    def more(self):
        if not self.up or not self.total:
            return b""
        first, self.total = self.total == type(self).total, self.total - 1000
        return frame(0x01 if first else 0x00, b"x") + frame(0x00, b"x") * 999


class Halves(Client):
    """Half a request head, then nothing."""

    def opening(self):
        return upgrade()[:-40]


class Slowloris(Client):
    """A byte of a request head per second; never reconnects."""

    def opening(self):
        return upgrade()[:20]

    def drip(self):
        try:
            self.socket.send(b"x")
        except OSError as error:
            self.over(errno.errorcode.get(error.errno, str(error)))


class Idle(Client):
    """Connects and sends nothing."""

    def opening(self):
        return b""


class Good(Client):
    """One echo after the other, each timed, with a gap in between."""

    message = frame(0x81, b"hello, are you there")
    gap_s = 0.02
    asked = 0

    def began(self):
        self.flood.later(self.gap_s * (self.number % 50) / 50, self)

    def ask(self):
        self.asked, self.got = time.monotonic(), 0
        self.out += self.message
        self.wake()

    def take(self, data):
        if not self.up:
            return super().take(data)
        self.got += len(data)
        if self.got >= 22:
            self.flood.count("echo")
            self.flood.took_ms.append(1000 * (time.monotonic() - self.asked))
            self.flood.later(self.gap_s, self)


class Large(Stream):
    """Messages of the largest size, one after the other; their echoes are read."""

    piece = frame(0x82, bytes(1 << 20))


class Unfinished(Stream):
    """A message of the largest size without its last byte."""

    def more(self):
        if not self.up or self.flood.done.get(self.number):
            return b""
        self.flood.done[self.number] = True
        return frame(0x82, bytes((1 << 20) - 1), 1 << 20)


class Texts(Unfinished):
    """Unfinished, as a text message."""

    def more(self):
        return super().more().replace(b"\x82", b"\x81", 1)


class Once(Client):
    """Sends one piece, then waits."""

    piece = b""
    sent = False

    def more(self):
        if not self.up or self.sent:
            return b""
        self.sent = True
        return self.piece


class Hellos(Client):
    """The start of a TLS handshake message that is never finished."""

    def opening(self):
        return b"\x16\x03\x01" + (11000).to_bytes(2, "big") + b"\x01\x00\xf0\x00" + bytes(10996)


class Parked(Once):
    """As many 1-byte messages as the server queues for later answers."""

    query = "?delay=10s"
    piece = frame(0x81, b"x") * 9216


class Leavers(Parked):
    """Parked, but disconnects while they wait, and reconnects at once."""

    query = ""
    pause_s = 0
    left_s = 0.01

    def give(self):
        super().give()
        if self.sent and not self.out:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.over("left")


class Controls(Stream):
    """Characters that JSON escapes with six characters each."""

    path = "/socket"
    piece = frame(0x81, b"\x01" * (1 << 20))


class UnreadControls(Controls):
    """Controls, with answers left unread."""

    reads = False


def deflated(payload):
    """A message as permessage-deflate sends it."""
    state = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (state.compress(payload) + state.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Bombs(Stream):
    """Messages of 1 MiB that take 1 KB on the wire, sixteen per read."""

    fields = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
    piece = frame(0xC1, deflated(b"a" * (1 << 20))) * 16


class SlowBombs(Bombs):
    """Bombs at 35 KB/s: not a flood by its rate."""

    piece = frame(0xC1, deflated(b"a" * (1 << 20)))
    gap_s = 0.03

    def began(self):
        self.flood.later(self.gap_s, self)

    def ask(self):
        self.out += self.piece
        self.wake()
        self.flood.later(self.gap_s, self)

    def more(self):
        return b""


class UnreadBombs(Bombs):
    """Bombs, with echoes left unread."""

    reads = False


class Offers(Client):
    """An upgrade that waits for a backend, with 1600 subprotocols."""

    path = "/gateway/prod"
    fields = "Sec-WebSocket-Protocol: " + ",".join(f"{n:x}" for n in range(1600)) + "\r\n"


KINDS = {kind.__name__.lower(): kind for kind in (
    Gets, Echoes, Pings, Handshakes, Silent, Fragments, Halves, Slowloris, Idle, Good, Large,
    Unfinished, Texts, Once, Hellos, Parked, Leavers, Controls, UnreadControls, Bombs, SlowBombs, UnreadBombs, Offers)}


class Flood:
    """The event loop and its counters."""

    def __init__(self, kind, address, seconds, connections, again=True, path=None):
        self.path = path
        self.kind, self.address, self.again = KINDS[kind], address, again
        self.until, self.began = time.monotonic() + seconds, time.monotonic()
        self.poll, self.clients, self.done = select.epoll(), {}, {}
        self.sent = self.received = self.answer_bytes = self.number = 0
        self.counts, self.lives, self.took_ms, self.due = {}, [], [], []
        self.waiting, self.back = connections, collections.deque()

    def count(self, what, n=1):
        self.counts[what] = self.counts.get(what, 0) + n

    def later(self, in_s, client):
        heapq.heappush(self.due, (time.monotonic() + in_s, client.number, client))

    def ask_due(self):
        while self.due and self.due[0][0] <= time.monotonic():
            _, _, client = heapq.heappop(self.due)
            if client.socket.fileno() in self.clients:
                client.ask()

    def ended(self, client, how):
        self.count(how)
        self.lives.append(time.monotonic() - client.opened)
        self.clients.pop(client.socket.fileno(), None)
        client.socket.close()
        self.reconnect_later()

    def reconnect_later(self):
        if self.again:
            self.back.append(time.monotonic() + self.kind.pause_s)

    def open(self):
        while self.back and self.back[0] <= time.monotonic():
            self.back.popleft()
            self.waiting += 1
        for _ in range(min(self.waiting, 64)):
            self.waiting -= 1
            self.number += 1
            try:
                self.kind(self, self.number)
            except OSError as error:
                self.count(errno.errorcode.get(error.errno, str(error)))
                return self.reconnect_later()

    def run(self):
        dripped = time.monotonic()
        while time.monotonic() < self.until and (self.clients or self.waiting or self.back):
            self.open()
            self.ask_due()
            wait_s = min(0.05, max(0, self.due[0][0] - time.monotonic())) if self.due else 0.05
            for fd, events in self.poll.poll(wait_s, 256):
                if fd in self.clients:
                    self.clients[fd].ready(events)
            if self.kind is Slowloris and time.monotonic() - dripped > 1:
                dripped = time.monotonic()
                for client in list(self.clients.values()):
                    client.drip()
        times = sorted(self.took_ms) or [0]
        return {"p99_ms": round(times[int(0.99 * len(times))], 2),
                "kind": self.kind.__name__.lower(), "counts": self.counts, "open": len(self.clients),
                "sent": self.sent, "received": self.received,
                "seconds": round(time.monotonic() - self.began, 2),
                "longest_s": round(max(self.lives, default=0), 2)}


if __name__ == "__main__":
    name, host, port, seconds, connections, *options = sys.argv[1:]
    flood = Flood(name, (host, int(port)), float(seconds), int(connections), again="once" not in options,
                  path=next((option for option in options if option.startswith("/")), None))
    print(json.dumps(flood.run()), flush=True)
