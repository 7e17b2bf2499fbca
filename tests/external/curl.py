#!/usr/bin/env -S python3 -B
"""`wspulse` with curl: every route on both listeners, and what HTTP/1.1 requires of the answers.

    tests/external/curl.py

Debian's curl; installed with apt-get if it is missing.
"""

import gzip
import json
import re
import shutil
import subprocess
import tomllib
from email.utils import parsedate_to_datetime

import harness
import tools
from harness import ROOT, SCRATCH, Server, check, equal, section

MAIN = {"/": 200, "/healthz": 200, "/livez": 200, "/readyz": 200, "/version": 200, "/whoami": 200,
        "/nope": 404, "/metrics": 404, "/healthz/": 404, "/%68ealthz": 200,
        "/inemuri": 404, "/seppuku": 404, "/echo": 426, "/ws": 426, "/websocket": 426}
ADMIN = {"/healthz": 200, "/livez": 200, "/readyz": 200, "/": 404, "/version": 404, "/whoami": 404, "/nope": 404}
BODIES = {"/healthz": b"OK\n", "/livez": b"OK\n", "/readyz": b"OK\n"}
HANDSHAKE = ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13",
             "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3


class Answer:
    """The parsed output of one `curl -i`, and its exit code."""

    def __init__(self, url, *options, budget_s=5):
        run = subprocess.run(["curl", "-sS", "-i", "--max-time", str(budget_s), *options, url],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.exit, self.error = run.returncode, run.stderr.decode(errors="replace").strip()
        head, _, self.body = run.stdout.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        self.status = int(line.split(" ")[1]) if " " in line else 0
        self.fields = {}
        for name, _, value in (field.partition(":") for field in fields):
            key = name.lower()
            self.fields[key] = f"{self.fields[key]}, {value.strip()}" if key in self.fields else value.strip()

    def __getitem__(self, name):
        return self.fields.get(name.lower(), "")

    def __str__(self):
        return f"{self.status} {self.fields} {self.body[:120]!r} curl: {self.exit} {self.error}"


def routes(server):
    for listener, table in (("main", MAIN), ("admin", ADMIN)):
        for path, status in table.items():
            answer = Answer(server.url(path, listener))
            check(f"{listener} GET {path}: {status}", answer.status == status and answer.exit == 0, answer)
            if status == 200 and path in BODIES:
                equal(f"{listener} GET {path}: body", answer.body, BODIES[path])
            common_fields(f"{listener} GET {path}", answer)
            head = Answer(server.url(path, listener), "--head")
            length = head["Content-Length"] if path == "/whoami" else answer["Content-Length"]  # its body contains the method
            check(f"{listener} HEAD {path}: same status and length, no body",
                  (head.status, head["Content-Length"], head.body) == (answer.status, length, b""),
                  f"GET {answer}; HEAD {head}")


def common_fields(what, answer):
    """The header fields that every answer has."""
    faults = []
    try:
        parsedate_to_datetime(answer["Date"])
    except (TypeError, ValueError):
        faults.append(f"Date {answer['Date']!r}")
    if answer["X-Content-Type-Options"] != "nosniff":
        faults.append(f"X-Content-Type-Options {answer['X-Content-Type-Options']!r}")
    if not answer["X-Served-By"]:
        faults.append("no X-Served-By")
    if answer["Content-Length"] != str(len(answer.body)):
        faults.append(f"Content-Length {answer['Content-Length']!r} for {len(answer.body)} bytes")
    if answer.body and not answer["Content-Type"]:
        faults.append("no Content-Type")
    check(f"{what}: Date, nosniff, X-Served-By, Content-Type, Content-Length", not faults, "; ".join(faults))


def refusals(server):
    unknown = Answer(server.url("/nope"))
    check("404 names the endpoints, in one line",
          unknown.body.count(b"\n") == 1 and all(p in unknown.body for p in (b"/healthz", b"/websocket")), unknown)
    plain = Answer(server.url("/echo"))
    check("GET on a WebSocket path: Upgrade: websocket and an explanation",
          plain["Upgrade"].lower() == "websocket" and len(plain.body) > 10, plain)
    old = Answer(server.url("/echo"), *HANDSHAKE[:4], "-H", "Sec-WebSocket-Version: 8", *HANDSHAKE[6:])
    check("version 8: 426 with Sec-WebSocket-Version: 13",
          (old.status, old["Sec-WebSocket-Version"]) == (426, "13"), old)
    for method, wanted in (("POST", 405), ("DELETE", 405), ("TRACE", 405), ("BREW", 501)):
        answer = Answer(server.url("/healthz"), "-X", method)
        check(f"{method} /healthz: {wanted}{' with Allow' if wanted == 405 else ''}",
              answer.status == wanted and (wanted != 405 or {"GET", "HEAD"} <= set(re.findall(r"\w+", answer["Allow"]))),
              answer)
    big = SCRATCH / "big"
    big.write_bytes(bytes(200_000))
    upload = Answer(server.url("/healthz"), "--data-binary", f"@{big}", "-H", "Expect:")
    check("a refused upload of 200 kB: the 405 arrives, no reset", (upload.status, upload.exit) == (405, 0), upload)
    expecting = Answer(server.url("/healthz"), "--data-binary", f"@{big}", "-H", "Expect: 100-continue")
    check("… with Expect: 100-continue too", (expecting.status, expecting.exit) == (405, 0), expecting)
    long_target = Answer(server.url("/" + "x" * 5000))
    check("a target of 5 000 bytes: 414", long_target.status == 414, long_target)
    wide = Answer(server.url("/healthz"), "-H", "X-Wide: " + "x" * 9000)
    check("9 000 bytes of header: 431", wide.status == 431, wide)
    tls = Answer(server.url("/", scheme="https"), "-k")
    check("https:// on the plain port fails at once", tls.exit == 35, tls)


def upgrade(server):
    answer = Answer(server.url("/echo"), "--http1.1", "-N", *HANDSHAKE, budget_s=1)
    check("the well-known curl handshake: 101 and the accept key of RFC 6455",
          (answer.status, answer["Sec-WebSocket-Accept"]) == (101, ACCEPT), answer)
    check("… with X-Served-By, without Content-Length",
          answer["X-Served-By"] and "content-length" not in answer.fields, answer)
    for origin, wanted in (("https://evil.example", 403), ("null", 403), (server.url("").rstrip("/"), 101)):
        got = Answer(server.url("/echo"), "-N", *HANDSHAKE, "-H", f"Origin: {origin}", budget_s=1)
        check(f"{'same' if wanted == 101 else origin} Origin: {wanted}", got.status == wanted, got)
        if wanted == 403:
            check("… the text names Origin, Host and --origin", all(w in got.body for w in (b"Origin", b"Host", b"--origin")), got)
    h2c = Answer(server.url("/healthz"), "--http2")
    check("curl --http2 (h2c upgrade): 200 over HTTP/1.1, then close",
          (h2c.status, h2c["Connection"].lower()) == (200, "close"), h2c)


def page(server):
    plain = Answer(server.url("/"))
    check("the page is HTML with a strict policy", plain["Content-Type"].startswith("text/html")
          and "default-src" in plain["Content-Security-Policy"] and "unsafe" not in plain["Content-Security-Policy"], plain)
    check("… ETag strong, Vary, Last-Modified", re.fullmatch(r'"[^"]+"', plain["ETag"])
          and "accept-encoding" in plain["Vary"].lower() and plain["Last-Modified"], plain)
    zipped = Answer(server.url("/"), "-H", "Accept-Encoding: gzip")
    check("gzip when accepted, with its own ETag",
          zipped["Content-Encoding"] == "gzip" and zipped["ETag"] not in ("", plain["ETag"]), zipped)
    equal("… the same bytes inside", gzip.decompress(zipped.body) if zipped["Content-Encoding"] else None, plain.body)
    refused = Answer(server.url("/"), "-H", "Accept-Encoding: gzip;q=0, identity")
    check("gzip;q=0 refuses gzip", (refused["Content-Encoding"], refused.body) == ("", plain.body), refused)
    for what, options, wanted in (
            ("its ETag", ["-H", f"If-None-Match: {plain['ETag']}"], 304),
            ("its ETag among others, weak", ["-H", f"If-None-Match: \"x\", W/{plain['ETag']}"], 304),
            ("the gzip ETag, gzip accepted", ["-H", f"If-None-Match: {zipped['ETag']}", "-H", "Accept-Encoding: gzip"], 304),
            ("*", ["-H", "If-None-Match: *"], 304),
            ("another ETag", ["-H", 'If-None-Match: "other"'], 200)):
        answer = Answer(server.url("/"), *options)
        check(f"If-None-Match with {what}: {wanted}", answer.status == wanted and (wanted == 200 or not answer.body), answer)
    dated = Answer(server.url("/"), "-H", f"If-Modified-Since: {plain['Last-Modified']}")
    check("If-Modified-Since its date: 304", dated.status == 304, dated)
    bomb = Answer(server.url("/"), "-H", "Range: bytes=" + ",".join(["0-"] * 500))
    check("a Range of 500 parts is ignored", (bomb.status, bomb.body) == (200, plain.body), bomb)


def identity(server):
    version = json.loads(Answer(server.url("/version")).body)
    wanted = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    equal("/version has the crate's version", version.get("version"), wanted)
    who = json.loads(Answer(server.url("/whoami?a=1"), "-H", "X-Mine: 7", "-H", "Cookie: secret=1",
                            "-H", "Authorization: Bearer secret").body)
    keys = {"pod", "namespace", "node", "zone", "version", "peer", "method", "target", "httpVersion", "headers"}
    equal("/whoami has its keys", set(who) & keys, keys)
    equal("/whoami: method and target", (who.get("method"), who.get("target")), ("GET", "/whoami?a=1"))
    check("/whoami: peer", who.get("peer", "").startswith("127.0.0.1"), who)
    equal("/whoami: pod from POD_NAME", who.get("pod"), "pod-7")
    check("/whoami: headers as received", "7" in str(who.get("headers", {}).get("X-Mine")), who)
    check("/whoami masks Cookie and Authorization", "secret" not in json.dumps(who), who)
    equal("X-Served-By is the pod's name", Answer(server.url("/healthz"))["X-Served-By"], "pod-7")


def connections(server):
    run = subprocess.run(["curl", "-sS", "-v", server.url("/healthz"), server.url("/livez"), server.url("/nope")],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=10)
    equal("three requests share one connection", run.stderr.count("Re-using existing connection"), 2)
    closing = Answer(server.url("/healthz"), "-H", "Connection: close")
    check("Connection: close is honoured and echoed", closing["Connection"].lower() == "close", closing)
    for options, wanted in ((["--http1.0"], "close"), (["--http1.0", "-H", "Connection: keep-alive"], "keep-alive")):
        old = Answer(server.url("/healthz"), *options)
        check(f"curl {' '.join(options)}: 200, {wanted}", (old.status, old["Connection"].lower() or "close") == (200, wanted), old)
    many = subprocess.run(["curl", "-sS", "--parallel", "--parallel-max", "50", server.url("/healthz?[1-200]")],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=20)
    equal("200 requests, 50 at a time", many.stdout.count("OK\n"), 200)


def main():
    if shutil.which("curl") is None:
        tools.carry_out(["apt-get", "update"])
        tools.carry_out(["apt-get", "install", "--yes", "--no-install-recommends", "curl"])
    tools.install_only()
    harness.require_binary()
    with Server(env={"POD_NAME": "pod-7"}) as server:
        for group in (routes, refusals, upgrade, page, identity, connections):
            section(group, server)
        equal("the server is still up", server.process.poll(), None)
    harness.finish()


main()
