#!/usr/bin/env -S python3 -B
"""Operation of `wspulse` with the times of the guides: preStop hooks and drains (system B), one worker,
/inemuri and /seppuku (system D), faults, metrics.

    tests/external/operations.py
"""

import asyncio
import json
import re
import time
import urllib.error
import urllib.request

import tools

PYTHON = tools.venv("clients", ["websockets>=17,<18", "aiohttp>=3.14,<4", "websocket-client>=1.9,<2"])
PROMTOOL = tools.apt("promtool", "prometheus")
tools.install_only()
tools.rerun_inside(PYTHON)

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import harness
from harness import SCRATCH, Server, check, equal, free_port, launch

PLAIN = ("--profile", "plain")
KUBERNETES = ("--profile", "kubernetes")


def ask(url, method="GET", **headers):
    """Status and body; 0 and the error if there was no answer."""
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


async def get(url, method="GET", **headers):
    return await asyncio.to_thread(ask, url, method, **headers)


def open_socket(server, path="/echo", **options):
    return connect(server.ws(path), ping_interval=None, open_timeout=20, **options)


async def close_of(socket):
    """Close code and reason; skips messages."""
    try:
        while True:
            await asyncio.wait_for(socket.recv(), 40)
    except ConnectionClosed as end:
        return (end.rcvd.code, end.rcvd.reason) if end.rcvd else (1006, "")


def since(moment):
    return time.monotonic() - moment


# ---- system B -------------------------------------------------------------------------------

async def prestop():
    """The guide's order: the hook of 15 s with live sockets meanwhile, then SIGTERM."""
    with Server(*KUBERNETES) as server:
        async with open_socket(server, "/socket") as socket:
            welcome = await socket.recv()
            check("B: a welcome with a date", re.match(r"Welcome! \w{3}, \d\d \w{3} \d{4} .* GMT$", welcome), welcome)
            began = time.monotonic()
            first = asyncio.create_task(get(server.url("/api/shutdown", "admin")))
            await asyncio.sleep(1)
            second = asyncio.create_task(get(server.url("/drain?wait=3s", "admin")))
            equal("B: not ready during the hook", await get(server.url("/readyz")), (503, "draining\n"))
            equal("B: alive during the hook", await get(server.url("/api/health")), (200, "Ok"))
            await socket.send("live")
            answer = json.loads(await socket.recv())
            equal("B: a live socket is answered during the hook", answer["message"], "evil")
            equal("B: the later, shorter hook ends on its own", await second, (200, "Ok"))
            check("B: … after 3 s", 3.9 < since(began) < 5.5, since(began))
            alive = [await asyncio.wait_for(socket.recv(), 7) for _ in range(2)]
            check("B: a keepalive message every 5 s during the hook",
                  all(text.startswith("Connection is alive ") for text in alive), alive)
            equal("B: the hook answers Ok", await first, (200, "Ok"))
            check("B: … after 15 s", 14.9 < since(began) < 17, since(began))
            server.signal()
            equal("B: SIGTERM closes the socket with 1001", await close_of(socket), (1001, "draining"))
        code = await asyncio.to_thread(server.wait, 15)
        equal("B: exit 0", code, 0)
        check("B: hook and drain within the grace period of 30 s", since(began) < 30, since(began))


async def reversed_answers():
    with Server() as server:
        async with open_socket(server, "/socket") as socket:
            await socket.recv()
            for text in ["hello", "", 'it\'s "fine" \\ ☃']:
                await socket.send(text)
                answer = await socket.recv()
                ordered = list(json.loads(answer)) == ["message", "time"]
                check(f"B: {text!r} comes back reversed", ordered and json.loads(answer)["message"] == text[::-1], answer)
            await socket.send(b"\0")
            equal("B: binary is refused", await close_of(socket), (1003, "text only"))


# ---- system D -------------------------------------------------------------------------------

async def one_worker():
    with Server() as server:
        sockets = [await open_socket(server, "/throttled") for _ in range(5)]
        async with open_socket(server, "/echo?randping=100ms") as other:
            began = time.monotonic()
            for at, socket in enumerate(sockets):
                await socket.send(f"{at}:0")
            probes = []
            while since(began) < 0.35:
                asked = time.monotonic()
                await get(server.url("/healthz", "admin"))
                probes.append(since(asked))
            answers = [await socket.recv() for socket in sockets]
            took = since(began)
            equal("D: each gets its own answer", answers, [f"{at}:0" for at in range(5)])
            check("D: 5 clients × 1 message take 0.5 s", 0.48 < took < 0.65, f"{took:.3f} s")
            check("D: health checks are fast meanwhile", len(probes) > 3 and max(probes) < 0.15, probes)
            pings = [await other.recv() for _ in range(3)]
            equal("D: pushes continue meanwhile", pings, ["randping"] * 3)
        began = time.monotonic()
        for socket in sockets:
            await socket.send("last")
        await asyncio.sleep(0.05)
        server.signal()
        ends = []
        for socket in sockets:
            ends.append((await socket.recv(), await close_of(socket)))
        equal("D: SIGTERM: received messages are answered, then 1001", ends, [("last", (1001, "draining"))] * 5)
        equal("D: … and exit 0", await asyncio.to_thread(server.wait), 0)


async def starved():
    with Server("--faults") as server:
        async with open_socket(server, "/echo?block=1s") as slow, open_socket(server) as other:
            began = time.monotonic()
            await slow.send("x")
            await asyncio.sleep(0.1)
            await other.send("y")
            probe = await get(server.url("/healthz"))
            check("D: block= starves health as well", probe[0] == 200 and 0.8 < since(began) < 1.6, (probe, since(began)))
            equal("D: … and both sockets are answered after it", (await slow.recv(), await other.recv()), ("x", "y"))
            await slow.send("again")
            await asyncio.sleep(0.2)
            began = time.monotonic()
            server.signal()
            code = await asyncio.to_thread(server.wait, 3)
            check("D: SIGTERM ends a blocked server within 300 ms", code == 0 and since(began) < 0.3, (code, since(began)))


async def naps():
    with Server("--faults", *KUBERNETES) as server:
        async with open_socket(server) as socket:
            began = time.monotonic()
            equal("D: /inemuri answers first", await get(server.url("/inemuri?seconds=3")), (200, "Sleeping for 3s\n"))
            await socket.send("awake")
            equal("D: … and answers for another second", await asyncio.wait_for(socket.recv(), 0.5), "awake")
            await asyncio.sleep(1.2)
            equal("D: … then nothing is answered until it continues", await get(server.url("/healthz")), (200, "OK\n"))
            check("D: … for 3 s", 3.8 < since(began) < 5, since(began))
            await get(server.url("/inemuri"))
            await asyncio.sleep(1.3)
            began = time.monotonic()
            server.signal()
            equal("D: SIGTERM during /inemuri: 1001", await close_of(socket), (1001, "draining"))
            code = await asyncio.to_thread(server.wait, 3)
            check("D: … and exit 0 within 300 ms", code == 0 and since(began) < 0.3, (code, since(began)))
    with Server("--faults") as server:
        equal("D: /seppuku answers first", await get(server.url("/seppuku", "admin")), (200, "Terminating\n"))
        began = time.monotonic()
        code = await asyncio.to_thread(server.wait, 3)
        check("D: … and exits with 69 a second later", code == 69 and 0.6 < since(began) < 1.4, (code, since(began)))
    with Server() as server:
        equal("D: /seppuku is 404 without --faults", (await get(server.url("/seppuku")))[0], 404)
        equal("D: a plain GET of a mount: 426", (await get(server.url("/throttled")))[0], 426)


async def no_pong():
    with Server("--ping-interval", "1s", "--pong-timeout", "1s") as server:
        reader, writer = await asyncio.open_connection(*server.main)
        writer.write(b"GET /echo HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                     b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 8)
        check("D: no pong: 1011 keepalive ping timeout", answer.endswith(b"\x03\xf3keepalive ping timeout"), answer[-60:])
        writer.close()


# ---- faults, ages, readiness ----------------------------------------------------------------

async def faults():
    with Server("--faults") as server:
        async with open_socket(server, "/echo?close_after=1s&code=1012&reason=restart") as socket:
            equal("close_after, code, reason", await close_of(socket), (1012, "restart"))
        async with open_socket(server, "/echo?fault=rst") as socket:
            await socket.send("x")
            equal("fault=rst breaks on the first message", await close_of(socket), (1006, ""))
        async with open_socket(server, "/echo?fault=no-pong") as socket:
            pong = await socket.ping()
            await socket.send("x")
            equal("fault=no-pong echoes", await socket.recv(), "x")
            check("… and does not answer pings", not pong.done())
        try:
            async with open_socket(server, "/echo?fault=status-503"):
                check("fault=status-503 refuses", False)
        except InvalidStatus as answer:
            fields = answer.response.headers
            check("fault=status-503 refuses, with Retry-After", answer.response.status_code == 503 and "Retry-After" in fields, fields)
        async with open_socket(server, "/echo?fault=fragment") as socket:
            await socket.send("abcdefg")
            equal("fault=fragment: three frames", [part async for part in socket.recv_streaming()], ["ab", "cd", "efg"])
        async with open_socket(server, "/echo?fault=stall-read") as socket:
            await socket.send("x")
            try:
                check("fault=stall-read reads nothing", False, await asyncio.wait_for(socket.recv(), 1))
            except TimeoutError:
                check("fault=stall-read reads nothing", True)
            socket.transport.abort()
    with Server() as server:
        refusals = [await refused(server, f"/echo?{query}")
                    for query in ["fault=rst", "block=1s", "work=1s", "close_after=1s", "ping=0"]]
        equal("all refused without --faults", refusals, [400] * 5)


async def refused(server, path, **options):
    """The status of an upgrade; 101 if it is not refused."""
    try:
        async with open_socket(server, path, **options):
            return 101
    except InvalidStatus as answer:
        return answer.response.status_code


async def ages_and_shares():
    with Server("--max-age", "2s", "--max-age-jitter", "20%") as server:
        began = time.monotonic()
        sockets = [await open_socket(server) for _ in range(20)]
        ends = []

        async def wait(socket):
            end = await close_of(socket)
            ends.append((since(began), end))
        await asyncio.gather(*(wait(socket) for socket in sockets))
        equal("--max-age: all 1001 max age", {end for _, end in ends}, {(1001, "max age")})
        moments = [moment for moment, _ in ends]
        check("… between 1.6 and 2.4 s, not all at once", 1.5 < min(moments) and max(moments) < 2.8
              and max(moments) - min(moments) > 0.2, moments)
    with Server() as server:
        sockets = [await open_socket(server) for _ in range(10)]
        equal("/shed answers with the number", await get(server.url("/shed?percent=30", "admin"), "POST"), (200, "closing 3 of 10 WebSockets\n"))
        await asyncio.sleep(0.5)
        closed = [socket.close_code for socket in sockets if socket.close_code]
        equal("… and closes as many with 1001", closed, [1001] * 3)
        equal("/readyz/disable", (await get(server.url("/readyz/disable", "admin"), "POST"), await get(server.url("/readyz"))),
              ((200, "not ready\n"), (503, "disabled\n")))
        equal("/readyz/enable", (await get(server.url("/readyz/enable", "admin"), "POST"), await get(server.url("/readyz"))),
              ((200, "ready\n"), (200, "OK\n")))
        foreign = [await get(server.url("/drain", "admin"), "POST", Origin="https://evil.example"),
                   await get(server.url("/api/shutdown", "admin"), **{"Sec-Fetch-Site": "cross-site"})]
        equal("requests from other sites are refused", [status for status, _ in foreign], [403, 403])
        equal("… and change nothing", (await get(server.url("/readyz")))[0], 200)
        equal("POST /drain and its cancellation", [(await get(server.url(path, "admin"), "POST"))[0] for path in ["/drain", "/drain?cancel=1"]], [200, 200])
        equal("… ready again", (await get(server.url("/readyz")))[0], 200)


# ---- figures --------------------------------------------------------------------------------

def value(text, name):
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)
    return float(found[1]) if found else None


async def figures():
    with Server() as server:
        sockets = [await open_socket(server, "/ws") for _ in range(3)]
        for socket in sockets:
            await socket.send("12345")
            await socket.recv()
        await sockets[0].send(b"123")
        await sockets[0].recv()
        await sockets[0].close(4001)
        equal("another origin is refused", await refused(server, "/echo", origin="https://evil.example"), 403)
        await get(server.url("/nowhere"))
        status, text = await get(server.url("/metrics", "admin"))
        judged = await asyncio.create_subprocess_exec(
            PROMTOOL, "check", "metrics", stdin=-1, stdout=-1, stderr=-1)
        out, err = await judged.communicate(text.encode())
        equal("promtool check metrics finds nothing", (judged.returncode, out + err), (0, b""))
        wanted = {
            'websocket_connections_active{mount="/ws"}': 2, 'websocket_connections_total{mount="/ws"}': 3,
            'websocket_messages_received_total{opcode="text"}': 3, 'websocket_messages_sent_total{opcode="binary"}': 1,
            "websocket_received_bytes_total": 18, "websocket_sent_bytes_total": 18,
            'websocket_closes_total{code="4xxx",initiator="client"}': 1, "websocket_connection_duration_seconds_count": 1,
            'websocket_handshake_failures_total{reason="origin"}': 1,
            'http_requests_total{method="GET",path="other",status="404"}': 1, "server_draining": 0,
        }
        equal("metrics have the right values", {name: value(text, name) for name in wanted}, wanted)
        rss = value(text, "process_resident_memory_bytes")
        check("… also those of the process", rss and 1e6 < rss < 2e7 and value(text, "process_open_fds") > 10, rss)
        stats = json.loads((await get(server.url("/stats", "admin")))[1])
        equal("/stats: what KEDA reads", stats["connections"]["active"], 2)
        equal("… and by mount", stats["connections"]["byMount"]["/ws"], 2)
        await scrape(server)
        closed = server.record("connection closed")
        wanted = {"mount": "/ws", "code": 4001, "initiator": "client", "messages_in": 2, "messages_out": 2, "bytes_in": 8}
        equal("the log line of a closed connection", {key: closed and closed.get(key) for key in wanted}, wanted)
        check("no payload in the log", "12345" not in server.log_text())


async def scrape(server):
    """A Prometheus scrapes our admin listener; then it is queried."""
    if PROMTOOL is None:
        return harness.not_run("a real Prometheus scrapes", "prometheus cannot be installed")
    config, port = SCRATCH / "prometheus.yml", free_port()
    host, admin = server.admin
    config.write_text(f"global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: wspulse\n"
                      f"    static_configs: [{{targets: ['{host}:{admin}']}}]\n")
    launch(["prometheus", f"--config.file={config}", f"--storage.tsdb.path={SCRATCH / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"], stdin=-3, stdout=-3, stderr=-3)
    query, result = f"http://127.0.0.1:{port}/api/v1/query?query=sum(websocket_connections_active)", None
    for _ in range(40):
        await asyncio.sleep(0.5)
        status, body = await get(query)
        result = json.loads(body)["data"]["result"] if status == 200 else None
        if result:
            break
    equal("a real Prometheus scrapes: sum of active connections", result and result[0]["value"][1], "2")


async def main():
    groups = [prestop, reversed_answers, one_worker, starved, naps, no_pong, faults, ages_and_shares, figures]
    done = await asyncio.gather(*(asyncio.wait_for(group(), 100) for group in groups), return_exceptions=True)
    for group, error in zip(groups, done):
        check(f"{group.__name__} runs to its end", error is None, repr(error))


if __name__ == "__main__":
    harness.require_binary()
    asyncio.run(main())
    harness.finish()
