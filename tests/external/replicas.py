#!/usr/bin/env -S python3 -B
"""Three gateways behind HAProxy, each with its own address: each accepts any callback.

It installs boto3, the aws command, websockets and HAProxy. Callbacks go through random replicas by
AWS' own clients, while one is killed and all of them are replaced one after the other.
"""

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import tools

HAPROXY = tools.apt("haproxy", "haproxy")
PYTHON = tools.venv("replicas", ["awscli>=1.40,<2", "boto3>=1.40,<2", "websockets>=15,<17"])
tools.install_only()
tools.rerun_inside(PYTHON)

import boto3  # noqa: E402
import botocore.config  # noqa: E402
import botocore.exceptions  # noqa: E402
import websockets  # noqa: E402

from harness import (SCRATCH, Server, check, clean_environment, equal, finish, launch,  # noqa: E402
                     records, section, until, wspulse)

SOCKETS = 500
KEY_FILE = SCRATCH / "peer-keys"


def port_at(host):
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


class Backend:
    """Answers 200, and records the id of each client by the name in its message."""

    def __init__(self):
        self.ids = {}
        ids = self.ids

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                if self.path == "/":
                    ids[body] = self.headers["ConnectionId"]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Threads(ThreadingHTTPServer):
            request_queue_size = 512
            daemon_threads = True

            # Gateways that are killed reset their connections.
            def handle_error(self, *_):
                pass

        self.server = Threads(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Replica:
    """A gateway that can be started again at the same addresses."""

    def __init__(self, number, backend, key_file=KEY_FILE):
        self.host, self.key_file = f"127.0.0.{11 + number}", key_file
        self.main, self.admin, self.peer = (port_at(self.host) for _ in range(3))
        self.backend, self.server = backend, None

    def start(self, *args):
        self.server = Server(
            "--gateway-backend", f"http://127.0.0.1:{self.backend.port}",
            "--gateway-format", "proxy", "--gateway-peer-key-file", str(self.key_file),
            "--gateway-peer-listen", f"{self.host}:{self.peer}",
            "--drain-delay", "3s", "--drain-window", "2s", "--drain-timeout", "15s", *args,
            main=f"{self.host}:{self.main}", admin=f"{self.host}:{self.admin}")
        return self

    def endpoint(self):
        return f"http://{self.host}:{self.admin}/prod"

    def figure(self, name):
        with urllib.request.urlopen(f"http://{self.host}:{self.admin}/metrics") as answer:
            rows = answer.read().decode().splitlines()
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows if row.startswith(name))


def haproxy(replicas):
    """In front of the clients and of the callbacks: round robin, a readiness check every 200 ms."""
    main, admin = port_at("127.0.0.1"), port_at("127.0.0.1")

    def servers(ports):
        return "\n".join(
            f"  server r{n} {r.host}:{getattr(r, ports)} check addr {r.host} port {r.admin} "
            "inter 200ms fall 1 rise 1" for n, r in enumerate(replicas))
    config = SCRATCH / "haproxy.cfg"
    config.write_text(f"""
global
  maxconn 4000
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout tunnel 600s
  retries 3
  option redispatch 1
  option httpchk GET /readyz
listen sockets
  bind 127.0.0.1:{main}
  balance roundrobin
{servers("main")}
listen callbacks
  bind 127.0.0.1:{admin}
  balance roundrobin
{servers("admin")}
""")
    launch([HAPROXY, "-f", str(config), "-db"], stdin=subprocess.DEVNULL,
           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def is_up():
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", admin), 1).close()
            return True
    until(is_up)
    return f"ws://127.0.0.1:{main}/gateway/prod", f"http://127.0.0.1:{admin}/prod"


def api(endpoint):
    config = botocore.config.Config(retries={"total_max_attempts": 1}, connect_timeout=5,
                                    read_timeout=30, max_pool_connections=16)
    return boto3.client("apigatewaymanagementapi", region_name="eu-central-1",
                        endpoint_url=endpoint, aws_access_key_id="AKIDEXAMPLE",
                        aws_secret_access_key="secret", config=config)


def outcome(call, **arguments):
    try:
        return call(**arguments)["ResponseMetadata"]["HTTPStatusCode"]
    except botocore.exceptions.ClientError as error:
        return error.response["Error"]["Code"]


class Client:
    """A client that records its messages, and reconnects if `stays`."""

    def __init__(self, name, url, backend, stays=False):
        self.name, self.url, self.backend, self.stays = name, url, backend, stays
        self.received, self.connects = [], 0

    async def run(self):
        while True:
            with contextlib.suppress(OSError, websockets.WebSocketException):
                async with websockets.connect(self.url, open_timeout=20) as link:
                    self.connects += 1
                    await link.send(self.name)
                    async for message in link:
                        self.received.append(message)
            if not self.stays:
                return
            await asyncio.sleep(0.05)


async def connected(clients, backend, budget_s=40):
    tasks = [asyncio.create_task(client.run()) for client in clients]
    end = time.monotonic() + budget_s
    while len(backend.ids) < len(clients) and time.monotonic() < end:
        await asyncio.sleep(0.05)
    equal(f"{len(clients)} sockets are connected", len(backend.ids), len(clients))
    return tasks


async def callbacks_through_any(replicas, backend, url, endpoint):
    clients = [Client(f"c{n}", url, backend) for n in range(SOCKETS)]
    tasks = await connected(clients, backend)
    equal("an id names its owner: 63 characters", {len(i) for i in backend.ids.values()}, {63})
    through, work = api(endpoint), []
    for round_ in range(2):
        work += [(client, f"{client.name} {round_}") for client in clients]
    random.shuffle(work)

    def post(item):
        client, text = item
        return outcome(through.post_to_connection, ConnectionId=backend.ids[client.name],
                       Data=text.encode())
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        codes = list(await asyncio.get_running_loop().run_in_executor(
            None, lambda: list(pool.map(post, work))))
    print(f"# {len(work)} callbacks in {time.monotonic() - began:.1f} s", flush=True)
    equal("each callback is 200 through any replica", set(codes), {200})
    for _ in range(100):
        if all(len(client.received) == 2 for client in clients):
            break
        await asyncio.sleep(0.05)
    wrong = [c.name for c in clients if sorted(c.received) != [f"{c.name} 0", f"{c.name} 1"]]
    equal("each socket got exactly its two messages", wrong, [])
    passed_on = sum(r.figure('gateway_callbacks_total{where="peer"}') for r in replicas)
    check("about two thirds were passed on", 500 < passed_on < 850, passed_on)
    accepted = [r.figure('gateway_peer_requests_total{outcome="ok"}') for r in replicas]
    equal("and answered by their owners", sum(accepted), passed_on)
    with urllib.request.urlopen(f"http://{replicas[0].host}:{replicas[0].admin}/stats") as answer:
        shown = json.load(answer)["gatewayPeers"]
    others = sorted(f"{r.host}:{r.peer}" for r in replicas[1:])
    equal("/stats: the owners that it forwards to", (sorted(own["address"] for own in shown["owners"]
          if own["address"] != shown["advertised"]), shown["accepted"] >= 2), (others, True))
    name = clients[0].name
    for replica in replicas:
        found = outcome(api(replica.endpoint()).get_connection, ConnectionId=backend.ids[name])
        equal(f"GetConnection through {replica.host}", found, 200)
    aws = await asyncio.to_thread(
        subprocess.run,
        [PYTHON.parent / "aws", "apigatewaymanagementapi", "post-to-connection", "--connection-id",
         backend.ids[name], "--data", "YnkgYXdz", "--endpoint-url", endpoint, "--region", "eu-central-1"],
        env=clean_environment({"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s"}),
        capture_output=True, timeout=60, check=False)
    equal("the aws command", (aws.returncode, aws.stderr), (0, b""))
    before, large = len(clients[0].received), b"x" * 131_072
    codes = [outcome(api(r.endpoint()).post_to_connection, ConnectionId=backend.ids[name], Data=large)
             for r in replicas]
    for _ in range(100):
        if len(clients[0].received) == before + 3:
            break
        await asyncio.sleep(0.05)
    equal("128 KiB through each of them", (codes, [len(m) for m in clients[0].received[before:]]),
          ([200] * 3, [len(large)] * 3))
    await killed(replicas, backend, clients)
    for task in tasks:
        task.cancel()


async def killed(replicas, backend, clients):
    """kill -9: its connections are gone within a second, all others stay."""
    victim, witness = replicas[2], replicas[0]
    through = api(witness.endpoint())

    def codes(names):
        return {n: outcome(through.get_connection, ConnectionId=backend.ids[n]) for n in names}
    own = api(victim.endpoint())
    before = victim.figure('gateway_callbacks_total{where="local"}')
    theirs = []
    for client in clients[:60]:
        outcome(own.get_connection, ConnectionId=backend.ids[client.name])
        now = victim.figure('gateway_callbacks_total{where="local"}')
        if now > before:
            theirs.append(client.name)
        before = now
    others = [c.name for c in clients[:60] if c.name not in theirs]
    check("it has about a third of the clients", 5 < len(theirs) < 40, len(theirs))
    victim.server.process.send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    first = outcome(through.get_connection, ConnectionId=backend.ids[theirs[0]])
    while first != "GoneException" and time.monotonic() < killed_at + 5:
        await asyncio.sleep(0.02)
        first = outcome(through.get_connection, ConnectionId=backend.ids[theirs[0]])
    took = time.monotonic() - killed_at
    check("an id of a killed replica is 410 within 1 s", took < 1, f"{took:.2f} s")
    equal("… and all its other ids", set(codes(theirs).values()), {"GoneException"})
    equal("ids of the other replicas still work", set(codes(others).values()), {200})
    victim.server.wait()
    victim.start()
    equal("a new process at that address does not know them",
          set(codes(theirs).values()), {"GoneException"})


async def rolling_restart(replicas, backend, url, endpoint):
    """Under load: each callback with 200 is delivered, and all others get 410."""
    backend.ids.clear()
    clients = [Client(f"s{n}", url, backend, stays=True) for n in range(60)]
    tasks = await connected(clients, backend)
    goes_on, sent, codes = True, [], []

    def load():
        through, number = api(endpoint), 0
        while goes_on:
            client = random.choice(clients)
            number += 1
            text = f"{client.name} {threading.get_ident()} {number}"
            try:
                code = outcome(through.post_to_connection, ConnectionId=backend.ids[client.name],
                               Data=text.encode())
            except botocore.exceptions.BotoCoreError as error:
                code = type(error).__name__
            codes.append(code)
            if code == 200:
                sent.append((client, text))
            time.sleep(0.005)
    threads = [threading.Thread(target=load, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    exits = []
    for replica in replicas:
        replica.server.signal(signal.SIGTERM)
        exits.append(await asyncio.to_thread(replica.server.wait, 20))
        replica.start()
        await asyncio.sleep(1)
    equal("each replica drains and exits", exits, [0, 0, 0])
    goes_on = False
    for thread in threads:
        await asyncio.to_thread(thread.join, 30)
    await asyncio.sleep(1)
    counts = {code: codes.count(code) for code in set(codes)}
    print(f"# {len(codes)} callbacks while all replicas were replaced: {counts}", flush=True)
    missing = [text for client, text in sent if text not in client.received]
    equal("each callback with 200 was delivered", missing, [])
    doubled = [c.name for c in clients if len(c.received) != len(set(c.received))]
    equal("none was delivered twice", doubled, [])
    equal("only 200 and 410", set(codes) - {200, "GoneException"}, set())
    check("most were delivered", codes.count(200) > 0.8 * len(codes), counts)
    for task in tasks:
        task.cancel()


def strangers(replicas):
    """The peer port sends nothing to clients without the key, and does not wait long."""
    replica = replicas[0]
    for what, data in (("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), ("TLS", b"\x16\x03\x01\x02\x00"),
                       ("a hello of our version", b"\x01" + os.urandom(33)),
                       ("a hello of another version", b"\x02" + os.urandom(33)), ("nothing", b"")):
        with socket.create_connection((replica.host, replica.peer), 5) as link:
            began = time.monotonic()
            link.sendall(data)
            link.settimeout(5)
            try:
                answer = link.recv(100)
            except ConnectionResetError:
                answer = b""
            equal(f"{what} without the key gets no answer", answer, b"")
            check(f"… and is reset soon: {what}", time.monotonic() - began < 3)


def message_of(replica, id_):
    """Status and message of GET for this id."""
    try:
        with urllib.request.urlopen(f"{replica.endpoint()}/@connections/{id_}") as answer:
            return answer.status, None
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()).get("message")


async def unknown_and_gone(replicas, backend):
    """A 410 says whether the connection has ended, or the gateway cannot know."""
    other_keys = SCRATCH / "other-keys"
    other_keys.write_text(secrets.token_hex(32) + "\n")
    other = Replica(3, backend, other_keys).start()
    url = f"ws://{other.host}:{other.main}/gateway/prod"
    async with websockets.connect(url) as link:
        await link.send("elsewhere")
        while "elsewhere" not in backend.ids:
            await asyncio.sleep(0.02)
        id_ = backend.ids["elsewhere"]
        unknown = (410, "Unknown connection")
        equal("an id of another key may be open elsewhere", message_of(replicas[0], id_), unknown)
        equal("so may a random id", message_of(replicas[0], "A" * 22), unknown)
        equal("and one of any shape", {message_of(replicas[0], shape) for shape in (
            "x", "A" * 63, "A" * 79, id_[:-1], id_ + "A", "%00", "..%2f..", "A" * 4000)}, {unknown})
        logged = "a callback has an id of an unknown key"
        warnings = [r for r in records(replicas[0].server.log_text()) if logged in r.get("message", "")]
        equal("an unknown key is logged once a minute", len(warnings), 1)
        equal("its own gateway serves it", message_of(other, id_), (200, None))
    for _ in range(100):
        if message_of(other, id_)[0] == 410:
            break
        await asyncio.sleep(0.02)
    equal("… and answers Gone after its end", message_of(other, id_), (410, "Gone"))
    other.server.kill()


def keys_and_addresses(replicas):
    replica = replicas[0]
    tested = "self-test: the advertised address can be reached"
    check("the self-test succeeded", until(lambda: replica.server.record(tested)))
    good = KEY_FILE.read_text()
    KEY_FILE.write_text("rubbish\n")
    warning = "--gateway-peer-key-file cannot be used: keeping the previous keys"

    def warnings():
        return sum(r.get("message") == warning for r in records(replica.server.log_text()))
    replica.server.signal(signal.SIGHUP)
    check("an invalid key file is logged", until(lambda: warnings() == 1))
    replica.server.signal(signal.SIGHUP)
    time.sleep(0.3)
    equal("once", warnings(), 1)
    KEY_FILE.write_text(good)
    replica.server.signal(signal.SIGHUP)
    time.sleep(0.3)
    KEY_FILE.unlink()
    replica.server.signal(signal.SIGHUP)
    check("… also one that cannot be read later", until(lambda: warnings() == 2))
    KEY_FILE.write_text(good)
    replica.server.signal(signal.SIGHUP)
    for text, why in (("", "has no key"), ("c2hvcnQ=\n", "line 1 has 5 bytes instead of 32"),
                      (good + good, "lines 1 and 2 have the same key"), (None, "cannot be read")):
        bad = SCRATCH / "bad-keys"
        bad.unlink(missing_ok=True)
        if text is not None:
            bad.write_text(text)
        code, _, err = wspulse("--listen", "127.0.0.1:0", "--admin-listen", "off",
                                "--gateway-backend", "http://127.0.0.1:1",
                                "--gateway-peer-key-file", str(bad))
        check(f"refused at start: {why}", code not in (0, None) and why in err, err)
    for args, env, why in (
            (["--gateway-peer-listen", "0.0.0.0:0"], {}, "--gateway-advertise IP:PORT"),
            (["--gateway-domain", "self", "--gateway-peer-listen", "127.0.0.1:0"], {}, "loopback")):
        code, _, err = wspulse("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
                                "--gateway-backend", "http://127.0.0.1:1",
                                "--gateway-peer-key-file", str(KEY_FILE), *args, env=env)
        check(f"refused at start: {' '.join(args)}", code not in (0, None) and why in err, err)
    with Server("--gateway-backend", "http://127.0.0.1:1", "--gateway-peer-key-file", str(KEY_FILE),
                "--gateway-peer-listen", "127.0.0.1:0", "--gateway-advertise",
                f"127.0.0.9:{port_at('127.0.0.9')}") as server:
        check("an advertised address that cannot be reached is logged", until(
            lambda: any("the advertised address cannot be reached" in r.get("message", "")
                        for r in records(server.log_text()))), server.log_text()[-500:])
        with urllib.request.urlopen(server.url("/readyz", "admin")) as answer:
            equal("and readiness stays", answer.status, 200)


def main():
    KEY_FILE.write_text(secrets.token_hex(32) + "\n")
    backend = Backend()
    replicas = [Replica(number, backend).start() for number in range(3)]
    url, endpoint = haproxy(replicas)
    section(callbacks_through_any, replicas, backend, url, endpoint)
    section(unknown_and_gone, replicas, backend)
    section(strangers, replicas)
    section(keys_and_addresses, replicas)
    section(rolling_restart, replicas, backend, url, endpoint)
    for replica in replicas:
        replica.server.kill()
    finish()


main()
