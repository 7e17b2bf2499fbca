"""Shared by all external checks: one line per check, and a server under test.

The binary is $WSPULSE, else the release build. All files go into a temporary folder.
It knows nothing of WebSocket; `tools` installs the programs that a check needs.
"""

import asyncio
import atexit
import contextlib
import contextvars
import itertools
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("WSPULSE") or ROOT / "target" / "release" / "wspulse").resolve()
SCRATCH = Path(tempfile.mkdtemp(prefix="wspulse-external-"))

_counts = {"passed": 0, "failed": 0, "not run": 0}
_running = []
_numbers = itertools.count()
# Results of a first attempt, not counted yet.
_first_try = contextvars.ContextVar("first try", default=None)


# ---- one line per check ---------------------------------------------------------------------

def check(what, ok, detail=""):
    """Prints and counts one result; `detail` is the actual outcome."""
    if (tried := _first_try.get()) is not None:
        tried.append(bool(ok))
        print(f"# {what}: {'ok' if ok else f'not at the first attempt: {one_line(detail)}'}", flush=True)
        return bool(ok)
    _counts["passed" if ok else "failed"] += 1
    say(f"ok - {what}" if ok else f"not ok - {what}: {one_line(detail)}")
    return bool(ok)


def equal(what, got, wanted):
    """A check that prints both values if they differ."""
    return check(what, got == wanted, f"expected {wanted!r}, got {got!r}")


def not_run(what, why):
    """Reports a check that this machine cannot run, instead of skipping it silently."""
    _counts["not run"] += 1
    say(f"NOT RUN - {what}: {one_line(why)}")


def say(line):
    """Prints a line in one piece, although other threads print."""
    print(line + "\n", end="", flush=True)


def one_line(text, most=600):
    flat = " | ".join(str(text).split("\n")).strip(" |")
    return flat if len(flat) <= most else flat[:most] + " …"


def section(run, *args):
    """Runs one group of checks; an exception is one failed check, and the other groups still run."""
    try:
        _to_its_end(run(*args))
    except Exception as error:  # any error: the other groups still run
        where = traceback.extract_tb(error.__traceback__)[-1]
        check(f"{run.__name__} runs to its end", False,
              f"{type(error).__name__}: {error} (line {where.lineno})")


def _to_its_end(work):
    if asyncio.iscoroutine(work):
        asyncio.run(asyncio.wait_for(work, 60))


def timed_section(run, *args):
    """A group that measures times. Other work on the machine can spoil them, so a group that fails is
    run once more, and then it must pass. Both results are printed."""
    with FirstTry() as first:
        _to_its_end(run(*args))
    if not first.held:
        section(run, *args)


class FirstTry:
    """Checks inside are counted only if all of them pass; otherwise `held` is False and none counts."""

    def __enter__(self):
        self.results, self.held = [], False
        self.token = _first_try.set(self.results)
        return self

    def __exit__(self, kind, error, _):
        _first_try.reset(self.token)
        if isinstance(error, Exception):
            print(f"# the first attempt: {kind.__name__}: {one_line(error)}", flush=True)
        self.held = error is None and all(self.results)
        _counts["passed"] += len(self.results) if self.held else 0
        return isinstance(error, Exception)


def finish():
    """Prints the totals and exits. CI reads the last line."""
    if _counts["not run"]:
        print(f"{_counts['not run']} not run")
    print(f"{_counts['passed']} passed, {_counts['failed']} failed", flush=True)
    sys.exit(1 if _counts["failed"] or not _counts["passed"] else 0)


# ---- the server under test ----------------------------------------------------------------------

def clean_environment(extra=None):
    """The environment without the variables that the server reads: an unknown WSPULSE_* variable is an
    error, and KUBERNETES_SERVICE_HOST would choose another drain profile."""
    dropped = ("WSPULSE", "KUBERNETES_", "POD_", "NODE_NAME", "ZONE", "PORT", "RUST_LOG",
               "LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
               "http_proxy", "https_proxy", "no_proxy")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    return kept | (extra or {})


def records(log_text):
    """The complete JSON lines of a log."""
    for line in log_text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # a panic, or the line is still being written
            continue
        if isinstance(record, dict):
            yield record


def listening(log_text):
    """Reads the banner: {"main": (host, port), "admin": (host, port)} as far as it is written so far."""
    listeners = {}
    for record in records(log_text):
        if record.get("message") == "listening":
            host, port = record["address"].rsplit(":", 1)
            address = record["address"] if host == "unix" else (host.strip("[]"), int(port))
            listeners.setdefault(record["listener"], address)
    return listeners


class Server:
    """One wspulse on free loopback ports; `with` stops it, also after an exception."""

    def __init__(self, *args, env=None, main="127.0.0.1:0", admin="127.0.0.1:0", budget_s=10,
                 prefix=()):
        self.log = SCRATCH / f"server-{next(_numbers)}.log"
        command = [*prefix, str(BINARY), "--listen", main, "--admin-listen", admin,
                   "--log-format", "json", *args]
        started = time.monotonic()
        with open(self.log, "wb") as log:
            self.process = launch(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                  env=clean_environment(env))
        self._wait_for_banner({"main"} if admin == "off" else {"main", "admin"}, budget_s)
        self.started_ms = (time.monotonic() - started) * 1000
        self.main, self.admin = self.listeners["main"], self.listeners.get("admin")

    def _wait_for_banner(self, listeners, budget_s):
        end = time.monotonic() + budget_s
        while not listeners <= set(listening(self.log_text())):
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"no banner from {BINARY}, exit code "
                                   f"{self.process.returncode}: {self.log_text()[:500]}")
            time.sleep(0.002)
        self.listeners = listening(self.log_text())

    def log_text(self):
        return self.log.read_text(errors="replace")

    def record(self, message):
        """The first log line with this message."""
        return next((r for r in records(self.log_text()) if r.get("message") == message), None)

    def url(self, path="/", listener="main", scheme="http"):
        host, port = self.listeners[listener]
        return f"{scheme}://{host}:{port}{path}"

    def ws(self, path="/echo"):
        return self.url(path, scheme="ws")

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, budget_s=15):
        """Exit code, or None if it still runs after the budget."""
        try:
            return self.process.wait(budget_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, budget_s=15):
        self.signal()
        return self.wait(budget_s)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def until(what, budget_s=10):
    """Waits until `what()` is true; returns whether it became true in time."""
    end = time.monotonic() + budget_s
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return False


def launch(command, **popen):
    """Starts a process that is killed when this script ends."""
    process = subprocess.Popen(command, **popen)
    _running.append(process)
    return process


def wspulse(*args, env=None, budget_s=5, **popen):
    """Runs the binary; returns exit code (None: killed after the budget), stdout, stderr."""
    process = launch([BINARY, *args], env=clean_environment(env), **{
        "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | popen)
    try:
        out, err = process.communicate(timeout=budget_s)
        code = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        code = None
    return code, (out or b"").decode(errors="replace"), (err or b"").decode(errors="replace")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def black_hole():
    """A port whose accept queue is full: the kernel drops each SYN, so connecting gets no answer."""
    with socket.socket() as listener, socket.socket() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting.connect(listener.getsockname())
        yield listener.getsockname()[1]


def raise_descriptor_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def require_binary():
    if not os.access(BINARY, os.X_OK):
        check(f"{BINARY} exists", False, "cargo build --release, or set $WSPULSE")
        finish()


# By default SIGTERM would end Python without its exit functions and leave servers running.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@atexit.register
def _clean_up():
    for process in _running:
        if process.poll() is None:
            process.kill()
    shutil.rmtree(SCRATCH, ignore_errors=True)
