"""An API server stub for checks of the informer: one list, one watch, over HTTP like `kubectl proxy`.
It records each request as the (verb, group, resource, namespace) that a role must allow.
"""

import json
import queue
import re
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from harness import BINARY, clean_environment, launch

PATH = re.compile(r"/(?:apis/(?P<group>[^/]+)|api)/v1(/namespaces/(?P<namespace>[^/]+))?"
                  r"/(?P<resource>[a-z]+)(/(?P<name>[^/]+))?")


def deployment(namespace, name, version, image, replicas):
    labels = {"app": name}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": name, "image": image}]}}
    return {"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": namespace, "name": name, "uid": f"uid-{name}",
                         "resourceVersion": str(version), "generation": version},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": pod},
            "status": {}}


def pod(namespace, name, version, image, restarts):
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    return {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "uid": f"uid-{name}",
                         "resourceVersion": str(version)},
            "spec": {"nodeName": "n1", "containers": [{"name": name, "image": image}]},
            "status": {"phase": "Running",
                       "containerStatuses": [{"ready": True, "restartCount": restarts, "state": state}]}}


class ApiServer:
    """`with` starts and stops it; `send` sends one event to the watch of the first kind. `others` has the
    items of other kinds, which do not change."""

    def __init__(self, *items, port=0):
        self.items, self.events, self.others = list(items), queue.Queue(), {}
        self.requests, self.watched = [], threading.Event()
        handler = type("Handler", (Handler,), {"api": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def send(self, kind, document):
        self.events.put({"type": kind, "object": document})

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.events.put(None)
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api = None

    def do_GET(self):
        address = urlsplit(self.path)
        options, found = parse_qs(address.query), PATH.fullmatch(address.path)
        if "sendInitialEvents" in options:  # as Kubernetes 1.20 does
            return self.send_error(422)
        watches = options.get("watch", ["false"])[0] in ("true", "1")
        verb = "watch" if watches else "list"
        if not found:
            self.api.requests.append(("get", address.path))
            return self.send_error(404)
        group, resource, namespace = found.group("group", "resource", "namespace")
        self.api.requests.append((verb, group or "", resource, namespace))
        other = self.api.others.get(resource)
        return self.watch(other is None) if watches else self.list(self.api.items if other is None else other)

    def list(self, items):
        body = json.dumps({"apiVersion": "apps/v1", "kind": "DeploymentList",
                           "metadata": {"resourceVersion": "100"}, "items": items})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def watch(self, changes):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.api.watched.set()
        if not changes:
            time.sleep(60)
        while (event := self.api.events.get()) is not None:
            line = json.dumps(event).encode() + b"\n"
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


class Viewer:
    """`wspulse connect`, which prints the messages it receives."""

    def __init__(self, url):
        self.process = launch([BINARY, "connect", url], stdin=subprocess.PIPE, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=clean_environment())

    def lines(self, wanted, budget_s=10):
        """The first `wanted` messages; fewer if they do not arrive in time."""
        timer, seen = threading.Timer(budget_s, self.process.kill), []
        timer.start()
        for line in self.process.stdout:
            if line.startswith("< "):
                seen.append(line.rstrip("\n"))
            if len(seen) == wanted:
                break
        timer.cancel()
        return seen

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
