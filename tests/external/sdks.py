#!/usr/bin/env -S python3 -B
"""Callbacks as AWS' own SDKs send them: boto3, the `aws` command, JavaScript v3, Go v2.

Each signs with the gateway's credentials file; what the WebSocket client receives is compared.
"""

import asyncio
import secrets
import time

import sdks_parts
import tools

PYTHON = tools.venv("sdks", sdks_parts.PACKAGES)
NODE = sdks_parts.node()
GO = sdks_parts.go()
tools.install_only()
tools.rerun_inside(PYTHON)

import websockets  # noqa: E402

from backend_parts import Web  # noqa: E402
from harness import (SCRATCH, Server, check, equal, finish, launch, not_run, require_binary,  # noqa: E402
                     section)
from sdks_parts import Boto, Keys, others  # noqa: E402

HARD = "it's \"fine\" \\ ☃\n"
KIB = 1024
KEPT = Keys("AKIDEXAMPLE", secrets.token_urlsafe(30))
LENT = Keys("ASIAEXAMPLE", secrets.token_urlsafe(30), secrets.token_urlsafe(300))
GONE = "GoneException"


class Gateway:
    """A gateway with two access keys, one of them temporary, and a backend that accepts everything."""

    def __enter__(self):
        self.backend = Web(lambda *_: (200, b""))
        file = SCRATCH / "credentials"
        file.write_text(
            f"[default]\naws_access_key_id = {KEPT.key}\naws_secret_access_key = {KEPT.secret}\n"
            f"[lent]\naws_access_key_id = {LENT.key}\naws_secret_access_key = {LENT.secret}\n"
            f"aws_session_token = {LENT.token}\n")
        file.chmod(0o600)
        self.server = Server("--gateway-backend", self.backend.url,
                             "--gateway-credentials-file", str(file))
        self.endpoint = self.server.url("/prod", "admin")
        return self

    def __exit__(self, *_):
        self.server.kill()
        self.backend.close()

    async def client(self):
        """A WebSocket client and its id."""
        before = self.ids()
        socket = await websockets.connect(self.server.ws("/gateway/prod"), max_size=None,
                                          user_agent_header="a browser")
        return socket, (self.ids() - before).pop()

    def ids(self):
        return {headers["ConnectionId"] for _, _, headers, _ in self.backend.seen}


async def receive(socket):
    return await asyncio.wait_for(socket.recv(), 5)


async def callbacks(gateway, sdk):
    async def call(verb, to, data=b"", keys=KEPT):
        answer = await asyncio.to_thread(sdk.call, gateway.endpoint, keys, verb, to, data)
        return answer if verb == "get" else answer["outcome"]

    async def post(to, keys):
        return await call("post", to, b"x", keys)

    socket, name = await gateway.client()
    print(f"# {sdk.name} {sdk.version}")
    for what, data, wanted in (
            ("text", HARD.encode(), HARD), ("bytes that are not UTF-8", b"\x89PNG\xff\x00", None),
            ("an empty message", b"", ""), ("128 KiB", b"x" * 128 * KIB, "x" * 128 * KIB)):
        equal(f"{sdk.name}: {what} is accepted", await call("post", name, data), "ok")
        got = await receive(socket)
        check(f"{sdk.name}: {what} arrives as {'binary' if wanted is None else 'text'}",
              got == (data if wanted is None else wanted), repr(got)[:60])
    for what, size in (("a byte more", 128 * KIB + 1), ("6 MiB", 6 * KIB * KIB)):
        equal(f"{sdk.name}: {what}", await call("post", name, b"x" * size), "PayloadTooLargeException")

    found = await call("get", name)
    equal(f"{sdk.name}: GetConnection: identity", (found["outcome"], found.get("ip"),
                                                   found.get("agent")), ("ok", "127.0.0.1", "a browser"))
    ages = [time.time() - found.get(key, 0) for key in ("since", "active")]
    check(f"{sdk.name}: GetConnection: times", 60 > ages[0] >= ages[1] > -1, found)

    equal(f"{sdk.name}: a temporary key with its session token", await post(name, LENT), "ok")
    equal(f"{sdk.name}: … and its message arrives", await receive(socket), "x")
    for what, keys in (("another token", Keys(LENT.key, LENT.secret, "another")),
                       ("no token", Keys(LENT.key, LENT.secret)),
                       ("a token where none belongs", Keys(KEPT.key, KEPT.secret, LENT.token)),
                       ("another secret", Keys(KEPT.key, "another")),
                       ("an unknown key", Keys("AKIDOTHER", KEPT.secret))):
        equal(f"{sdk.name}: {what}", await post(name, keys), "ForbiddenException")

    equal(f"{sdk.name}: DeleteConnection", await call("delete", name), "ok")
    await asyncio.wait_for(socket.wait_closed(), 5)
    equal(f"{sdk.name}: the client is closed with", socket.close_code, 1000)
    outcomes = [await call("post", name, b"x"), (await call("get", name))["outcome"],
                await call("delete", name), await call("post", "R0oXAdfD0kwCH6w=", b"x")]
    equal(f"{sdk.name}: the id of a closed connection with three verbs, and an unknown id", outcomes, [GONE] * 4)


require_binary()
with Gateway() as running:
    for sdk in [Boto(), *others(SCRATCH, NODE, GO, launch, not_run)]:
        section(callbacks, running, sdk)
finish()
