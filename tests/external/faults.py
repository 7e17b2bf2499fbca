#!/usr/bin/env -S python3 -B
"""The table in docs/OPERATE.md of what can be broken on purpose: its very lines, with wscat and curl, at a
server with `--faults`; and that a request leaves its line in the log.

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
# What is typed once it is connected, what must then be shown and within how many seconds, and
# what must not be.
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
    """{what is to be seen: [commands]} as that page has it."""
    table = (ROOT / "docs" / "OPERATE.md").read_text().split("| fault | command |\n|---|---|\n")[1].split("\n\n")[0]
    rows = (row.strip("| ").split(" | ", 1) for row in table.splitlines())
    return {what: re.findall(r"`((?:wscat|curl) [^`]+)`", ask) for what, ask in rows}


def run(line, server):
    """A terminal with this line of that table, at our server."""
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
            # What is typed is shown as well, behind the prompt.
            check(f"{what}: `{commands[0]}`", seen and unwanted not in client.seen, client.seen)
            for other in commands[1:]:
                meanwhile(what, client, other, server)
        after(what, server)


def meanwhile(what, client, line, server):
    """A second line, for what happens to others while the first is at work."""
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
    """Each request leaves a line where that is asked for; probes do not."""
    with Server("--log-level", "debug") as server:
        for path in ("/version?secret=1", "/healthz", "/nowhere"):
            with run(f"curl -s 'localhost:8080{path}'", server) as client:
                client.process.wait(5)
        time.sleep(0.2)
        told = [r for r in harness.records(server.log_text()) if r.get("event") == "access"]
        equal("a line for each request that is no probe", [(r["method"], r["path"], r["status"]) for r in told],
              [("GET", "/version", 200), ("GET", "/nowhere", 404)])
        check("… without the query", "secret" not in server.log_text(), told)


def main():
    harness.require_binary()
    table = lines()
    equal("each line of docs/OPERATE.md is checked here", set(table), set(ROWS))
    for what in sorted(set(table) & set(ROWS)):
        harness.section(shows, what, table[what])
    harness.section(access_lines)
    harness.finish()


main()
