"""An API server stub with TLS: lists in pages, watches, checks tokens and client certificates, can
stop and start again on its port, and changes objects at a given rate. Python's ssl is OpenSSL, so
the TLS under test talks to another implementation.
"""

import json
import re
import socket
import ssl
import subprocess
import threading
import time

from harness import SCRATCH

PAGE = re.compile(rb"limit=(\d+)(?:&continue=(\d+))?")
KIND = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


# ---- certificates ---------------------------------------------------------------------------------

def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, timeout=20)


def authority(name):
    """NAME.pem and NAME.key, in the scratch folder."""
    openssl("req", "-x509", *KIND, "-days", "90", "-subj", f"/CN={name}",
            "-keyout", SCRATCH / f"{name}.key", "-out", SCRATCH / f"{name}.pem")


def vouch(name, subject, extensions, ca="ca"):
    """A certificate signed by this authority: NAME.pem and NAME.key."""
    openssl("req", *KIND, "-subj", subject, "-keyout", SCRATCH / f"{name}.key",
            "-out", SCRATCH / f"{name}.csr")
    (SCRATCH / "extensions").write_text(f"basicConstraints=CA:FALSE\n{extensions}\n")
    openssl("x509", "-req", "-in", SCRATCH / f"{name}.csr", "-CA", SCRATCH / f"{ca}.pem",
            "-CAkey", SCRATCH / f"{ca}.key", "-CAcreateserial", "-days", "90",
            "-extfile", SCRATCH / "extensions", "-out", SCRATCH / f"{name}.pem")


# ---- the server -----------------------------------------------------------------------------------

def deployment(name, version, replicas=1):
    return {"metadata": {"namespace": "shop", "name": name, "uid": f"uid-{name}",
                         "resourceVersion": str(version)},
            "spec": {"replicas": replicas,
                     "template": {"spec": {"containers": [{"name": "c", "image": "web:1"}]}}},
            "status": {"readyReplicas": replicas}}


def context(client_ca=None):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(SCRATCH / "api.pem", SCRATCH / "api.key")
    if client_ca:
        made.load_verify_locations(SCRATCH / f"{client_ca}.pem")
        made.verify_mode = ssl.CERT_REQUIRED
    return made


class Api:
    """`with` starts and stops it. `rate`: changes per second on each watch. `streams`: whether it offers
    WatchList."""

    def __init__(self, count=1, rate=0, token=None, tls=None, streams=False):
        self.streams = streams
        self.count, self.rate, self.token, self.tls = count, rate, token, tls
        self.version, self.port = 100, 0
        self.requests, self.subjects = [], set()
        self.listener, self.open = None, []

    def start(self):
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()
        return self

    def stop(self):
        """Closes the listener and all connections."""
        listener, self.listener = self.listener, None
        for each in (listener, *self.open):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except (AttributeError, OSError):
                pass
        if listener:
            listener.close()
        self.open.clear()

    def url(self, host="localhost"):
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def accept(self, listener):
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(plain,), daemon=True).start()

    def serve(self, plain):
        try:
            peer = self.tls.wrap_socket(plain, server_side=True) if self.tls else plain
            self.open.append(peer)
            if self.tls and peer.getpeercert():
                self.subjects.add(peer.getpeercert()["subject"][-1][0][1])
            stream = peer.makefile("rwb")
            while line := stream.readline():
                fields = dict(field.split(b": ", 1) for field in iter(stream.readline, b"\r\n"))
                token = fields.get(b"Authorization", b"").removeprefix(b"Bearer ").strip().decode()
                if b"sendInitialEvents" in line and not self.streams:  # as Kubernetes 1.20 does
                    stream.write(b"HTTP/1.1 422 Unprocessable Entity\r\nContent-Length: 2\r\n\r\n{}")
                    stream.flush()
                    continue
                self.requests.append((b"watch=true" in line, token))
                if self.token is not None and token != self.token:
                    stream.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}")
                elif b"watch=true" in line:
                    self.watch(stream, b"sendInitialEvents" in line)
                else:
                    self.page(stream, line)
                stream.flush()
        except (OSError, ValueError):
            pass

    def page(self, stream, line):
        limit, start = (int(n or 0) for n in PAGE.search(line).groups())
        names = [f"d{n}" for n in range(start, min(self.count, start + limit))]
        metadata = {"resourceVersion": str(self.version)}
        if start + limit < self.count:
            metadata["continue"] = str(start + limit)
        body = json.dumps({"kind": "DeploymentList", "metadata": metadata,
                           "items": [deployment(name, 1) for name in names]}).encode()
        stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def watch(self, stream, initial):
        stream.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if initial:
            for n in range(self.count):
                self.event(stream, "ADDED", deployment(f"d{n}", 1))
            end = {"annotations": {"k8s.io/initial-events-end": "true"}, "resourceVersion": str(self.version)}
            self.event(stream, "BOOKMARK", {"metadata": end})
        stream.flush()
        began, sent = time.monotonic(), 0
        while True:
            # Due times are absolute, so slow writes do not reduce the rate.
            time.sleep(max(0, began + (sent + 1) / self.rate - time.monotonic()) if self.rate else 0.2)
            if not self.rate:
                continue
            sent, self.version = sent + 1, self.version + 1
            changed = deployment(f"d{sent % self.count}", self.version, self.version)
            self.event(stream, "MODIFIED", changed)
            stream.flush()

    @staticmethod
    def event(stream, kind, changed):
        line = json.dumps({"type": kind, "object": changed}).encode() + b"\n"
        stream.write(b"%x\r\n%s\r\n" % (len(line), line))

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
