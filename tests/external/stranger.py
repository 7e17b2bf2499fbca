#!/usr/bin/env -S python3 -B
"""Mistakes of a new user of `wspulse`: each gets one helpful line.

    tests/external/stranger.py

A usage error exits with 2 before any socket opens, a run-time failure with 1. The line names the
flag, the value and a valid form; a second line may begin with `try:`.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tomllib

import harness
from harness import BINARY, ROOT, SCRATCH, Server, check, equal, section, wspulse

NOBODY = 65534
FREE = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]

# The arguments, and what the line must contain: the flag, the value, a valid form.
# "a|b" means either.
USAGE = [
    (["--frobnicate"], ["--frobnicate", "--help"]),
    (["--drain-windw", "5s"], ["--drain-windw", "--drain-window|--help"]),
    (["-z"], ["-z", "--help"]),
    (["serv"], ["serv", "serve|--help"]),
    (["serve", "now"], ["now", "--help|serve"]),
    (["load"], ["load", "ws://"]),
    (["load", "https://localhost/"], ["https://localhost/", "wss://"]),
    (["load", "wss://localhost/", "--insecure", "--ca-file", "x"], ["--insecure", "--ca-file"]),
    (["load", "ws://localhost", "--rate", "many"], ["--rate", "many", "/s", "wspulse load --help"]),
    (["load", "ws://localhost", "--messages", "6", "--duration", "1s"], ["--messages", "--duration"]),
    (["connect", "localhost:8080"], ["localhost:8080", "ws://"]),
    (["connect", "ws://localhost", "--close", "1006"], ["--close", "1006", "1000"]),
    (["help", "nothing"], ["nothing", "serve|--help"]),
    (["--listen"], ["--listen", "ADDR|127.0.0.1|:8080|host:port"]),
    (["--listen", "nonsense"], ["--listen", "nonsense", "ADDR|127.0.0.1|:8080"]),
    (["--listen", "127.0.0.1:99999"], ["--listen", "127.0.0.1:99999", "65535|ADDR|127.0.0.1:|:8080"]),
    (["--listen", "unix:"], ["--listen", "unix:", "path"]),
    (["--listen", "unix:" + "x" * 120], ["--listen", "107"]),
    (["--admin-listen", "no"], ["--admin-listen", "no", "off"]),
    (["--faults=yes"], ["--faults", "yes"]),
    (["--drain-window", "5"], ["--drain-window", "5", "10s|250ms|5s"]),
    (["--drain-window", "-5s"], ["--drain-window", "-5s", "10s|250ms|5s"]),
    (["--drain-window="], ["--drain-window", "10s|250ms|5s"]),
    (["--head-timeout", "99999999999999999999s"], ["--head-timeout", "99999999999999999999s", "10s|250ms"]),
    (["--max-message", "1MB"], ["--max-message", "1MB", "1MiB|64KiB"]),
    (["--max-connections", "many"], ["--max-connections", "many", "number|digits|1000"]),
    (["--log-format", "xml"], ["--log-format", "xml", "json", "text", "auto"]),
    (["--log-level", "loud"], ["--log-level", "loud", "info", "debug"]),
    (["--profile", "docker"], ["--profile", "docker", "kubernetes", "plain"]),
    (["--drain-code", "abc"], ["--drain-code", "abc", "1000|1001"]),
    (["--drain-code", "1005"], ["--drain-code", "1005"]),
    (["--drain-ready", "maybe"], ["--drain-ready", "maybe", "fail", "keep"]),
    (["--drain-reason", "x" * 124], ["--drain-reason", "123"]),
    (["--origin", "example.com/path"], ["--origin", "example.com/path", "https://"]),
    (["--base-path", "x"], ["--base-path", "x", "/"]),
    (["--mount", "/x"], ["--mount", "/x", "=|PATH=BEHAVIOUR"]),
    (["--mount", "x=echo"], ["--mount", "x=echo", "/x|PATH|/"]),
    (["--mount", "/x=nope"], ["--mount", "nope", "echo"]),
    (["--mount", "/x=echo?delay=abc"], ["--mount", "delay", "abc", "100ms|10s|250ms"]),
    (["--mount", "/x=echo", "--mount", "/x=echo?delay=1s"], ["--mount", "/x", "twice|already|two|duplicate"]),
    (["--mount", b"/\xff=echo"], ["--mount"]),
    (["--drain-delay", "5s", "--drain-window", "15s", "--drain-timeout", "10s"],
     ["--drain-timeout", "10s", "25s"]),
    (["healthcheck", "localhost:8080"], ["localhost:8080", "http://"]),
    (["healthcheck", "wss://localhost"], ["wss://localhost", "http://"]),
    (["healthcheck", "http://localhost:99999"], ["http://localhost:99999", "65535"]),
    (["healthcheck", "http://a", "http://b"], ["http://b"]),
    (["healthcheck", "--ready", "http://a/b"], ["--ready", "/b"]),
    (["healthcheck", "--timeout", "1"], ["--timeout", "1", "10s|250ms"]),
    (["healthchek"], ["healthchek", "healthcheck"]),
]
ENVIRONMENT = [
    ({"WSPULSE_DRAIN_WINDOW": "5"}, ["WSPULSE_DRAIN_WINDOW", "5", "10s|250ms|5s"]),
    ({"WSPULSE_DRAIN_WINDWO": "5s"}, ["WSPULSE_DRAIN_WINDWO", "WSPULSE_DRAIN_WINDOW|--help"]),
    ({"WSPULSE_LOG_FORMAT": "xml"}, ["WSPULSE_LOG_FORMAT", "xml", "json"]),
    ({"WSPULSE_MOUNT": "/a=echo b=echo"}, ["WSPULSE_MOUNT", "b=echo"]),
    ({"WSPULSE_FAULTS": "perhaps"}, ["WSPULSE_FAULTS", "perhaps"]),
    ({"PORT": "abc"}, ["PORT", "abc"]),
]
KUBERNETES = {  # what a Service named wspulse makes the kubelet inject
    "WSPULSE_SERVICE_HOST": "10.96.0.7", "WSPULSE_SERVICE_PORT": "80", "WSPULSE_SERVICE_PORT_HTTP": "80",
    "WSPULSE_PORT": "tcp://10.96.0.7:80", "WSPULSE_PORT_80_TCP": "tcp://10.96.0.7:80",
    "WSPULSE_PORT_80_TCP_PROTO": "tcp", "WSPULSE_PORT_80_TCP_PORT": "80",
    "WSPULSE_PORT_80_TCP_ADDR": "10.96.0.7", "WSPULSE_PORT_53_UDP": "udp://10.96.0.7:53",
    "WSPULSE_PORT_53_UDP_PROTO": "udp", "WSPULSE_PORT_53_UDP_PORT": "53", "WSPULSE_PORT_53_UDP_ADDR": "10.96.0.7",
}


def mistake(what, result, code, words):
    """One check per mistake; all faults of the answer go into the detail."""
    got, out, err = result
    lines = [line for line in err.splitlines() if line.strip()]
    faults = [] if got == code else [f"exit code {got}, expected {code}"]
    if not (len(lines) == 1 or len(lines) == 2 and lines[1].lstrip().startswith("try:")):
        faults.append(f"{len(lines)} lines on stderr")
    faults += [f"does not contain {word!r}" for word in words if not re.search(spoken(word), err)]
    if "panicked" in err or out:
        faults.append("a panic" if "panicked" in err else "something on stdout")
    check(what, not faults, f"{'; '.join(faults)}; stderr {err[:300]!r}")


def spoken(word):
    return "|".join(re.escape(part) for part in word.split("|"))


def shown(arguments):
    return " ".join(a if isinstance(a, str) else repr(a) for a in arguments)[:70]


def usage():
    for arguments, words in USAGE:
        mistake(f"wspulse {shown(arguments)}", wspulse(*arguments, env={"PORT": "0"}), 2, words)
    for variables, words in ENVIRONMENT:
        mistake(f"{shown(f'{k}={v}' for k, v in variables.items())} wspulse",
                wspulse("--check", env=variables), 2, words)


def run_time():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        mistake("a busy port", wspulse("--listen", address, "--admin-listen", "off"), 1,
                ["--listen", address, "in use"])
        mistake("a busy admin port", wspulse("--listen", "127.0.0.1:0", "--admin-listen", address), 1,
                ["--admin-listen", address, "in use"])
    mistake("an address of another machine", wspulse("--listen", "192.0.2.1:0", "--admin-listen", "off"), 1,
            ["--listen", "192.0.2.1"])
    missing, plain_file = SCRATCH / "nowhere", SCRATCH / "page.html"
    plain_file.write_text("hello")
    mistake("--assets: no such directory", wspulse(*FREE, "--assets", str(missing)), 1,
            ["--assets", str(missing), "No such|not there|does not exist|not found"])
    mistake("--assets: a file, not a directory", wspulse(*FREE, "--assets", str(plain_file)), 1,
            ["--assets", str(plain_file), "directory"])


def unix_sockets():
    plain_file, socket_file = SCRATCH / "plain", SCRATCH / "live.sock"
    plain_file.write_text("hello")
    mistake("--listen: a file that is not a socket", wspulse("--listen", f"unix:{plain_file}", "--admin-listen", "off"),
            1, ["--listen", str(plain_file), "move the file away"])
    equal("… and the file is unchanged", plain_file.read_text(), "hello")
    mistake("--listen: a socket in a missing directory", wspulse("--listen", "unix:/nowhere/x", "--admin-listen", "off"),
            1, ["--listen", "/nowhere/x", "directory"])
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(socket_file))
        live.listen()
        mistake("--listen: a socket in use", wspulse("--listen", f"unix:{socket_file}", "--admin-listen", "off"),
                1, ["--listen", str(socket_file), "in use"])
    with Server(main=f"unix:{socket_file}") as server:
        check("a stale socket file is replaced", True)
        equal("Ctrl-C: exit code with it", (server.signal(signal.SIGINT), server.wait(3))[1], 0)
    check("the server removes its socket file", not socket_file.exists())


def healthcheck():
    """Always one line on stdout, for any result."""
    def asks(what, code, line, *args, env=None):
        got, out, err = wspulse("healthcheck", *args, env=env)
        one_line = out.count("\n") == 1 and re.search(line, out) and not err
        check(f"healthcheck: {what}", got == code and one_line, f"exit code {got}, {out!r}, {err[:200]!r}")

    with Server("--profile", "kubernetes") as server:
        here = server.url("")
        asks("a healthy server", 0, "200 OK", here)
        asks("ready, found by the server's own variable", 0, "readyz: 200 OK", "--ready",
             env={"WSPULSE_ADMIN_LISTEN": "{}:{}".format(*server.admin)})
        asks("no admin side, the port by PORT", 0, "localhost:.*200 OK",
             env={"WSPULSE_ADMIN_LISTEN": "off", "PORT": str(server.main[1])})
        asks("an unknown path", 1, "404 no such path", here + "/nope")
        with socket.create_connection(server.main):
            server.signal()
            asks("a draining server is alive", 0, "200 OK", here)
            asks("a draining server is not ready", 1, "503 draining", "--ready", here)
        server.signal(signal.SIGSTOP)
        asks("a frozen server", 1, "timed out after 200ms", "--timeout", "200ms", here)
    asks("no server", 1, "refused", here)
    asks("an unknown host name", 1, "cannot be looked up|cannot connect", "--timeout", "300ms", "http://no.invalid")
    asks("a missing Unix socket", 1, "address unreachable", f"unix:{SCRATCH}/nobody")


def unreadable():
    """Root can read every file, so root runs a copy of the server as the user nobody."""
    home = SCRATCH / "for-nobody"
    home.mkdir()
    os.chmod(SCRATCH, 0o755)
    binary = shutil.copy(BINARY, home / "wspulse")
    as_nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
    for what, closed in (("directory", home / "site"), ("file in it", home / "site" / "index.html")):
        shutil.rmtree(home / "site", ignore_errors=True)
        (home / "site").mkdir()
        (home / "site" / "index.html").write_text("hello")
        closed.chmod(0)
        result = wspulse(*FREE, "--assets", str(home / "site"), executable=binary, **as_nobody)
        mistake(f"--assets: an unreadable {what}", result, 1, ["--assets", str(closed), "ermission denied"])
        closed.chmod(0o755)


def answers():
    for arguments in (["--help"], ["help"], ["-h"], ["help", "serve"], ["serve", "--help"],
                      ["help", "healthcheck"], ["healthcheck", "--help"]):
        code, out, err = wspulse(*arguments)
        lines = out.splitlines()
        widest = max(map(len, lines), default=0)
        check(f"wspulse {shown(arguments)}: at most 50 lines and 100 columns, on stdout",
              code == 0 and 5 < len(lines) <= 50 and widest <= 100 and not err,
              f"exit code {code}, {len(lines)} lines, {widest} columns, stderr {err[:200]!r}")
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    for flag in ("--version", "-V"):
        code, out, _ = wspulse(flag)
        check(f"wspulse {flag}", code == 0 and out.startswith(f"wspulse {version}") and out.count("\n") == 1,
              f"exit code {code}, {out!r}")
    for arguments in (["--check"], ["serve", "--check"]):
        equal(f"wspulse {shown(arguments)}: exit code", wspulse(*arguments)[0], 0)
    code, out, err = wspulse("--print-config", "--drain-window", "2s", "--max-message", "3MiB",
                             env={"WSPULSE_MAX_MESSAGE": "2MiB", "WSPULSE_LISTEN": "127.0.0.1:7070", "PORT": "7171"})
    check("--print-config: exit code 0", code == 0, f"{code}, {err[:200]}")
    for what, words in {
            "a flag and its source": ["window", "2s", "flag|--drain-window"],
            "flag beats environment": ["message", "3MiB", "flag|--max-message"],
            "WSPULSE_LISTEN beats PORT": ["listen", "127.0.0.1:7070", "env|WSPULSE_LISTEN"],
            "a default": ["head", "10s", "default"]}.items():
        line = next((l for l in out.splitlines() if all(re.search(spoken(w), l, re.I) for w in words)), None)
        check(f"--print-config: {what}", line, f"no line with {words}: {out[:500]!r}")


def around():
    with Server(env=KUBERNETES) as server:
        check("variables that Kubernetes injects for a Service of this name are ignored", True)
        equal("Ctrl-C: exit code", (server.signal(signal.SIGINT), server.wait(3))[1], 0)
    port = harness.free_port()
    serve = f'exec "$0" --listen 127.0.0.1:{port} --admin-listen off'
    for what, redirect in (("stdout closed", ">&-"), ("stdin, stdout and stderr closed", "<&- >&- 2>&-"),
                           ("stdout and stderr full", ">/dev/full 2>/dev/full")):
        serves(what, f"{serve} {redirect}", port)
    for flag in ("--help", "--version", "--print-config"):
        for what, redirect in (("stdout closed", ">&-"), ("a full disk", ">/dev/full"), ("a closed pipe", "| true")):
            run = subprocess.run(["bash", "-c", f'set -o pipefail; "$0" {flag} {redirect}', BINARY], timeout=5,
                                 env=harness.clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            check(f"{flag} with {what}: no panic", run.returncode in (0, 1) and "panicked" not in run.stderr,
                  f"exit code {run.returncode}, {run.stderr[:200]!r}")


def serves(what, command, port):
    process = harness.launch(["bash", "-c", command, BINARY], env=harness.clean_environment(),
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        run = subprocess.run(["curl", "-s", "--retry", "20", "--retry-connrefused", "--retry-delay", "0", "--retry-max-time", "3",
                              f"http://127.0.0.1:{port}/healthz"], stdout=subprocess.PIPE, text=True, timeout=10)
        process.send_signal(signal.SIGTERM)
        equal(f"serves with {what}", (run.stdout, process.wait(5)), ("OK\n", 0))
    finally:
        process.kill()
        process.wait()


def main():
    harness.require_binary()
    for group in (usage, run_time, unix_sockets, healthcheck, unreadable, answers, around):
        section(group)
    harness.finish()


main()
