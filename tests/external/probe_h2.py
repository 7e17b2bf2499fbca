"""A TLS server that announces WebSockets over HTTP/2 (RFC 8441) and refuses them, for `probe.py`.

Clients that choose HTTP/1.1 are passed on to a server, as some CDNs do it.
"""

import asyncio
import ssl

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from probe_hops import SOURCE, Link, UP, DOWN, copy

CONNECT_PROTOCOL = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL


class H2Hop:
    """`announces`: extended CONNECT. `refuses`: with a "reset" of the stream, or with a status."""

    def __init__(self, upstream, certificate, announces=True, refuses="reset"):
        self.upstream, self.announces, self.refuses = upstream, announces, refuses
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*certificate)
        self.context.set_alpn_protocols(["h2", "http/1.1"])
        self.tasks, self.refused = set(), 0

    async def __aenter__(self):
        self.listener = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.context)
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
        try:
            chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
            await (self._serve_h2 if chosen == "h2" else self._pass_on)(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError, h2.exceptions.ProtocolError):
            pass  # the client may end it at any time; `__aexit__` cancels
        finally:
            self.tasks.discard(task)
            writer.close()

    async def _pass_on(self, reader, writer):
        server = await asyncio.open_connection("127.0.0.1", self.upstream, local_addr=(SOURCE, 0))
        link = Link(writer, server[1])
        try:
            await asyncio.gather(copy(reader, link, UP), copy(server[0], link, DOWN))
        finally:
            server[1].close()

    async def _serve_h2(self, reader, writer):
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        # What is set later counts only when the client has acknowledged it.
        connection.local_settings = h2.settings.Settings(
            client=False, initial_values={CONNECT_PROTOCOL: int(self.announces)})
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    self._answer(connection, event)
            writer.write(connection.data_to_send())
            await writer.drain()

    def _answer(self, connection, event):
        headers = dict(event.headers)
        asked = headers.get(b":method", headers.get(":method"))
        if asked not in (b"CONNECT", "CONNECT"):
            connection.send_headers(event.stream_id, [(":status", "404")], end_stream=True)
            return
        self.refused += 1
        if self.refuses == "reset":
            connection.reset_stream(event.stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
        else:
            connection.send_headers(event.stream_id, [(":status", str(self.refuses))], end_stream=True)
