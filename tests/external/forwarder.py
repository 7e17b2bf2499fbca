"""A small proxy: one port in front of several servers, optionally with TLS or a path prefix.

It reads one request head per connection and then copies bytes; it knows nothing of WebSocket.
"""

import asyncio
import itertools
import re
import ssl
import time

import harness


class Forwarder:
    """`order` chooses the server of a connection: the "first" that accepts, or each in "turn". A
    connection that carries nothing for `idle_s` is aborted, or with `hole` no longer forwarded."""

    def __init__(self, *servers, order="first", prefix="", certificate=None, idle_s=None, hole=False):
        self.servers, self.order, self.prefix = list(servers), order, prefix
        self.certificate, self.spare = certificate, []
        self.turns, self.links = itertools.count(), set()
        self.idle_s, self.hole = idle_s, hole

    async def __aenter__(self):
        context = None
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
        self.port = harness.free_port()
        self.listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        return self

    async def __aexit__(self, *_):
        self.listener.close()
        self.cut()

    def url(self, path="/"):
        return f"http{'s' if self.certificate else ''}://127.0.0.1:{self.port}{self.prefix}{path}"

    def cut(self):
        """Aborts all connections at once, as a proxy with a timeout does."""
        for link in list(self.links):
            link.transport.abort()

    async def _serve(self, reader, writer):
        self.links.add(writer)
        try:
            await self._pass_on(self._edited(await reader.readuntil(b"\r\n\r\n")), reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the browser closed the connection
        finally:
            self.links.discard(writer)
            writer.close()

    def _edited(self, head):
        """Strips the prefix; closes after one request, since only the first head is read."""
        method, target, rest = head.split(b" ", 2)
        head = b" ".join([method, target.removeprefix(self.prefix.encode()) or b"/", rest])
        if b"\r\nupgrade:" in head.lower():
            return head
        return re.sub(rb"(?i)\r\nconnection:[^\r]*", b"\r\nConnection: close", head)

    async def _pass_on(self, head, reader, writer):
        inner_reader, inner_writer = await self._connect()
        inner_writer.write(head)
        use = Use()
        copies = [copy(reader, inner_writer, use), copy(inner_reader, writer, use)]
        await asyncio.gather(*copies, *([self._expire(writer, use)] if self.idle_s else []))

    async def _expire(self, writer, use):
        while time.monotonic() < use.last + self.idle_s:
            if writer.is_closing():
                return
            await asyncio.sleep(0.05)
        if self.hole:
            use.is_lost = True
        else:
            writer.transport.abort()

    async def save(self, count):
        """Connects in advance, as proxies do, to reach a server that no longer accepts."""
        self.spare = [await self._connect() for _ in range(count)]

    async def _connect(self):
        if self.spare:
            return self.spare.pop()
        count = len(self.servers)
        first = next(self.turns) % count if self.order == "turn" else 0
        for step in range(count):
            try:
                return await asyncio.open_connection(*self.servers[(first + step) % count].main)
            except OSError:
                continue
        raise ConnectionRefusedError("no server accepts")


class Use:
    """When a connection last carried bytes, in either direction, and whether it still does."""

    def __init__(self):
        self.last, self.is_lost = time.monotonic(), False


async def copy(reader, writer, use):
    try:
        while data := await reader.read(65536):
            use.last = time.monotonic()
            if use.is_lost:
                continue
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # either side may close at any time
    finally:
        writer.close()
