"""What `backend.py` needs around a backend: a gateway to call back, sources of credentials, a proxy
in front of a table. They are threads of this process."""

import contextlib
import http.client
import http.server
import json
import socket
import subprocess
import threading
import time
import urllib.parse
from datetime import datetime, timedelta, timezone

import harness
from harness import SCRATCH, Server, launch


class Backend(Server):
    """`wspulse backend` on a free port."""

    def __init__(self, *args, env=None):
        self.log = SCRATCH / f"backend-{next(harness._numbers)}.log"
        command = [str(harness.BINARY), "backend", "--log-format", "json", "--log-level", "debug", *args]
        if "--listen" not in args:
            command += ["--listen", "127.0.0.1:0"]
        started = time.monotonic()
        with open(self.log, "wb") as log:
            self.process = launch(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                  env=harness.clean_environment(env))
        self._wait_for_banner({"main"}, 10)
        self.started_ms = (time.monotonic() - started) * 1000
        self.main = self.listeners["main"]


class Web:
    """An HTTP server of this process; `answer(method, path, headers, body)` returns status and body."""

    def __init__(self, answer, port=0):
        outer, self.seen, self.open = self, [], set()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                outer.open.add(self.connection)

            def finish(self):
                outer.open.discard(self.connection)
                with contextlib.suppress(OSError):
                    super().finish()

            def serve(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.seen.append((self.command, self.path, dict(self.headers), body))
                status, body, *fields = answer(self.command, self.path, self.headers, body)
                self.send_response(status)
                for name, value in fields:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = serve

            def log_message(self, *_):
                pass

        class Threads(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_):
                pass

        self.server = Threads(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def gateway():
    """Accepts callbacks; a connection named `gone` gets 410, a `slow` one takes a second."""
    def answer(_method, path, _headers, _body):
        if "slow" in path:
            time.sleep(1)
        return (410 if "gone" in path else 200), b""
    return Web(answer)


def post(url, connection, text="hi", budget_s=15):
    """A message in the form of the gateway's template; status and body."""
    body = json.dumps({"myConnectionIdProperty": connection, "myBody": text, "domain": "d", "stage": "s"})
    address = urllib.parse.urlsplit(url)
    client = http.client.HTTPConnection(address.hostname, address.port, timeout=budget_s)
    with contextlib.closing(client):
        client.request("POST", "/", body.encode(), {"Content-Type": "application/json"})
        answer = client.getresponse()
        return answer.status, answer.read()


def fetch(url):
    address = urllib.parse.urlsplit(url)
    client = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
    with contextlib.closing(client):
        client.request("GET", address.path)
        answer = client.getresponse()
        return answer.status, answer.read().decode()


def metric(backend, name):
    """The sum of a metric over its labels."""
    lines = fetch(backend.url("/metrics"))[1].splitlines()
    rows = [line for line in lines if line.split("{")[0].split(" ")[0] == name]
    return sum(float(line.rsplit(" ", 1)[1]) for line in rows)


def proxy(target_port, spoil, port=0):
    """A proxy in front of a table; `spoil(operation)` returns an answer of its own, or None."""
    def answer(method, path, headers, body):
        operation = (headers.get("X-Amz-Target") or "").rsplit(".", 1)[-1]
        spoilt = spoil(operation)
        if spoilt is not None:
            return spoilt
        client = http.client.HTTPConnection("127.0.0.1", target_port, timeout=10)
        with contextlib.closing(client):
            kept = {key: value for key, value in headers.items() if key.lower() != "content-length"}
            client.request(method, path, body, kept)
            got = client.getresponse()
            return got.status, got.read()
    return Web(answer, port)


def fault(code, status=400):
    kind = f"com.amazonaws.dynamodb.v20120810#{code}"
    return status, json.dumps({"__type": kind, "message": "for the test"}).encode()


def expiry(seconds):
    then = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return then.strftime("%Y-%m-%dT%H:%M:%SZ")


def listens(port, budget_s=40):
    def is_there():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True

    return harness.until(is_there, budget_s)
