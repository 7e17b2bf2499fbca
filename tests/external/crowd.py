"""Thousands of WebSocket clients in one epoll loop of plain sockets.

A WebSocket library would be the bottleneck, and would hide how a connection ended. This implements
only one upgrade, one echo and the Close handshake.
"""

import errno
import select
import socket
import time
from collections import Counter

SOURCES = [f"127.0.0.{n}" for n in range(1, 5)]  # 28 000 ports each
UPGRADE = (b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
MASK = bytes(4)  # a key of zeros is allowed, and leaves the payload readable
ECHO = b"\x81\x85" + MASK + b"hello"
ECHOED = b"\x81\x05hello"
IP_BIND_ADDRESS_NO_PORT = 24


class Peer:
    """One client connection: what it has read, and how it ended."""

    def __init__(self, number, address, first=UPGRADE, answers_close=True, sources=SOURCES):
        self.first, self.answers_close = first, answers_close
        self.stage, self.end, self.read = "connecting", None, b""
        self.echoes, self.close_code, self.closed_at = 0, None, None
        self.socket = socket.socket()
        self.socket.setblocking(False)
        # The kernel chooses the port at connect, per destination: at bind it would run out early.
        self.socket.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        self.socket.bind((sources[number % len(sources)], 0))
        code = self.socket.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            self.finish(errno.errorcode[code])

    def ready(self):
        try:
            if self.stage == "connecting":
                self.socket.send(self.first)  # raises the error of connect
                self.stage = "asked"
            while self.end is None:  # edge-triggered: unread bytes cause no second event
                self.take(self.socket.recv(65536))
        except BlockingIOError:
            pass
        except OSError as error:
            self.finish(errno.errorcode.get(error.errno, str(error)))

    def take(self, data):
        self.read += data
        if not data:
            self.finish("eof")
        elif self.stage == "asked" and b"\r\n\r\n" in self.read:
            head, _, self.read = self.read.partition(b"\r\n\r\n")
            self.stage = head.split(b" ")[1].decode()
            if self.stage == "101":
                self.socket.send(ECHO)
        if self.stage == "101" and self.read.startswith(ECHOED):
            self.stage, self.read, self.echoes = "echoed", self.read[len(ECHOED):], self.echoes + 1
        if self.stage in ("101", "echoed") and self.read[:1] == b"\x88" and len(self.read) >= 4:
            self.close_code, self.closed_at = int.from_bytes(self.read[2:4], "big"), time.monotonic()
            self.stage = "closing"
            if self.answers_close:
                self.socket.send(b"\x88\x82" + MASK + self.read[2:4])

    def ask(self):
        """Sends one more message, or the same request again."""
        self.stage, question = ("101", ECHO) if self.first is UPGRADE else ("asked", self.first)
        self.read = b""
        self.socket.send(question)

    def finish(self, how):
        self.end = how
        self.socket.close()


class Crowd:
    """Many peers in one epoll; edge-triggered, so an idle one costs nothing."""

    def __init__(self, count, address, **peer):
        self.poll = select.epoll()
        self.peers = {}
        for number in range(count):
            self.add(Peer(number, address, **peer))

    def add(self, peer):
        if peer.end is None:
            self.poll.register(peer.socket.fileno(),
                               select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
            self.peers[peer.socket.fileno()] = peer
        else:
            self.peers[-len(self.peers) - 1] = peer

    def run_until(self, done, budget_s):
        """Runs until `done(peer)` holds for all; returns the seconds it took, or None."""
        since = time.monotonic()
        waiting = {fd for fd, peer in self.peers.items() if not done(peer)}
        while waiting and time.monotonic() - since < budget_s:
            for fd, _ in self.poll.poll(0.1, 4096):
                self.peers[fd].ready()
                if done(self.peers[fd]):
                    waiting.discard(fd)
        return None if waiting else time.monotonic() - since

    def count(self, *fields):
        """Counts the peers by the values of these fields: {("closing", "eof"): 10000}."""
        rows = ([getattr(peer, field) for field in fields] for peer in self.peers.values())
        return dict(Counter(row[0] if len(row) == 1 else tuple(row) for row in rows))

    def leave(self):
        for peer in self.peers.values():
            peer.socket.close()
        self.poll.close()
