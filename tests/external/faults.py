#!/usr/bin/env -S python3 -B
"""The table of faults in docs/OPERATE.md: its commands, run with wscat and curl against a server with
`--faults`; and the access log.

    tests/external/faults.py
"""

import re
import time

import harness
import tools
from harness import ROOT, Server, check, equal
from terminal import Terminal

NODE = tools.npm(["wscat@6", "ws@8"])
tools.install_only()

WSCAT = f"node {NODE}/node_modules/wscat/bin/wscat --no-color"
# The text to type once connected, the output to expect, within how many seconds, and output that
# must not appear.
ROWS = {
    "a connection reset": ("hi\r", r"code: 1006|ECONNRESET", 3, "< hi"),
    "pings that are not answered": ("/ping\rhi\r", "< hi", 3, "Received pong"),
    "a rejected upgrade": ("", r"(?si)HTTP/1\.1 503 .*retry-after.*?: \d", 3, "101 "),
    "a server that reads nothing": ("hi\r", None, 2, "< hi"),
    "echoes in fragments": ("abcdefg\r", "< abcdefg", 3, "Disconnected"),
    "any close code": ("", r'Disconnected \(code: 1012, reason: "restart"\)', 4, "1006"),
    "a blocked process": ("hi\r", "< hi", 4, "Disconnected"),
    "a frozen process": ("", "Sleeping for 10s", 3, "404"),
    "a process that exits with status 69": ("", "Terminating", 3, "404"),
}


def lines():
    """{fault: [commands]} from the table."""
    table = (ROOT / "docs" / "OPERATE.md").read_text().split("| fault | command |\n|---|---|\n")[1].split("\n\n")[0]
    rows = (row.strip("| ").split(" | ", 1) for row in table.splitlines())
    return {what: re.findall(r"`((?:wscat|curl) [^`]+)`", ask) for what, ask in rows}


def run(line, server):
    """A terminal that runs this command of the table against our server."""
    host, port = server.main
    line = line.replace("localhost:8080", f"{host}:{port}").replace("wscat ", WSCAT + " ", 1)
    return Terminal("sh", "-c", f"exec {line}")


def shows(what, commands):
    typed, wanted, budget_s, unwanted = ROWS[what]
    with Server("--faults") as server:
        with run(commands[0], server) as client:
            if commands[0].startswith("wscat"):
                client.until("Connected")
            for text in re.findall(r"[^\r]+\r", typed):
                client.type(text)
                time.sleep(0.2)
            seen = client.until_match(wanted, budget_s) if wanted else not client.until(unwanted, budget_s)
            # The terminal also echoes the typed text, after the prompt.
            check(f"{what}: `{commands[0]}`", seen and unwanted not in client.seen, client.seen)
            for other in commands[1:]:
                meanwhile(what, client, other, server)
        after(what, server)


def meanwhile(what, client, line, server):
    """A second command: the effect on other clients while the first one runs."""
    client.type("again\r")
    time.sleep(0.3)
    since = time.monotonic()
    with run(line, server) as other:
        answered = other.until("OK", 5)
    check(f"{what}: `{line}` has to wait", answered and time.monotonic() - since > 1, other.seen)


def after(what, server):
    if what == "a process that exits with status 69":
        equal("… and so it does", server.wait(3), 69)
    if what == "a frozen process":
        time.sleep(1.2)
        with run("curl -m 1 localhost:8080/healthz", server) as other:
            check("… and so it does", other.until("timed out", 3), other.seen)


def access_lines():
    """At debug level each request leaves a log line; probes do not."""
    with Server("--log-level", "debug") as server:
        for path in ("/version?secret=1", "/healthz", "/nowhere"):
            with run(f"curl -s 'localhost:8080{path}'", server) as client:
                client.process.wait(5)
        time.sleep(0.2)
        access = [r for r in harness.records(server.log_text()) if r.get("event") == "access"]
        equal("a line for each request except probes", [(r["method"], r["path"], r["status"]) for r in access],
              [("GET", "/version", 200), ("GET", "/nowhere", 404)])
        check("… without the query", "secret" not in server.log_text(), access)


def main():
    harness.require_binary()
    table = lines()
    equal("each line of docs/OPERATE.md is checked here", set(table), set(ROWS))
    for what in sorted(set(table) & set(ROWS)):
        harness.section(shows, what, table[what])
    harness.section(access_lines)
    harness.finish()


main()
