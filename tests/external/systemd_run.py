#!/usr/bin/env -S python3 -B
"""systemd's protocols: sockets passed by systemd's own tool, and sd_notify messages.

    tests/external/systemd_run.py

`systemd-socket-activate` (apt package systemd) passes the sockets; a service manager is not needed,
the script binds NOTIFY_SOCKET itself. Without the tool the checks are reported as not run.
"""

import os
import shutil
import signal
import socket
import subprocess
import time

import harness
from harness import BINARY, SCRATCH, Server, check, equal, launch, not_run, section, wspulse

ACTIVATE = shutil.which("systemd-socket-activate")


def install():
    """Installs the package with the tool, if this user may and the network works."""
    global ACTIVATE
    if ACTIVATE or os.getuid() != 0 or not shutil.which("apt-get"):
        return
    subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", "systemd"], timeout=120,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})
    ACTIVATE = shutil.which("systemd-socket-activate")


def curl(*arguments):
    run = subprocess.run(["curl", "-s", "--max-time", "5", *arguments], timeout=10,
                         stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    return run.stdout


def activated(sockets, names, *flags):
    """The tool listens, waits for the first client and becomes the server."""
    log = open(SCRATCH / f"activated-{names.replace(':', '-')}.log", "w+b")
    listen = [word for address in sockets for word in ("-l", address)]
    process = launch([ACTIVATE, *listen, f"--fdname={names}", str(BINARY), "--log-format", "json", *flags],
                     stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=harness.clean_environment())
    end = time.monotonic() + 5
    while log_text(log).count("Listening on") < len(sockets) and time.monotonic() < end:
        time.sleep(0.01)
    return process, log


def log_text(log):
    with open(log.name, errors="replace") as text:
        return text.read()


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        return None


def activation():
    if not ACTIVATE:
        return not_run("socket activation", "systemd-socket-activate is missing: apt install systemd")
    port, path = harness.free_port(), str(SCRATCH / "activated.sock")
    process, log = activated([f"127.0.0.1:{port}", path], "main:admin")
    equal("the first client of a passed TCP socket", curl(f"http://127.0.0.1:{port}/healthz"), "OK\n")
    equal("a passed Unix socket named admin", curl("--unix-socket", path, "http://localhost/readyz"), "OK\n")
    check("it is an admin listener: no /whoami", "no such path" in
          curl("--unix-socket", path, "http://localhost/whoami"))
    banner = harness.records(log_text(log))
    equal("the log says that passed sockets are used", sum(r.get("event") == "passed" for r in banner), 1)
    equal("no other listeners", sum(r.get("event") == "listening" for r in harness.records(log_text(log))), 2)
    equal("SIGTERM: exit code", stop(process), 0)
    check("the socket's file stays, since systemd owns it", os.path.exists(path))
    port, other = harness.free_port(), harness.free_port()
    process, log = activated([f"127.0.0.1:{port}", f"127.0.0.1:{other}"], "web:web2",
                             "--admin-listen", "off")
    equal("a socket with an unknown name is a main listener", curl(f"http://127.0.0.1:{port}/healthz"), "OK\n")
    check("… and so is a second one", '"peer"' in curl(f"http://127.0.0.1:{other}/whoami"))
    equal("SIGTERM: exit code again", stop(process), 0)


def accept_yes():
    """With Accept=yes the descriptor is a connection: refused with a message."""
    if not ACTIVATE:
        return not_run("Accept=yes", "systemd-socket-activate is missing: apt install systemd")
    port = harness.free_port()
    log = open(SCRATCH / "accept.log", "w+b")
    process = launch([ACTIVATE, "--accept", "-l", f"127.0.0.1:{port}", str(BINARY), "--log-format", "text"],
                     stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=harness.clean_environment())
    end = time.monotonic() + 5
    while "Listening on" not in log_text(log) and time.monotonic() < end:
        time.sleep(0.01)
    curl(f"http://127.0.0.1:{port}/")
    while "Accept=no" not in log_text(log) and time.monotonic() < end:
        time.sleep(0.01)
    check("Accept=yes is refused with the remedy", "Accept=no" in log_text(log), log_text(log))
    process.kill()
    process.wait()


def notifications():
    """The sd_notify messages from start to stop."""
    path = SCRATCH / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(6)
        receive = lambda: manager.recv(4096).decode().splitlines()
        with Server(env={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "10000000"}) as server:
            equal("ready", receive(), ["READY=1", "STATUS=0 connections, 0 WebSockets", "WATCHDOG=1"])
            client = socket.create_connection(server.main)
            equal("a changed status, not at once", receive(), ["STATUS=1 connection, 0 WebSockets"])
            equal("the watchdog at half its time", receive(), ["WATCHDOG=1"])
            server.signal(signal.SIGHUP)
            check("reloading, with the clock", receive()[0] == "RELOADING=1")
            equal("ready again", receive(), ["READY=1"])
            server.signal()
            lines = receive()
            check("stopping, with the expected duration",
                  lines[0] == "STOPPING=1" and lines[1].startswith("EXTEND_TIMEOUT_USEC="), lines)
            client.close()
            equal("exit code", server.wait(), 0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"wspulse-{os.getpid()}"
        manager.bind("\0" + name)
        manager.settimeout(6)
        with Server(env={"NOTIFY_SOCKET": "@" + name}):
            equal("an abstract NOTIFY_SOCKET", manager.recv(4096).splitlines()[0], b"READY=1")


def idle():
    """With a service manager an idle server does not wake up."""
    path = SCRATCH / "quiet"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        with Server(env={"NOTIFY_SOCKET": str(path)}) as server:
            time.sleep(0.3)
            before = switches(server.process.pid)
            time.sleep(4)
            equal("wake-ups in 4 s of an idle server with a service manager",
                  switches(server.process.pid) - before, 0)


def switches(pid):
    """Voluntary context switches of the main thread."""
    status = open(f"/proc/{pid}/task/{pid}/status").read()
    return int(status.split("voluntary_ctxt_switches:")[1].split()[0])


def health():
    path = SCRATCH / "health.sock"
    with Server(main=f"unix:{path}") as server:
        equal("healthcheck of a Unix socket", wspulse("healthcheck", f"unix:{path}"),
              (0, f"unix:{path} /healthz: 200 OK\n", ""))
        equal("curl of a Unix socket", curl("--unix-socket", str(path), "http://localhost/healthz"), "OK\n")
        equal("SIGTERM: exit code of a server on a Unix socket", server.stop(), 0)
        check("its socket file is removed", not path.exists())
    with Server() as server:
        best_ms = 1000.0
        for _ in range(20):
            began = time.perf_counter()
            wspulse("healthcheck", server.url("", "admin"))
            best_ms = min(best_ms, (time.perf_counter() - began) * 1000)
        check(f"healthcheck from exec to exit, best of 20: {best_ms:.1f} ms, at most 5", best_ms <= 5)


def main():
    harness.require_binary()
    install()
    if "--install" in os.sys.argv:
        return
    for group in (activation, accept_yes, notifications, idle, health):
        section(group)
    harness.finish()


main()
