#!/usr/bin/env -S python3 -B
"""The gateway with a Flask backend, boto3 and its signatures, and WebSocket clients.

It installs boto3, Flask, websockets, wscat and HAProxy. No AWS account is needed: boto3's endpoint is our admin listener.
"""

import asyncio
import json
import logging
import re
import secrets
import signal
import stat
import subprocess
import threading
import time
import urllib.error
import urllib.request

import tools

HAPROXY_BINARY = tools.apt("haproxy", "haproxy")
PYTHON = tools.venv("gateway", ["boto3>=1.40,<2", "flask>=3,<4", "websockets>=15,<17"])
NODE = tools.npm(["wscat@6", "ws@8"])
tools.install_only()
tools.rerun_inside(PYTHON)

import boto3  # noqa: E402
import botocore.config  # noqa: E402
import botocore.exceptions  # noqa: E402
import flask  # noqa: E402
import websockets  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402

from harness import (BINARY, SCRATCH, Server, black_hole, check, clean_environment,  # noqa: E402
                     equal, finish, free_port, launch, not_run, section, until)
from terminal import Terminal  # noqa: E402

# It would log a line for each request.
logging.getLogger("werkzeug").setLevel(logging.ERROR)
HARD = "it's \"fine\" \\ ☃\n"


class Backend:
    """A minimal backend as a user would write it; `fails` makes it answer 500."""

    def __init__(self, port=None):
        self.seen, self.fails, self.callback = [], False, None
        app = flask.Flask("backend")

        @app.post("/connect")
        def connect():
            refused = flask.request.headers.get("X-Refuse")
            self.seen.append(("connect", flask.request.headers["ConnectionId"]))
            return ("no", 403) if refused else "connect"

        @app.post("/")
        def default():
            if self.fails:
                return "oops", 500
            asked = flask.request.get_json()
            self.seen.append(("default", asked["myConnectionIdProperty"], asked["myBody"]))
            if self.callback:
                self.callback(asked["myConnectionIdProperty"], "Got message:" + asked["myBody"])
            return "default"

        self.port = port or free_port()
        self.server = make_server("127.0.0.1", self.port, app, threaded=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def client(server, key="AKIDEXAMPLE", secret="secret", path="/prod"):
    config = botocore.config.Config(retries={"total_max_attempts": 1}, connect_timeout=5,
                                    read_timeout=5)
    return boto3.client("apigatewaymanagementapi", region_name="eu-central-1",
                        endpoint_url=server.url(path, "admin"), aws_access_key_id=key,
                        aws_secret_access_key=secret, config=config)


def code(call, **arguments):
    """The result in boto3's terms: the name of the exception, or the status."""
    try:
        return call(**arguments)["ResponseMetadata"]["HTTPStatusCode"]
    except botocore.exceptions.ClientError as error:
        return error.response["Error"]["Code"]


def serve(backend, *args):
    return Server("--gateway-backend", f"http://127.0.0.1:{backend.port}", *args)


async def receive(socket, budget_s=5):
    return await asyncio.wait_for(socket.recv(), budget_s)


async def conversation():
    with Backend() as backend, serve(backend) as server:
        api = client(server)
        backend.callback = lambda to, text: api.post_to_connection(ConnectionId=to, Data=text.encode())
        async with websockets.connect(server.ws("/gateway/prod")) as socket:
            await socket.send("hello")
            equal("hello is answered through boto3", await receive(socket), "Got message:hello")
            await socket.send(HARD)
            equal("quotes, a backslash, a newline and a snowman", await receive(socket),
                  "Got message:" + HARD)
            name = backend.seen[0][1]
            equal("$connect has the same id as messages", backend.seen[1][1], name)
            equal("an id is 128 bits in base64url", len(name), 22)
            backend.callback = None
            for number in range(50):
                await socket.send(str(number))
            await socket.send("last")
            while backend.seen[-1][2:] != ("last",):
                await asyncio.sleep(0.02)
            equal("50 messages arrive in their order", [row[2] for row in backend.seen[3:-1]],
                  [str(number) for number in range(50)])
            backend.fails = True
            await socket.send("x")
            frame = json.loads(await receive(socket))
            equal("the client gets an error message", (frame["message"], frame["connectionId"]),
                  ("Internal server error", name))
            backend.fails = False
            found = await asyncio.to_thread(api.get_connection, ConnectionId=name)
            equal("GetConnection: sourceIp", found["Identity"]["SourceIp"], "127.0.0.1")
            check("GetConnection: userAgent",
                  found["Identity"]["UserAgent"].startswith("Python/"), found["Identity"])
            check("GetConnection: connectedAt, lastActiveAt",
                  0 <= (found["LastActiveAt"] - found["ConnectedAt"]).total_seconds() < 60, found)
            equal("DeleteConnection", await asyncio.to_thread(
                code, api.delete_connection, ConnectionId=name), 204)
            equal("a deleted connection is gone at once", await asyncio.to_thread(
                code, api.post_to_connection, ConnectionId=name, Data=b"x"), "GoneException")
            await asyncio.wait_for(socket.wait_closed(), 5)
            equal("the client sees 1000", socket.close_code, 1000)
        await asyncio.to_thread(until, lambda: backend.seen[-1][0] == "connect")
        equal("$disconnect", backend.seen[-1], ("connect", name))
        try:
            await websockets.connect(server.ws("/gateway/prod"), additional_headers={"X-Refuse": "1"})
            check("the backend refuses a client by its fields", False)
        except websockets.InvalidStatus as error:
            equal("the backend refuses a client by its fields", (
                error.response.status_code, json.loads(error.response.body)["message"]),
                (403, "Forbidden"))


async def names_of_errors():
    with Backend() as backend, serve(backend) as server:
        api = client(server)
        async with websockets.connect(server.ws("/gateway/prod"), max_size=None) as socket:
            await socket.send("hello")
            while len(backend.seen) < 2:
                await asyncio.sleep(0.02)
            name = backend.seen[0][1]

            def post(data, to=name, api=api):
                return code(api.post_to_connection, ConnectionId=to, Data=data)
            for other in ("unknown", "A" * 22, "a/b", "..", "R0oXAdfD0kwCH6w=", "x" * 3_000, "☃"):
                equal(f"an unknown id like {other[:20]!r}", await asyncio.to_thread(post, b"x", other),
                      "GoneException")
            equal("128 KiB", await asyncio.to_thread(post, b"x" * 131_072), 200)
            equal("… and arrives", len(await receive(socket)), 131_072)
            equal("128 KiB + 1 byte", await asyncio.to_thread(post, b"x" * 131_073),
                  "PayloadTooLargeException")
            equal("a URL with another stage", code(client(server, path="/test").post_to_connection,
                                           ConnectionId=name, Data=b"x"), "ForbiddenException")
            equal("a URL without a stage", code(client(server, path="").post_to_connection,
                                          ConnectionId=name, Data=b"x"), 200)
            socket.transport.pause_reading()
            codes = [await asyncio.to_thread(post, b"x" * 100_000) for _ in range(200)]
            check("a client that does not read: LimitExceededException",
                  codes[-1] == "LimitExceededException" and codes[0] == 200, codes)
            accepted = codes.count(200)
            socket.transport.resume_reading()
            await receive(socket)
            for _ in range(accepted):
                equal_length = len(await receive(socket)) == 100_000
            check("every message that got 200 arrives", equal_length)


async def authorization():
    token, keys = SCRATCH / "token", SCRATCH / "credentials"
    token.write_text("a-token\n")
    secret = secrets.token_urlsafe(30)
    keys.write_text(f"[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = {secret}\n")
    keys.chmod(stat.S_IRUSR)
    args = ("--gateway-token-file", str(token), "--gateway-credentials-file", str(keys))
    with Backend() as backend, serve(backend, *args) as server:
        async with websockets.connect(server.ws("/gateway/prod")) as socket:
            name = backend.seen[0][1]
            for what, key, with_secret, wanted in (
                    ("a good signature", "AKIDEXAMPLE", secret, 200),
                    ("another secret", "AKIDEXAMPLE", secret + "x", "ForbiddenException"),
                    ("another key", "AKIDOTHER", secret, "ForbiddenException")):
                api = client(server, key, with_secret)
                equal(what, await asyncio.to_thread(
                    code, api.post_to_connection, ConnectionId=name, Data=HARD.encode()), wanted)
            equal("… and arrives", await receive(socket), HARD)
            padded = name + "=="
            api = client(server, "AKIDEXAMPLE", secret)
            equal("a padded id, sent as %3D", await asyncio.to_thread(
                code, api.get_connection, ConnectionId=padded), 200)
            for what, field, wanted in (("a token", "Bearer a-token", 200),
                                        ("another token", "Bearer b-token", 403),
                                        ("no token", None, 403)):
                request = urllib.request.Request(server.url(f"/@connections/{name}", "admin"),
                                                 data=b"by token", method="POST")
                if field:
                    request.add_header("Authorization", field)
                try:
                    status = (await asyncio.to_thread(urllib.request.urlopen, request)).status
                except urllib.error.HTTPError as error:
                    status = error.code
                equal(what, status, wanted)
            equal("by token", await receive(socket), "by token")


async def backend_restarts():
    """The backend stops and starts: clients stay connected, each message is answered once."""
    port = free_port()
    with Backend(port) as backend, serve(backend) as server:
        api = client(server)
        reply = lambda to, text: api.post_to_connection(ConnectionId=to, Data=text.encode())
        backend.callback = reply
        sockets = [await websockets.connect(server.ws("/gateway/prod")) for _ in range(20)]
        for number, socket in enumerate(sockets):
            await socket.send(f"before {number}")
        answers = [await receive(socket) for socket in sockets]
        equal("20 clients before", answers, [f"Got message:before {n}" for n in range(20)])
        backend.server.shutdown()
        backend.server.server_close()
        for socket in sockets:
            await socket.send("meanwhile")
        errors = [json.loads(await receive(socket))["message"] for socket in sockets]
        equal("each client gets an error meanwhile", errors, ["Internal server error"] * 20)
        with Backend(port) as again:
            again.callback = reply
            await asyncio.sleep(1.1)
            for number, socket in enumerate(sockets):
                await socket.send(f"after {number}")
                answers[number] = await receive(socket)
            equal("20 clients after", list(answers), [f"Got message:after {n}" for n in range(20)])
            for socket in sockets:
                await socket.close()
            equal("close codes", {socket.close_code for socket in sockets}, {1000})
        backend.server = again.server


async def backend_unreachable():
    """A backend whose host drops packets costs 2 s per message until the circuit opens."""
    args = ("--gateway-route", "$request.body.action", "--gateway-routes")
    with black_hole() as port, Backend() as backend, \
            serve(backend, *args, f"lost=http://127.0.0.1:{port}") as server:
        async with websockets.connect(server.ws("/gateway/prod")) as socket:
            errors, took_s = [], []
            for _ in range(6):
                began = time.monotonic()
                await socket.send('{"action":"lost"}')
                errors.append(json.loads(await receive(socket))["message"])
                took_s.append(time.monotonic() - began)
            equal("each message gets an error", errors, ["Internal server error"] * 6)
            check("connecting times out after 2 s",
                  all(1.9 < s < 2.5 for s in took_s[:5]), took_s)
            check("after five timeouts the gateway does not connect", took_s[5] < 0.2, took_s)
            await socket.send("to another")
            check("another backend is not affected", await asyncio.to_thread(
                until, lambda: backend.seen[-1][2:] == ("to another",)), backend.seen)


# ---- our own backend, and three of them behind HAProxy ---------------------------------------

def sample(server, port, *args):
    """`wspulse backend`, which answers through the gateway's admin listener."""
    log = open(SCRATCH / f"backend-{port}.log", "ab")
    process = launch([str(BINARY), "backend", "--listen", f"127.0.0.1:{port}", "--gateway",
                      server.url("", "admin"), *args], stdin=subprocess.DEVNULL, stdout=log,
                     stderr=log, env=clean_environment())
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).read()
            return process
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"no backend on port {port}")


def has_backend():
    done = subprocess.run([str(BINARY), "help", "backend"], capture_output=True, timeout=10)
    return done.returncode == 0


def answered(server):
    """The gateway's successful requests."""
    text = urllib.request.urlopen(server.url("/metrics", "admin"), timeout=5).read().decode()
    rows = [line for line in text.splitlines() if "gateway_requests_total{" in line]
    return sum(int(row.rsplit(" ", 1)[1]) for row in rows if 'outcome="ok"' in row)


async def sample_backend():
    if not has_backend():
        return not_run("wspulse backend behind the gateway", "this build has no such command")
    port = free_port()
    with Server("--gateway-backend", f"http://127.0.0.1:{port}") as server:
        backend = sample(server, port)
        async with websockets.connect(server.ws("/gateway/prod")) as socket:
            for text in ("hello", HARD):
                await socket.send(text)
                equal(f"the sample answers {text!r}", await receive(socket), "Got message:" + text)
            # The backend answers the client before the gateway. Killed in between, it would cause a
            # second message to the client, the gateway's error.
            check("the gateway has received its answers", await asyncio.to_thread(
                until, lambda: answered(server) == 3), answered(server))
            backend.kill()
            backend.wait()
            await socket.send("while it is dead")
            equal("one error message", json.loads(await receive(socket))["message"], "Internal server error")
            backend = sample(server, port)
            await socket.send("again")
            equal("after its restart", await receive(socket), "Got message:again")
            backend.send_signal(signal.SIGTERM)
            equal("SIGTERM ends it with 0", await asyncio.to_thread(backend.wait, 15), 0)


def wscat():
    """wscat: hello, and text with characters that need escaping."""
    if not has_backend():
        return not_run("wscat in front of wspulse backend", "this build has no such command")
    port = free_port()
    with Server("--gateway-backend", f"http://127.0.0.1:{port}") as server:
        sample(server, port)
        program = NODE / "node_modules" / "wscat" / "bin" / "wscat"
        with Terminal("node", program, "--no-color", "-c", server.ws("/gateway/prod")) as client:
            check("wscat connects", client.until("Connected"), client.seen)
            for text in ("hello", HARD.strip()):
                client.type(text + "\r")
                whole = re.escape("< Got message:" + text) + r"(\x1b\[\d*m)?\r?\n"
                check(f"wscat: {text!r} is answered", client.until_match(whole), client.seen)
        with Terminal("node", program, "--no-color", "-c", server.ws("/gateway/test")) as client:
            check("wscat on another stage: 404", client.until("404"), client.seen)


HAPROXY = """
global
    stats socket {socket} level admin
defaults
    mode http
    timeout connect 1s
    timeout client 40s
    timeout server 40s
    option redispatch
frontend front
    bind 127.0.0.1:{port}
    default_backend pods
backend pods
    balance roundrobin
    option httpchk GET /readyz
    default-server check inter 200ms fall 1 rise 1
{servers}
"""


async def talk(url, stop, tally):
    """Sends one message after the other; each must get one answer or one error."""
    async with websockets.connect(url) as socket:
        number = 0
        while not stop.is_set():
            text = f"{id(socket)} {number}"
            await socket.send(text)
            answer = await receive(socket, 35)
            if answer == "Got message:" + text:
                tally["answered"] += 1
            elif "Internal server error" in answer:
                tally["errors"] += 1
            else:
                tally["strange"].append((text, answer))
            number += 1
            await asyncio.sleep(0.02)
        try:
            tally["strange"].append(await asyncio.wait_for(socket.recv(), 0.3))
        except asyncio.TimeoutError:
            pass
        tally["open"] += 1


async def scaled():
    """1 → 3 → 1 backends behind HAProxy, while 40 clients send without a pause."""
    if not has_backend():
        return not_run("1 → 3 → 1 backends", "this build has no such command")
    proxy_port, ports = free_port(), [free_port() for _ in range(3)]
    rows = "\n".join(f"    server pod{n} 127.0.0.1:{port}" for n, port in enumerate(ports))
    config = SCRATCH / "gateway-haproxy.cfg"
    config.write_text(HAPROXY.format(port=proxy_port, servers=rows, socket=SCRATCH / "haproxy.sock"))
    with Server("--gateway-backend", f"http://127.0.0.1:{proxy_port}") as server:
        first = sample(server, ports[0])
        haproxy = launch([HAPROXY_BINARY, "-db", "-f", str(config)], stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        await asyncio.sleep(1)
        stop, tally = asyncio.Event(), {"answered": 0, "errors": 0, "strange": [], "open": 0}
        clients = [asyncio.create_task(talk(server.ws("/gateway/prod"), stop, tally))
                   for _ in range(40)]
        await asyncio.sleep(2)
        more = [await asyncio.to_thread(sample, server, port, "--drain-delay", "1s",
                                     "--drain-window", "1s")
                for port in ports[1:]]
        await asyncio.sleep(3)
        for pod in more:
            pod.send_signal(signal.SIGTERM)
        codes = [await asyncio.to_thread(pod.wait, 20) for pod in more]
        equal("two backends end with 0", codes, [0, 0])
        await asyncio.sleep(2)
        stop.set()
        await asyncio.wait_for(asyncio.gather(*clients), 20)
        equal("no client connection lost in 1 → 3 → 1", tally["open"], 40)
        equal("no message answered twice, no unexpected message", tally["strange"], [])
        total = tally["answered"] + tally["errors"]
        check(f"{tally['answered']} of {total} messages answered, {tally['errors']} got an error",
              tally["answered"] > 1_000 and tally["errors"] <= total // 100, tally)
        haproxy.terminate()
        first.terminate()


section(conversation)
section(names_of_errors)
section(authorization)
section(backend_restarts)
section(backend_unreachable)
section(sample_backend)
section(wscat)
section(scaled)
finish()
