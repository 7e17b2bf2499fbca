#!/usr/bin/env -S python3 -B
"""deploy/systemd: the units checked by systemd-analyze, and run by a systemd in a container.

    tests/external/units.py

PID 1 of this machine may not be systemd, so a container runs the machine's systemd as its PID 1,
with these units only: readiness, watchdog, sandbox, socket activation, stop.
"""

import re
import shutil
import signal
import socket
import subprocess
import time

import podman
import tools

tools.apt("systemd-analyze", "systemd")
tools.apt("curl", "curl")
podman.install()
tools.install_only()

import harness
from crowd import Crowd
from harness import BINARY, ROOT, SCRATCH, check, equal, not_run, section, until
from machine import Machine

FOLDER = ROOT / "deploy" / "systemd"
UNITS = ("wspulse.service", "wspulse.socket")
MOST_EXPOSED = 1.5
WATCHDOG_S = 5
PROCESS = {f"process_{what}" for what in ("open_fds", "max_fds", "resident_memory_bytes",
                                          "cpu_seconds_total", "start_time_seconds")}
# Only the units under test, without the services that set up a machine.
ALONE = "[Unit]\nDefaultDependencies=no\n"
LOG = "append:/run/wspulse.log"
LOGGED = f"[Service]\nStandardOutput={LOG}\nStandardError={LOG}\n"


# ---- checked -------------------------------------------------------------------------------------

def units():
    folder = SCRATCH / "units"
    folder.mkdir()
    for name in UNITS:
        text = (FOLDER / name).read_text()
        (folder / name).write_text(text.replace("/usr/local/bin/wspulse", str(BINARY)))
        code, output = analyze("verify", folder / name)
        check(f"systemd-analyze verify {name} prints nothing", code == 0 and not output, output)
    wrong = folder / "wrong.service"
    wrong.write_text((folder / "wspulse.service").read_text().replace("UMask", "UMasks"))
    check("… but reports a misspelt key", "UMasks" in analyze("verify", wrong)[1])
    code, output = analyze("security", "--offline=true", folder / "wspulse.service")
    level = re.search(r"exposure level for \S+: (\d+\.\d)", output)
    check(f"systemd-analyze security: exposed {level and level[1]}, at most {MOST_EXPOSED}",
          level and float(level[1]) <= MOST_EXPOSED, output)


def analyze(*args):
    run = subprocess.run(["systemd-analyze", "--no-pager", *map(str, args)], text=True, timeout=60,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return run.returncode, run.stdout.strip()


def variables():
    """wspulse accepts each line of wspulse.env, also those commented out."""
    text = (FOLDER / "wspulse.env").read_text()
    lines = re.findall(r"^#?(WSPULSE_\w+)=(.*)$", text, re.MULTILINE)
    code, _, err = harness.wspulse("--check", env=dict(lines))
    equal(f"wspulse.env: wspulse --check finds nothing in {len(lines)} variables", (code, err),
          (0, ""))


def activation():
    """systemd-socket-activate passes a socket with the name from the unit."""
    name = re.search(r"^FileDescriptorName=(.*)$", (FOLDER / "wspulse.socket").read_text(), re.M)[1]
    port = harness.free_port()
    log = SCRATCH / "activated.log"
    with open(log, "wb") as out:
        process = harness.launch(
            ["systemd-socket-activate", f"--listen=127.0.0.1:{port}", f"--fdname={name}", BINARY,
             "--admin-listen", "off", "--log-format", "json"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=harness.clean_environment())
    until(lambda: "Listening on" in log.read_text(), 5)
    crowd = Crowd(10, ("127.0.0.1", port))
    crowd.run_until(lambda peer: peer.end or peer.echoes, 5)
    equal(f"socket activation as {name!r}: the first connections start the server and are served",
          crowd.count("stage", "end"), {("echoed", None): 10})
    process.send_signal(signal.SIGTERM)
    crowd.run_until(lambda peer: peer.end, 5)
    equal("… SIGTERM: 1001 and exit code 0",
          (crowd.count("close_code"), process.wait(10)), ({1001: 10}, 0))
    crowd.leave()


# ---- run -----------------------------------------------------------------------------------------

class Units(Machine):
    """Our units alone, with the machine's /usr."""

    def __init__(self, name):
        tree = SCRATCH / name / "tree"
        system = tree / "etc" / "systemd" / "system"
        for folder in ("usr", "opt", "proc", "sys", "dev", "run", "tmp", "root", "var/lib"):
            (tree / folder).mkdir(parents=True)
        for link in ("bin", "sbin", "lib", "lib64"):
            (tree / link).symlink_to(f"usr/{link}")
        for unit in UNITS:
            (system / f"{unit}.d").mkdir(parents=True)
            text = (FOLDER / unit).read_text()
            (system / unit).write_text(text.replace("/usr/local/bin/wspulse", "/opt/wspulse"))
            alone = ALONE + (LOGGED if unit.endswith(".service") else "")
            (system / f"{unit}.d" / "alone.conf").write_text(alone)
        (system / "default.target").write_text(ALONE)
        for file in ("passwd", "group", "nsswitch.conf"):
            shutil.copy(f"/etc/{file}", tree / "etc" / file)
        (tree / "etc" / "machine-id").write_text("")
        shutil.copy(FOLDER / "wspulse.env", tree / "etc" / "wspulse.env")
        # Faults, for the frozen loop and the exit with 69.
        with open(tree / "etc" / "wspulse.env", "a") as env:
            env.write("WSPULSE_FAULTS=true\nWSPULSE_LOG_FORMAT=json\n")
        shutil.copy(BINARY, tree / "opt" / "wspulse")
        code, output = podman.image_of(name, tree, "ENV container=podman")
        if code:
            raise RuntimeError(output)
        super().__init__(name, name, "--volume", "/usr:/usr:ro")

    def log(self):
        return self.run("cat", "/run/wspulse.log")[1]


def at_work(machine):
    code, output = machine.systemctl("start", "wspulse.service")
    if not check("systemctl start: ready by notification (Type=notify)",
                 code == 0 and machine.is_up(), f"{output} {machine.status()} {machine.log()}"):
        return
    crowd = machine.crowd()
    equal("20 clients get their echo", crowd.count("stage", "end"), {("echoed", None): 20})
    check("STATUS has the connections", until(lambda: "20" in machine.show("StatusText"), 10),
          machine.show("StatusText"))
    sandbox(machine)
    since = time.monotonic()
    stopping = machine.launch("systemctl", "stop", "wspulse.service")
    crowd.run_until(lambda peer: peer.end, 10)
    stopping.wait(20)
    equal("systemctl stop: all are closed with 1001",
          crowd.count("close_code", "end"), {(1001, "eof"): 20})
    equal("… and the server exits with 0",
          (machine.show("Result"), machine.show("ExecMainStatus")), ("success", "0"))
    print(f"# systemctl stop took {time.monotonic() - since:.1f} s", flush=True)
    crowd.leave()


def sandbox(machine):
    """The process's sandbox as the kernel reports it, and the server's view from inside."""
    pid = machine.show("MainPID")
    status = dict(line.split(":\t", 1) for line in
                  machine.run("cat", f"/proc/{pid}/status")[1].splitlines() if ":\t" in line)
    check("sandbox: a dynamic user", 61184 <= int(status["Uid"].split()[0]) <= 65519,
          status["Uid"])
    equal("sandbox: no capabilities", {int(status[f"Cap{kind}"], 16) for kind in
                                       ("Inh", "Prm", "Eff", "Bnd", "Amb")}, {0})
    equal("sandbox: filter of system calls, no new privileges",
          (status["Seccomp"], status["NoNewPrivs"]), ("2", "1"))
    mounts = machine.run("cat", f"/proc/{pid}/mounts")[1].splitlines()
    roots = [line.split()[3] for line in mounts if line.split()[1] == "/"]
    check("sandbox: the file system is read-only", roots and roots[-1].startswith("ro"), mounts[:5])
    errors = [line for line in machine.log().splitlines() if '"level":"error"' in line]
    check("sandbox: the server logs no error", not errors, errors)
    who = machine.run("curl", "--silent", "http://127.0.0.1:8080/whoami")[1]
    host = machine.run("cat", "/proc/sys/kernel/hostname")[1].strip()
    check(f"sandbox: the server knows its host's name, {host}", f'"pod":"{host}"' in who, who)
    metrics = machine.run("curl", "--silent", "http://127.0.0.1:8081/metrics")[1]
    known = set(re.findall(r"^process_\w+", metrics, re.MULTILINE))
    equal("sandbox: the metrics of the process work", PROCESS - known, set())


def watchdog(machine):
    """A frozen server is killed and restarted."""
    machine.systemctl("start", "wspulse.service")
    pid = machine.show("MainPID")
    since = time.monotonic()
    machine.run("kill", "-STOP", pid)
    back = until(lambda: machine.is_up(but=pid), 3 * WATCHDOG_S)
    took_s = time.monotonic() - since
    check(f"a frozen server is restarted within {2 * WATCHDOG_S} s",
          back and took_s < 2 * WATCHDOG_S, f"{took_s:.1f} s, {machine.status()}")
    print(f"# the watchdog took {took_s:.1f} s", flush=True)
    pid = machine.show("MainPID")
    machine.run("kill", "-KILL", pid)
    check("a killed server is restarted", until(lambda: machine.is_up(but=pid), 5))
    machine.systemctl("stop", "wspulse.service")


def by_socket(machine):
    """systemd owns the port: a connection starts the server, and connections wait while it restarts."""
    machine.systemctl("start", "wspulse.socket")
    equal("socket: the server is not started yet", machine.show("ActiveState"), "inactive")
    crowd = machine.crowd()
    equal("socket: 20 connections start it and are served",
          crowd.count("stage", "end"), {("echoed", None): 20})
    check("socket: started by the socket unit", machine.is_up(), machine.status())
    restarting = machine.launch("systemctl", "restart", "wspulse.service")
    refused, asked = 0, time.monotonic()
    while restarting.poll() is None or time.monotonic() - asked < 1:
        try:
            socket.create_connection(("127.0.0.1", machine.port), 2).close()
        except OSError:
            refused += 1
        crowd.run_until(lambda peer: peer.end, 0.02)
    equal("socket: a restart refuses no connection", refused, 0)
    again = machine.crowd(5)
    equal("socket: the new process serves", again.count("stage", "end"), {("echoed", None): 5})
    for each in (crowd, again):
        each.leave()


def main():
    harness.require_binary()
    for group in (units, variables, activation):
        section(group)
    if why := podman.unusable():
        not_run("the units under systemd", why)
        harness.finish()
    try:
        machine = Units("systemd")
    except RuntimeError as error:
        not_run("the units under systemd", f"it does not start in a container here: {error}")
        harness.finish()
    with machine:
        for group in (at_work, watchdog, by_socket):
            section(group, machine)
    harness.finish()


main()
