#!/usr/bin/env -S python3 -B
"""Outgoing connections: through a proxy (tinyproxy), and to names with several addresses, some of
which answer nothing (RFC 8305). Runs in a network namespace of its own, with its own names.

    tests/external/outgoing.py
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import harness
import tools
from harness import SCRATCH, Server, check, equal, free_port, launch, section

INSIDE = "WSPULSE_TEST_NAMESPACE"
# Of prefixes for documentation (RFC 5737, RFC 3849).
HERE = "192.0.2.10"
SILENT = ["2001:db8::7", "198.51.100.7", "198.51.100.8", "198.51.100.9"]
HOSTS = f"""127.0.0.1 localhost
{HERE} here.example api.example
2001:db8::7 no-v6.example
{HERE} no-v6.example
198.51.100.7 no-v4.example
198.51.100.8 no-v4.example
198.51.100.9 no-v4.example
{HERE} no-v4.example
2001:db8::7 nothing.example
198.51.100.7 nothing.example
"""
TINYPROXY = """Port {port}
Listen 127.0.0.1
Timeout 600
MaxClients 100
LogFile "{log}"
LogLevel Info
BasicAuth user secret
"""


def namespace():
    """Runs this script again where only its own addresses and names exist."""
    hosts = SCRATCH / "hosts"
    hosts.write_text(HOSTS)
    addresses = "".join(f"ip address add {address} dev lo\n" for address in [HERE, *SILENT])
    setup = f"""
set -e
mount --bind {hosts} /etc/hosts
ip link set lo up
{addresses}
exec "$0" "$@"
"""
    command = ["unshare", "--net", "--mount", "sh", "-c", setup, sys.executable, "-B", __file__]
    return subprocess.run(command, env={**os.environ, INSIDE: "1"}).returncode


def load(url, *flags, env=None, budget_s=20):
    began = time.monotonic()
    code, out, err = harness.wspulse("load", url, "--json", *flags, env=env, budget_s=budget_s)
    report = json.loads(out) if out else {"error": err}
    return code, report, time.monotonic() - began


@contextlib.contextmanager
def silence(port):
    """No answer from the silent addresses: their accept queues are full."""
    with contextlib.ExitStack() as stack:
        for address in SILENT:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = stack.enter_context(socket.socket(family))
            listener.bind((address, port))
            listener.listen(0)
            stack.enter_context(socket.create_connection((address, port)))
        yield


def several_addresses(server):
    port = server.main[1]
    for name, least_ms in [("here", 0), ("no-v6", 249), ("no-v4", 749)]:
        url = f"ws://{name}.example:{port}/echo"
        code, report, _ = load(url, "--clients", "20", "--messages", "1", "--max-errors", "0")
        connect_ms = report.get("connect_ms", -1)
        check(f"{name}: connected by the address that answers", code == 0, str(report))
        check(f"{name}: after {least_ms} ms and less than 3 s", least_ms <= connect_ms < 3000,
              f"{connect_ms} ms")
    url = f"http://nothing.example:{port}/healthz"
    code, out, err = harness.wspulse("healthcheck", url, "--timeout", "2s")
    text = f"{out}{err}"
    check("no address answers: a clear end", code == 1 and "cannot connect" in text, text)


class Tinyproxy:
    def __init__(self):
        port = free_port()
        self.log = SCRATCH / "tinyproxy.log"
        config = SCRATCH / "tinyproxy.conf"
        config.write_text(TINYPROXY.format(port=port, log=self.log))
        launch(["tinyproxy", "-d", "-c", str(config)], stdin=subprocess.DEVNULL,
               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        harness.until(lambda: self.log.exists() and "Accepting" in self.log.read_text())
        self.place = f"127.0.0.1:{port}"
        url = f"http://user:secret@{self.place}"
        self.env = {"HTTP_PROXY": url, "HTTPS_PROXY": url}

    def asked_for(self, place):
        return self.log.read_text().count(f"CONNECT {place} ")


def through_a_proxy(server, proxy):
    port = server.main[1]
    place, flags = f"here.example:{port}", ["--clients", "5", "--messages", "4", "--verify"]
    code, report, _ = load(f"ws://{place}/echo", *flags, env=proxy.env)
    equal("ws through tinyproxy", (code, report.get("answered")), (0, 20))
    equal("each client asked for a tunnel", proxy.asked_for(place), 5)
    wrong = {"HTTP_PROXY": f"http://user:other@{proxy.place}"}
    code, report, _ = load(f"ws://{place}/echo", *flags, env=wrong)
    text = json.dumps(report)
    check("wrong credentials: an error that names the proxy",
          code != 0 and "it requires other credentials" in text, text)
    before = proxy.asked_for(place)
    for direct in ["example", f"192.0.2.0/24,here.example:{port}", "*"]:
        code, _, _ = load(f"ws://{place}/echo", *flags, env={**proxy.env, "NO_PROXY": direct})
        equal(f"NO_PROXY={direct}: directly", (code, proxy.asked_for(place)), (0, before))
    unknown = f"ws://unknown.example:{port}/echo"
    code, report, _ = load(unknown, *flags, env=proxy.env)
    text = json.dumps(report)
    check("the proxy resolves the name, and says that it is unknown",
          code != 0 and "the proxy answered CONNECT with 5" in text, text)


def of_the_informer(proxy):
    flags = ["--kube", "http://api.example:1", "--kube-watch", "always"]
    with Server(*flags, env=proxy.env):
        asked = harness.until(lambda: proxy.asked_for("api.example:1"))
        check("the informer asks the proxy for a tunnel to the API server", asked)
    with Server(*flags, env={**proxy.env, "NO_PROXY": "api.example"}):
        before = proxy.asked_for("api.example:1")
        time.sleep(1)
        equal("… and NO_PROXY keeps it from that", proxy.asked_for("api.example:1"), before)


def with_tls(proxy):
    key, cert = SCRATCH / "key.pem", SCRATCH / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=here.example",
                    "-addext", "subjectAltName=DNS:here.example",
                    "-addext", "basicConstraints=critical,CA:FALSE"],
                   check=True, capture_output=True)
    flags = ["--tls-cert", str(cert), "--tls-key", str(key)]
    with Server(*flags, main=f"{HERE}:0") as server:
        place = f"here.example:{server.main[1]}"
        code, report, _ = load(f"wss://{place}/echo", "--clients", "5", "--messages", "4", "--verify",
                               "--ca-file", str(cert), env=proxy.env)
        equal("wss through tinyproxy", (code, report.get("answered")), (0, 20))
        code, out, err = harness.wspulse("healthcheck", f"https://{place}/healthz", "--ca-file",
                                         str(cert), env=proxy.env)
        check("healthcheck of https through tinyproxy", code == 0, f"{out}{err}")
        equal("six tunnels", proxy.asked_for(place), 6)


def main():
    for program in ["tinyproxy", "openssl"]:
        tools.apt(program, "tinyproxy-bin" if program == "tinyproxy" else program)
    tools.apt("ip", "iproute2")
    tools.install_only()
    harness.require_binary()
    if INSIDE not in os.environ:
        probe = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True)
        if probe.returncode or shutil.which("ip") is None:
            harness.not_run("outgoing connections", "no network namespace can be created")
            harness.finish()
        sys.exit(namespace())
    with Server(main=f"{HERE}:0") as server:
        with silence(server.main[1]):
            section(several_addresses, server)
        proxy = Tinyproxy()
        section(through_a_proxy, server, proxy)
        section(with_tls, proxy)
        section(of_the_informer, proxy)
    harness.finish()


if __name__ == "__main__":
    main()
