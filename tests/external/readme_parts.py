"""A shell in namespaces of its own, where the documents' commands run as they stand: the ports 8080 and
8081 are free there, the host is called my-host, and 10.0.0.7 and `my.ingress` are this host.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import harness
import tools
from harness import ROOT, SCRATCH
from terminal import Terminal

PYTHON = tools.venv("readme", ["websockets>=17,<18", "hdrhistogram==0.10.8", "awscli>=1.40,<2"])
NODE = tools.npm(["wscat@6", "ws@8"])
for program, package in (("ip", "iproute2"), ("nginx", "nginx-light"), ("jq", "jq"), ("kubectl", "kubernetes-client"),
                         ("systemd-socket-activate", "systemd"), ("openssl", "openssl"), ("curl", "curl")):
    tools.apt(program, package)

STANDS = f"{sys.executable} -B {ROOT}/tests/external/readme_stands.py"
ENTER = ["unshare", *([] if os.getuid() == 0 else ["--user", "--map-root-user"]), "--net", "--mount", "--uts",
         "--pid", "--fork", "--kill-child", "--mount-proc"]
SET_UP = """set -e
cd "$1"
ip link set lo up
ip address add 10.0.0.7/32 dev lo
hostname my-host
mount -t tmpfs none /run
mount --bind ../hosts /etc/hosts
stty -echo cols 100
exec setsid --ctty bash --norc --noprofile --noediting -i"""
PROMPT = re.compile(r"⟦(\d+)⟧")
CTRL_C, CTRL_D, CTRL_Z = "\x03", "\x04", "\x1a"
# Programs that read lines from the terminal, unless their input is a file or a pipe.
READS_LINES = re.compile(r"(?!.*[<|] )(wspulse connect|wscat|python -m websockets)\b")
# Longer waits are shortened to these, unless `--all` is given.
LONGEST = {"--duration": "2s", "--hold": "2s", "--wait": "2s", "--patience": "4s", "--messages": "1"}
# When the ingress cuts idle sockets, and how long a probe waits whose report is compared: longer than the
# 20 s between the pings of a server, on which the report depends.
IDLE_S, PATIENCE_S, IDLE_SHORT_S, PATIENCE_SHORT_S = 60, 70, 42, 45


def prepare():
    """Programs under the names that the documents use, and the names of hosts."""
    programs = SCRATCH / "bin"
    programs.mkdir()
    (SCRATCH / "hosts").write_text("127.0.0.1 localhost my-host my.ingress app.example\n")
    (programs / "wspulse").symlink_to(harness.BINARY)
    scripts = {"wscat": f"exec node {NODE}/node_modules/wscat/bin/wscat --no-color \"$@\"",
               "aws": f"exec {PYTHON} -m awscli \"$@\"",
               # In the project's folder, but what the shell redirects goes into its own.
               "cargo": f"cd {ROOT} && exec {shutil.which('cargo')} --quiet \"$@\""}
    for name, text in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    certificate("ingress", "my.ingress", "app.example")


def certificate(name, *hosts):
    names = ",".join(f"DNS:{host}" for host in hosts)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "90", "-subj", f"/CN={hosts[0]}", "-addext", f"subjectAltName={names}",
                    "-addext", "basicConstraints=CA:FALSE", "-keyout", SCRATCH / f"{name}.key",
                    "-out", SCRATCH / f"{name}.crt"], check=True, capture_output=True)


def shortened(command, whole):
    """The command with shorter waits, so that all documents take less than a minute."""
    def shorter(found):
        flag, value = found.groups()
        return f"{flag} {min(value, LONGEST[flag], key=amount)}"
    return command if whole else re.sub(rf"({'|'.join(LONGEST)}) (\d\w*)", shorter, command)


def amount(value):
    number, unit = re.fullmatch(r"(\d+)(\w*)", value).groups()
    return int(number) * {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


class Shell(Terminal):
    """An interactive bash, a line at a time: `run` types a command and waits for the next prompt."""

    def __init__(self, name, whole):
        self.home, self.whole, self.budget_s = SCRATCH / name, whole, 3600 if whole else 60
        self.home.mkdir()
        for entry in ("deploy", "docs", "fuzz", "target", "tests"):
            (self.home / entry).symlink_to(ROOT / entry)
        path = f"{SCRATCH}/bin:{PYTHON.parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
        env = harness.clean_environment({"PATH": path, "PS1": "⟦$?⟧", "PS2": "", "LC_ALL": "C.UTF-8",
                                         "WSPULSE_LOG_LEVEL": "error"})
        super().__init__(*ENTER, "sh", "-c", SET_UP, "sh", self.home, env=env)
        if self.prompt(0, 10) is None:
            raise RuntimeError(f"no prompt: {self.seen}")

    # ---- commands ----

    def run(self, command):
        """Types a command; its exit status (None: no end, 'serves': a server in the foreground, which
        continues in the background) and its output."""
        mark, before, end = len(self.seen), self.listeners(), time.monotonic() + max(self.budget_s, 300 if "cargo" in command else 0)
        self.type(command + "\n")
        while (status := self.prompt(mark, 0.2)) is None and time.monotonic() < end:
            if self.listeners() - before and self.settled():
                # Not what the command itself answers later.
                if (status := self.prompt(mark, 0.5)) is None:
                    self.type(CTRL_Z)
                    self.prompt(mark, 5)
                    return ("serves" if self.run("bg")[0] == 0 else None), self.output(mark)
                break
        if status is None:
            self.type(CTRL_C)
            self.prompt(mark, 5)
        return status, self.output(mark)

    def converse(self, command, lines, end):
        """Types a command that reads lines, then each `> …` of the lines, and waits for each of the others.
        `end` says whether Ctrl-D or a signal to the servers ends it."""
        mark = len(self.seen)
        self.type(command + "\n")
        self.wait(mark, lambda seen: "onnected" in seen or PROMPT.search(seen), 15)
        for line in lines:
            if line.startswith("> "):
                self.wait(mark, lambda _: False, 0.3)
                self.type(line[2:] + "\n")
            elif not line.startswith("Connection closed"):
                self.wait(mark, lambda seen: shape(line) in map(shape, plain(seen).splitlines()), 5)
        self.wait(mark, lambda seen: PROMPT.search(seen), 0.7)
        if end == "terminate":
            for pid in self.servers():
                os.kill(pid, signal.SIGTERM)
            self.wait(mark, lambda seen: PROMPT.search(seen) or "1001" in seen, 5)
        for key in (CTRL_D, CTRL_C):
            if self.prompt(mark, 0) is None:
                self.type(key)
                self.prompt(mark, 3)
        return self.prompt(mark, 0), self.output(mark)

    def stop_jobs(self, only=""):
        """Ctrl-C for each job whose command has this text; those that did not end with 0 or by the signal."""
        wrong = []
        for number, command in re.findall(r"^\[(\d+)\][+-]?\s+Running\s+(.*)$", self.run("jobs")[1], re.M):
            if only not in command:
                continue
            mark, shell = len(self.seen), os.tcgetpgrp(self.screen)
            self.type(f"fg %{number}\n")
            # bash prints the command before it gives the terminal away: Ctrl-C would be for bash until then.
            harness.until(lambda: os.tcgetpgrp(self.screen) != shell, 5)
            self.type(CTRL_C)
            if (status := self.prompt(mark, 15)) not in (0, 128 + signal.SIGINT):
                wrong.append((command, status, self.output(mark)))
        return wrong

    # ---- what is on the screen ----

    def prompt(self, mark, budget_s):
        """The status that the next prompt shows."""
        self.wait(mark, lambda seen: PROMPT.search(seen), budget_s)
        found = PROMPT.findall(self.seen[mark:])
        return int(found[-1]) if found else None

    def wait(self, mark, what, budget_s):
        end = time.monotonic() + budget_s
        while not what(self.seen[mark:]) and (left := end - time.monotonic()) > 0 and self.read(min(left, 0.1)):
            pass

    def output(self, mark):
        return plain(self.seen[mark:])

    # ---- the namespaces, from outside ----

    def listeners(self):
        """(port, inode) of each listening TCP socket."""
        found = set()
        for name in ("tcp", "tcp6"):
            with contextlib.suppress(OSError):
                for row in Path(f"/proc/{self.process.pid}/net/{name}").read_text().splitlines()[1:]:
                    fields = row.split()
                    if fields[3] == "0A":
                        found.add((int(fields[1].rpartition(":")[2], 16), fields[9]))
        return found

    def settled(self):
        """Waits until the listening sockets are the same for 0.3 s."""
        seen = None
        while seen != (seen := self.listeners()):
            time.sleep(0.3)
        return True

    def servers(self):
        """Process ids of the servers that its commands started, not of those behind the ingress."""
        inside, found = os.readlink(f"/proc/{self.process.pid}/ns/net"), []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if os.readlink(entry / "ns" / "net") == inside and words[0].endswith(b"wspulse") \
                        and words[1:2] not in ([b"connect"], [b"--listen"]):
                    found.append(int(entry.name))
        return found


def plain(seen):
    """Output without prompts, the shell's own lines about jobs, and control sequences."""
    seen = re.sub(r"\x1b(?:\[[\d;?]*[A-Za-z]|[78])", "", PROMPT.sub("", seen)).replace("\r\n", "\n")
    # A line that is written again, such as the progress of `load`, counts as last written.
    lines = (line.rstrip("\r").rpartition("\r")[2].removeprefix("> ") for line in seen.split("\n"))
    return "\n".join(line for line in lines if line.strip() and not re.match(r"\[\d+\][+-]?\s+(\d+$|Done)", line))


# A number with its unit, or a word that has one, such as `p99.9`.
NUMBER = re.compile(r"\d[\d.,]*(?: ?(?:%|ns|µs|ms|min|[smh]|[KMG]?i?B|/s)(?!\w))?")
BAR = re.compile(r"[▏▎▍▌▋▊▉█]+")
POD = re.compile(r"\bweb-(?:7d9f|5x2k|c81p)\b")


def shape(line):
    """What must be equal of two lines of output: all but numbers, bars and spaces, and which pod answered."""
    return " ".join(NUMBER.sub("#", BAR.sub("", POD.sub("POD", line))).split())


def shapes(text):
    """The shapes of an output. Consecutive lines of one shape count as one, as those of a histogram; the
    remark that a busy machine limited `load` does not count."""
    found = []
    for line in text.splitlines():
        if line.strip() and " the limit" not in line and not line.startswith("> ") and shape(line) not in found[-1:]:
            found.append(shape(line))
    return found


def same(wanted, got):
    """Whether the shapes are equal; a line `…` stands for any number of lines."""
    if "…" not in wanted:
        return wanted == got
    at = wanted.index("…")
    head, rest = wanted[:at], wanted[at + 1:]
    return head == got[:at] and any(same(rest, got[start:]) for start in range(at, len(got) + 1))
