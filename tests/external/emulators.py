#!/usr/bin/env -S python3 -B
"""The gateway compared with other emulators: the same cases against each, and against AWS'
documentation. Prints the table of docs/USE.md, and checks that wspulse's column is as expected."""

import asyncio
import datetime
import json
import sys
import urllib.error
import urllib.request

import sdks_parts
import tools

PYTHON = tools.venv("emulators", [*sdks_parts.PACKAGES, "moto[server]>=5,<6"])
NODE = sdks_parts.node()
GO = sdks_parts.go()
tools.rerun_inside(PYTHON)

import websockets  # noqa: E402

from emulators_parts import (KEPT, LENT, Architect, Backend, Ministack, Moto, Offline,  # noqa: E402
                             Wspulse)
from harness import (SCRATCH, check, finish, launch, not_run, one_line, require_binary,  # noqa: E402
                     until)
from sdks_parts import Boto, Keys, others  # noqa: E402

KIB = 1024
# Pages of AWS' documentation, by their letters in the table.
PAGES = {
    "C": "Manage connected users and client apps: $connect and $disconnect routes",
    "S": "Set up a $connect route that requires a WebSocket subprotocol",
    "R": "Set up route responses for WebSocket APIs in API Gateway",
    "M": "WebSocket API mapping template reference for API Gateway",
    "O": "Overview of WebSocket APIs in API Gateway",
    "U": "Use @connections commands in your backend service",
    "P": "AmazonApiGatewayManagementApi 2018-11-29 (the SDKs' reference and service model)",
    "G": "How do I troubleshoot 410 GoneException errors with Amazon API Gateway WebSocket APIs?",
    "B": "Binary media types for WebSocket APIs in API Gateway",
    "Q": "Quotas for configuring and running a WebSocket in API Gateway",
}
CASES = []
boto = Boto()


def case(what, aws, page="", ours=None, without_sockets=False):
    """A row. `aws`: the start of the cell according to the page, None if it is undocumented. `ours`: the
    start of wspulse's cell, if undocumented or different."""
    def kept(run):
        CASES.append({"what": what, "aws": aws, "page": page, "ours": ours if ours is not None else aws,
                      "run": run, "without_sockets": without_sockets})
        return run
    return kept


async def call(subject, verb, to, data=b"", keys=KEPT):
    answer = await asyncio.to_thread(boto.call, subject.endpoint, keys, verb, to, data)
    return answer


async def status(subject, verb, to, data=b"", keys=KEPT):
    """The status, and the name of boto3's exception."""
    answer = await call(subject, verb, to, data, keys)
    if not answer["status"]:
        return answer["outcome"]
    name = "" if answer["outcome"] == "ok" else answer["outcome"]
    return f"{answer['status']} {'without a name' if name.isdigit() else name}".strip()


async def receive(socket, budget_s=5):
    return await asyncio.wait_for(socket.recv(), budget_s)


async def end(socket, budget_s=5):
    """How a connection ended."""
    try:
        await asyncio.wait_for(socket.wait_closed(), budget_s)
    except TimeoutError:
        return "open"
    return f"closed, {socket.close_code}"


async def arrives(what, budget_s=5):
    return await asyncio.to_thread(until, what, budget_s)


async def message(subject, text):
    """Sends a message; returns its event, or None."""
    async with subject.client() as (socket, name):
        await socket.send(text)
        if not await arrives(lambda: subject.backend.of("MESSAGE", name)):
            return None
        return subject.backend.of("MESSAGE", name)[0]


# ---- connecting -------------------------------------------------------------------------------------

async def upgrade(subject, answer):
    try:
        async with websockets.connect(f"{subject.ws}?answer={answer}", open_timeout=8):
            return "101"
    except websockets.InvalidStatus as error:
        return f"refused, {error.response.status_code}"
    except (websockets.InvalidHandshake, OSError, EOFError) as error:
        return f"refused, {type(error).__name__}"


@case("`$connect` answered 200", "101", "C")
async def accepted(subject):
    return await upgrade(subject, 200)


@case("`$connect` answered 401", "refused, 401", "C")
async def unauthorized(subject):
    return await upgrade(subject, 401)


@case("`$connect` answered 403", "refused, 403", "C")
async def forbidden(subject):
    return await upgrade(subject, 403)


@case("`$connect` answered 500", "refused", "C", ours="refused, 502")
async def failing(subject):
    return await upgrade(subject, 500)


async def pending(subject, then):
    """While the backend does not answer `$connect`."""
    backend = subject.backend
    backend.release.clear()
    before = len(backend.of("CONNECT"))
    connecting = asyncio.create_task(upgrade(subject, "hold"))
    try:
        await arrives(lambda: len(backend.of("CONNECT")) > before)
        name = backend.of("CONNECT")[before]["requestContext"]["connectionId"]
        return await then(name, connecting)
    finally:
        backend.release.set()
        await connecting


@case("while `$connect` is pending: the client", "no 101", "C")
async def pending_client(subject):
    async def then(_, connecting):
        await asyncio.wait([connecting], timeout=0.5)
        return "101" if connecting.done() else "no 101"
    return await pending(subject, then)


@case("while `$connect` is pending: POST to its id", "410 GoneException", "G")
async def pending_callback(subject):
    return await pending(subject, lambda name, _: status(subject, "post", name, b"early"))


@case("a subprotocol that `$connect` was answered", "chat", "S")
async def subprotocol(subject):
    async with subject.client(answer="chat", subprotocols=["soap", "chat"]) as (socket, _):
        return socket.subprotocol or "none"


@case("the event of `$connect`", "id, domain, stage, query", "C")
async def connect_event(subject):
    async with subject.client() as (_, name):
        event = subject.backend.of("CONNECT", name)[0]
        asked = {"id": "connectionId", "domain": "domainName", "stage": "stage"}
        has = [what for what, key in asked.items() if event["requestContext"].get(key)]
        whole = {"query": "queryStringParameters", "headers": "headers"}
        return ", ".join(has + [what for what, key in whole.items() if event.get(key)])


# ---- messages ---------------------------------------------------------------------------------------

@case("a message that is not JSON", "$default", "O", ours="$default, unchanged")
async def text_message(subject):
    text = "it's \"fine\" \\ ☃\n"
    event = await message(subject, text)
    return f"{event['requestContext']['routeKey']}, {'unchanged' if event['body'] == text else event['body']}"


@case('`{"action":"join"}` of a route', "join", "O")
async def route(subject):
    return (await message(subject, '{"action":"join"}'))["requestContext"]["routeKey"]


@case('`{"action":"$disconnect"}`', None, ours="$default")
async def reserved(subject):
    async with subject.client() as (socket, name):
        before = len(subject.backend.of("MESSAGE"))
        await socket.send('{"action":"$disconnect"}')
        if not await arrives(lambda: len(subject.backend.of("MESSAGE")) > before):
            return "no event"
        return subject.backend.of("MESSAGE")[-1]["requestContext"]["routeKey"]


@case("`messageId` of a message's event", "yes", "M")
async def message_id(subject):
    event = await message(subject, "x")
    return "yes" if event["requestContext"].get("messageId") else "no"


@case("the backend's answer, without a route response", "not sent", "R")
async def no_route_response(subject):
    async with subject.client() as (socket, _):
        await socket.send("x")
        try:
            return f"sent: {await receive(socket, 1)}"
        except TimeoutError:
            return "not sent"


@case("a backend that fails", None, ours="Internal server error, connectionId, requestId")
async def failure(subject):
    async with subject.client() as (socket, _):
        await socket.send("fail")
        try:
            frame = json.loads(await receive(socket, 3))
        except TimeoutError:
            return "nothing"
        except ValueError:
            return "the error's text"
        if "message" not in frame:
            return f"a frame with {', '.join(frame)}"
        return ", ".join([frame["message"], *(key for key in ("connectionId", "requestId") if key in frame)])


@case("ten messages at once", None, ours="in order, 1 at a time")
async def order(subject):
    backend = subject.backend
    backend.began, backend.most_busy = [], 0
    async with subject.client() as (socket, _):
        for number in range(10):
            await socket.send(f"slow {number}")
        await arrives(lambda: len(backend.began) == 10 and not backend.busy, 10)
    sorted_too = "in order" if backend.began == list(range(10)) else "in another order"
    return f"{sorted_too}, {backend.most_busy} at a time"


# ---- callbacks --------------------------------------------------------------------------------------

def kind(got):
    return "text" if isinstance(got, str) else "binary"


@case("POST of text", "200, text", "U", without_sockets=True)
async def post_text(subject):
    async with subject.client() as (socket, name):
        answer = await status(subject, "post", name, "☃".encode())
        return f"{answer}, {kind(await receive(socket))}" if socket else f"{answer}, no client"


@case("the same by the `aws` command, JavaScript v3 and Go v2", "text, text, text", "U")
async def other_sdks(subject):
    async with subject.client() as (socket, name):
        cells = []
        for sdk in SDKS:
            answer = (await asyncio.to_thread(sdk.call, subject.endpoint, KEPT, "post", name,
                                            "☃".encode()))["outcome"]
            cells.append(kind(await receive(socket)) if answer == "ok" else answer)
        return ", ".join(cells)


@case("POST of bytes that are not UTF-8", None, ours="200, binary", without_sockets=True)
async def post_bytes(subject):
    async with subject.client() as (socket, name):
        answer = await status(subject, "post", name, b"\xff\xfe")
        if not socket or answer[0] != "2":
            return answer if socket else f"{answer}, no client"
        got = await receive(socket)
        return f"{answer}, {kind(got)}" + ("" if got == b"\xff\xfe" else ", changed")


@case("POST of 128 KiB", "200, in frames of at most 32 KiB", "Q", ours="200, in one frame")
async def post_large(subject):
    async with subject.client() as (socket, name):
        answer = await status(subject, "post", name, b"x" * 128 * KIB)
        if answer[0] != "2":
            return answer
        sizes = [len(part) async for part in socket.recv_streaming(decode=False)]
        if max(sizes) <= 32 * KIB:
            return f"{answer}, in frames of at most 32 KiB"
        return f"{answer}, in {'one frame' if len(sizes) == 1 else f'{len(sizes)} frames'}"


@case("POST of a byte more", "413 PayloadTooLargeException", "P", without_sockets=True)
async def post_too_large(subject):
    async with subject.client() as (_, name):
        return await status(subject, "post", name, b"x" * (128 * KIB + 1))


@case("POST for a client that does not read", "429 LimitExceededException", "P")
async def post_unread(subject):
    async with subject.client() as (socket, name):
        socket.transport.pause_reading()
        try:
            for count in range(100):
                answer = await status(subject, "post", name, b"x" * 120 * KIB)
                if answer[0] != "2":
                    return answer if answer[:3] == "429" else f"{answer} after {count * 120 // KIB} MiB"
            return f"{answer}, {100 * 120 // KIB} MiB are kept"
        finally:
            socket.transport.resume_reading()


@case("GET", "200, sourceIp, userAgent, connectedAt, lastActiveAt", "P", without_sockets=True)
async def get(subject):
    async with subject.client() as (_, name):
        answer = await call(subject, "get", name)
        names = {"ip": "sourceIp", "agent": "userAgent", "since": "connectedAt", "active": "lastActiveAt"}
        has = [names[key] for key in names if answer.get(key)]
        return ", ".join([str(answer["status"]), *has])


@case("DELETE", "204, closed", "P", ours="204, closed, 1000", without_sockets=True)
async def delete(subject):
    async with subject.client() as (socket, name):
        answer = await status(subject, "delete", name)
        return f"{answer}, {await end(socket, 3)}" if socket else f"{answer}, no client"


@case("POST, GET, DELETE at once after the client's Close", "410, 410, 410", "P", without_sockets=True)
async def gone(subject):
    async with subject.client() as (socket, name):
        if socket:
            await socket.close()
        return ", ".join([(await status(subject, verb, name))[:3] for verb in ("post", "get", "delete")])


@case("POST to an unknown id", "410 GoneException", "G", without_sockets=True)
async def unknown(subject):
    return await status(subject, "post", "never-was", b"x")


@case("no signature", "403", "P", without_sockets=True)
async def unsigned(subject):
    async with subject.client() as (_, name):
        request = urllib.request.Request(f"{subject.endpoint}/@connections/{name}", b"x", method="POST")
        try:
            return str((await asyncio.to_thread(urllib.request.urlopen, request, timeout=5)).status)
        except urllib.error.HTTPError as error:
            return str(error.code)


@case("another secret key", "403 ForbiddenException", "P", without_sockets=True)
async def other_secret(subject):
    async with subject.client() as (_, name):
        return await status(subject, "post", name, b"x", Keys(KEPT.key, "another"))


@case("another session token", "403 ForbiddenException", "P", without_sockets=True)
async def other_token(subject):
    async with subject.client() as (_, name):
        return await status(subject, "post", name, b"x", Keys(LENT.key, LENT.secret, "another"))


# ---- limits and disconnects -------------------------------------------------------------------------

async def sent(subject, frames):
    """The outcome of one message."""
    async with subject.client() as (socket, name):
        await socket.send(frames if len(frames) > 1 else frames[0])
        await arrives(lambda: subject.backend.of("MESSAGE", name) or socket.close_code, 5)
        if socket.close_code:
            return f"closed, {socket.close_code}"
        return "delivered" if subject.backend.of("MESSAGE", name) else "no event"


@case("a binary message", "closed, 1003", "B")
async def binary(subject):
    return await sent(subject, [b"\x00\xff"])


@case("a frame of 32 KiB", "delivered", "Q")
async def frame(subject):
    return await sent(subject, ["x" * 32 * KIB])


@case("a frame of a byte more", "closed, 1009", "Q")
async def long_frame(subject):
    return await sent(subject, ["x" * (32 * KIB + 1)])


@case("128 KiB in four frames", "delivered", "Q")
async def long_message(subject):
    return await sent(subject, ["x" * 32 * KIB] * 4)


@case("a byte more in a fifth frame", "closed, 1009", "Q")
async def too_long_message(subject):
    return await sent(subject, ["x" * 32 * KIB] * 4 + ["x"])


@case("10 minutes without a message (shortened)", "closed", "Q", ours="closed, 1001")
async def idle(subject):
    if subject.hurry is None:
        return "no such limit"
    async with subject.hurry.client() as (socket, _):
        return await end(socket, subject.hurry.idle_s * 2 + 2)


@case("2 hours with messages (shortened)", "closed", "Q", ours="closed, 1001")
async def life(subject):
    if subject.hurry is None:
        return "no such limit"
    async with subject.hurry.client() as (socket, _):
        began = asyncio.get_running_loop().time()
        while (answer := await end(socket, subject.hurry.idle_s / 3)) == "open":
            if asyncio.get_running_loop().time() - began > subject.hurry.life_s * 2:
                break
            await socket.send("still here")
        return answer


@case("`$disconnect` after Close 4001 `bye`", "DISCONNECT", "M", ours="DISCONNECT")
async def disconnect(subject):
    async with subject.client() as (socket, name):
        await socket.close(4001, "bye")
        if not await arrives(lambda: subject.backend.of("DISCONNECT", name)):
            return "no event"
        answer = subject.backend.of("DISCONNECT", name)[0]["requestContext"]
        return ", ".join(["DISCONNECT", *(str(answer[key]) for key in ("disconnectStatusCode", "disconnectReason")
                                          if answer.get(key))])


# ---- the table --------------------------------------------------------------------------------------

def cell_of(subject, row):
    if not (subject.has_sockets or row["without_sockets"]):
        return "–"
    try:
        return asyncio.run(asyncio.wait_for(row["run"](subject), 40))
    except Exception as error:  # one row of one emulator
        return f"{type(error).__name__}: {one_line(error, 60)}"


def column(kind_of_subject):
    """All cells of an emulator; None if it cannot be installed."""
    try:
        subject = kind_of_subject(Backend())
    except (Exception, SystemExit) as error:
        not_run(kind_of_subject.name, error)
        return None
    subject.hurry = subject.hurried()
    cells = []
    for row in CASES:
        cells.append(cell_of(subject, row))
        print(f"# {subject.name}: {row['what']}: {cells[-1]}", flush=True)
    subject.stop()
    if subject.hurry:
        subject.hurry.stop()
    return f"{subject.name} {subject.version}", cells


def shown(cell, row):
    """Bold if it differs from the documentation."""
    text = cell.replace("|", "\\|")
    as_documented = row["aws"] is None or cell == "–" or cell.startswith(row["aws"])
    return text if as_documented else f"**{text}**"


def table(columns):
    print(f"\nOf {datetime.date.today()}, by `tests/external/emulators.py`:\n")
    print("| case | AWS documents | " + " | ".join(name for name, _ in columns) + " |")
    print("|---" * (len(columns) + 2) + "|")
    for number, row in enumerate(CASES):
        aws = "–" if row["aws"] is None else f"{row['aws']} [{row['page']}]"
        cells = [shown(cells[number], row) for _, cells in columns]
        print(f"| {row['what']} | {aws} | " + " | ".join(cells) + " |")
    used = {row["page"] for row in CASES}
    print("\n" + "; ".join(f"[{letter}] *{title}*" for letter, title in PAGES.items() if letter in used) + ".\n")


require_binary()
SDKS = list(others(SCRATCH, NODE, GO, launch, not_run))
subjects = [Wspulse, Offline, Architect, Ministack, Moto]
wanted = sys.argv[1:]
columns = [found for each in subjects if (not wanted or each.name in wanted) and (found := column(each))]
table(columns)
ours = next((cells for name, cells in columns if name.startswith("wspulse")), [])
for row, cell in zip(CASES, ours):
    check(f"wspulse: {row['what']}", cell.startswith(row["ours"]), f"expected {row['ours']}, got {cell}")
not_run("LocalStack", "by its documentation only the paid image has @connections")
not_run("LocalEmu", "1.3.2 has the control plane of WebSocket APIs, but no WebSockets")
finish()
