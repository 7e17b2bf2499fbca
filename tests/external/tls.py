#!/usr/bin/env -S python3 -B
"""`wspulse` with a certificate: curl, openssl, Python's ssl and websockets, TLS versions, a flood of
handshakes, a thousand idle connections.

    tests/external/tls.py

The certificates are made by openssl(1), in a temporary folder.
"""

import asyncio
import http.client
import os
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import threading
import time

import tools

PYTHON = tools.venv("clients", ["websockets>=17,<18", "aiohttp>=3.14,<4", "websocket-client>=1.9,<2"])
tools.install_only()
tools.rerun_inside(PYTHON)

from websockets.asyncio.client import connect

import harness
from harness import SCRATCH, Server, check, equal, records, section, wspulse

FLOOD_S = 6
IDLE = 1000


# ---- certificates -------------------------------------------------------------------------------

def openssl(*args, text=""):
    return subprocess.run(["openssl", *map(str, args)], input=text, text=True, capture_output=True, timeout=20)


def authority(name):
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90",
            "-subj", f"/CN={name}", "-keyout", SCRATCH / f"{name}.key", "-out", SCRATCH / f"{name}.pem")


def certificate(name, *kind, begin="20200101000000Z", end="20990101000000Z"):
    """A certificate for localhost signed by `ca`: NAME.pem and NAME.key."""
    kind = kind or ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    openssl("req", "-newkey", *kind, "-nodes", "-subj", f"/CN={name}",
            "-keyout", SCRATCH / f"{name}.key", "-out", SCRATCH / f"{name}.csr")
    extensions = SCRATCH / "extensions"
    extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    openssl("x509", "-req", "-in", SCRATCH / f"{name}.csr", "-CA", SCRATCH / "ca.pem", "-CAkey", SCRATCH / "ca.key",
            "-CAcreateserial", "-not_before", begin, "-not_after", end, "-extfile", extensions,
            "-out", SCRATCH / f"{name}.pem")
    if not (SCRATCH / f"{name}.pem").exists():  # openssl(1) before 3.4 has no -not_before
        days = "3650" if end > "2090" else "0"
        openssl("x509", "-req", "-in", SCRATCH / f"{name}.csr", "-CA", SCRATCH / "ca.pem", "-CAkey",
                SCRATCH / "ca.key", "-CAcreateserial", "-days", days, "-extfile", extensions,
                "-out", SCRATCH / f"{name}.pem")


def serve(name, *more, **options):
    return Server("--tls-cert", str(SCRATCH / f"{name}.pem"), "--tls-key", str(SCRATCH / f"{name}.key"),
                  *more, **options)


def curl(server, path="/healthz", *options, ca="ca", scheme="https"):
    run = subprocess.run(["curl", "-sS", "--max-time", "5", "--cacert", str(SCRATCH / f"{ca}.pem"), *options,
                          f"{scheme}://localhost:{server.main[1]}{path}"], capture_output=True)
    return run.returncode, run.stdout.decode(errors="replace"), run.stderr.decode(errors="replace")


def context(ca="ca"):
    return ssl.create_default_context(cafile=SCRATCH / f"{ca}.pem")


def serial(server):
    """The serial number of the certificate on a new connection."""
    with socket.create_connection(server.main, 5) as plain:
        with context().wrap_socket(plain, server_hostname="localhost") as secured:
            return secured.getpeercert()["serialNumber"]


# ---- checks -------------------------------------------------------------------------------------

def clients(server):
    for version in ("1.2", "1.3"):
        answer = curl(server, "/healthz", f"--tlsv{version}", "--tls-max", version)
        check(f"curl, TLS {version}", answer[:2] == (0, "OK\n"), answer)
    code, output, _ = curl(server, "/healthz", "--http2", "-w", "%{http_version}")
    check("curl --http2 is offered http/1.1 and takes it", (code, output) == (0, "OK\n1.1"), output)
    code, _, output = curl(server, ca="other")
    check("curl with another CA: exit code 60", code == 60, output)
    code, output, _ = curl(server, scheme="http")
    check("curl http:// on the TLS port gets an answer that names https://", code == 0 and "https://" in output, output)
    code, _, output = curl(server, "/healthz", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0")
    check("TLS 1.1 is refused", code == 35, output)
    big, size = curl(server, "/"), len(curl(server, "/", "--tls-max", "1.2")[1])
    check("the page arrives whole", big[0] == 0 and len(big[1]) == size > 10_000, size)
    again = f"https://localhost:{server.main[1]}/healthz"
    code, output, _ = curl(server, "/healthz", "-w", "%{num_connects} ", again)
    check("two requests, one connection", (code, output) == (0, "OK\n1 OK\n0 "), output)
    run = openssl("s_client", "-connect", f"localhost:{server.main[1]}", "-CAfile", SCRATCH / "ca.pem",
                  "-brief", "-ign_eof", "-alpn", "h2,http/1.1", text="GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    check("openssl s_client: verified, answered, closed with close_notify",
          "Verification: OK" in run.stderr and "OK" in run.stdout, run.stderr)


def resumed(server):
    """A session ticket makes the second handshake an abbreviated one."""
    options = context()
    options.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(server.main, 5) as plain:
        with options.wrap_socket(plain, server_hostname="localhost") as first:
            session = first.session
    with socket.create_connection(server.main, 5) as plain:
        with options.wrap_socket(plain, server_hostname="localhost", session=session) as second:
            check("the second handshake resumes the session", second.session_reused)


async def websockets_client(server):
    url = f"wss://localhost:{server.main[1]}/echo"
    async with connect(url, ssl=context(), max_size=None) as socket_:
        for message in ("", "hello", "κόσμε" * 10_000, b"\0" * 16_384, b"x" * 16_385, b"y" * (1 << 20)):
            await socket_.send(message)
            if await socket_.recv() != message:
                return check("python websockets over wss", False, len(message))
        for number in range(500):
            await socket_.send(f"m{number}")
        echoes = [await socket_.recv() for _ in range(500)]
    check("python websockets over wss: every size, 500 pipelined, a clean close",
          echoes == [f"m{number}" for number in range(500)] and socket_.close_code == 1000, socket_.close_code)


def cannot_start():
    certificate("second")
    for what, cert, key, wanted in (
            ("a missing file", "none", "shown", "--tls-cert: cannot read"),
            ("the key of another certificate", "shown", "second", "does not belong to the certificate"),
            ("a missing key file", "ca", "none", "--tls-key: cannot read")):
        code, _, err = wspulse("--listen", "127.0.0.1:0", "--admin-listen", "off", "--log-format", "text",
                               "--tls-cert", SCRATCH / f"{cert}.pem", "--tls-key", SCRATCH / f"{key}.key")
        check(f"{what}: exit code 1 and one line", code == 1 and wanted in err and err.count("\n") == 1, err)


def expired():
    certificate("gone", end="20210101000000Z")
    with serve("gone") as server:
        curl(server)  # the warning is logged after the banner
        record = next((r for r in records(server.log_text()) if r.get("event") == "tls"), {})
        check("an expired certificate is an error in the log", record.get("level") == "error", server.log_text())
        code, _, output = curl(server)
        check("… and curl refuses it", code == 60, output)


def reloads():
    for suffix in ("pem", "key"):
        shutil.copy(SCRATCH / f"shown.{suffix}", SCRATCH / f"live.{suffix}")
    with serve("live") as server:
        kept = http.client.HTTPSConnection("localhost", server.main[1], context=context(), timeout=5)
        kept.request("GET", "/healthz")
        kept.getresponse().read()
        first = serial(server)
        for suffix in ("pem", "key"):
            shutil.copy(SCRATCH / f"second.{suffix}", SCRATCH / f"live.{suffix}")
        server.signal(signal.SIGHUP)
        time.sleep(0.3)
        second = serial(server)
        check("SIGHUP: new connections get the new certificate", second != first)
        for suffix in ("pem", "key"):
            shutil.copy(SCRATCH / f"shown.{suffix}", SCRATCH / f"live.{suffix}")
        end = time.monotonic() + 8
        while serial(server) != first and time.monotonic() < end:
            time.sleep(0.2)
        check("… and without SIGHUP within seconds", serial(server) == first)
        kept.request("GET", "/healthz")
        check("… while open connections stay", kept.getresponse().read() == b"OK\n")


# ---- floods -------------------------------------------------------------------------------------

def probe(server, times_ms, stop):
    while not stop.is_set():
        began = time.monotonic()
        connection = http.client.HTTPConnection(*server.admin, timeout=5)
        try:
            connection.request("GET", "/healthz")
            ok = connection.getresponse().status == 200
        except OSError:
            ok = False
        finally:
            connection.close()
        times_ms.append((time.monotonic() - began) * 1000 if ok else 9999)
        time.sleep(0.01)


def handshakes(server, done, stop):
    options = context()
    while not stop.is_set():
        try:
            with socket.create_connection(server.main, 5) as plain:
                with options.wrap_socket(plain, server_hostname="localhost"):
                    done.append(1)
        except OSError:
            done.append(0)


def hello_bytes():
    """A ClientHello of Python's ssl."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secured = context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        secured.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def hellos(server, sent, stop):
    """The cheapest attack: a ClientHello, then nothing."""
    hello, held = hello_bytes(), []
    while not stop.is_set():
        try:
            plain = socket.create_connection(server.main, 5)
            plain.sendall(hello)
            held.append(plain)
            sent.append(1)
        except OSError:
            sent.append(0)
        if len(held) > 400:
            for old in held[:200]:
                old.close()
            del held[:200]


def cpu_s(server):
    with open(f"/proc/{server.process.pid}/schedstat") as stat:
        return int(stat.read().split()[0]) / 1e9


def flood(name):
    with serve(name, "--head-timeout", "2s") as server:
        stop, times_ms, done, sent = threading.Event(), [], [], []
        began_s = cpu_s(server)
        threads = [threading.Thread(target=run, args=(server, into, stop)) for run, into in
                   [(probe, times_ms)] + [(handshakes, done)] * 2 + [(hellos, sent)] * 4]
        for thread in threads:
            thread.start()
        time.sleep(FLOOD_S)
        stop.set()
        for thread in threads:
            thread.join()
        spent_s = cpu_s(server) - began_s
        p99 = sorted(times_ms)[max(0, int(len(times_ms) * 0.99) - 1)]
        total = sum(done) + sum(sent)
        print(f"# {name}: {sum(done)} handshakes and {sum(sent)} bare hellos in {FLOOD_S} s, "
              f"{spent_s / max(1, total) * 1e6:.0f} us CPU each; {len(times_ms)} probes, "
              f"median {statistics.median(times_ms):.1f} ms, p99 {p99:.1f} ms, max {max(times_ms):.1f} ms")
        check(f"{name}: probes during a flood of handshakes, p99 at most 250 ms", p99 <= 250, p99)
        check("… and complete handshakes succeed meanwhile", sum(done) >= 3, sum(done))
        time.sleep(5)
        check("unfinished handshakes are closed after the head timeout", descriptors(server) < 30, descriptors(server))


def descriptors(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def rss(server):
    with open(f"/proc/{server.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024


async def idle():
    with serve("shown") as server:
        url, options = f"wss://localhost:{server.main[1]}/echo", context()
        async with connect(url, ssl=options) as first:
            await first.send("warm")
            await first.recv()
            before = rss(server)
            gate = asyncio.Semaphore(50)

            async def one():
                async with gate:
                    socket_ = await connect(url, ssl=options, compression=None, ping_interval=None)
                    await socket_.send("x" * 20)
                    await socket_.recv()
                    return socket_

            sockets = await asyncio.gather(*[one() for _ in range(IDLE)])
            each = (rss(server) - before) / IDLE
            print(f"# {each:.0f} bytes RSS an idle wss connection of {IDLE}")
            check(f"{IDLE} idle wss connections: at most 6 KiB each", each <= 6 * 1024, each)
            for socket_ in sockets:
                socket_.transport.abort()


def main():
    harness.require_binary()
    if "--tls-cert" not in wspulse("--help")[1]:
        harness.not_run("TLS", "this build has no TLS")
        check("a build without TLS says so", True)
        return
    harness.raise_descriptor_limit()
    for name in ("ca", "other"):
        authority(name)
    certificate("shown")
    certificate("rsa", "rsa:2048")
    with serve("shown") as server:
        for group in (clients, resumed, websockets_client):
            section(group, server)
        equal("SIGTERM: exit code", server.stop(), 0)
    with serve("rsa") as server:
        check("an RSA certificate works as well", curl(server)[:2] == (0, "OK\n"))
    for group in (cannot_start, expired, reloads, idle):
        section(group)
    for name in ("shown", "rsa"):
        section(flood, name)


main()
harness.finish()
