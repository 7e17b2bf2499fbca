"""What `probe.py` runs: the command, servers behind proxies with edited recipes, and certificates."""

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import harness
from harness import BINARY, SCRATCH, Server, clean_environment
from probe_hops import HOWS
from recipes import Proxy

PATIENCE_S = 8
# The severity of each finding, from the contract.
SEVERITIES = {
    "error": "dead-address tls-wrong-name tls-expired tls-untrusted tls-chain-incomplete tls-failed "
             "h2-connect-fails unreachable "
             "upgrade-page upgrade-redirect upgrade-400 upgrade-401 upgrade-403 upgrade-404 upgrade-dropped "
             "upgrade-502 upgrade-503 upgrade-504 upgrade-other upgrade-timeout upgrade-accept size-limit "
             "message-changed ping-unanswered compression-broken drain-cut drain-no-effect http-10-hop",
    "warning": "address-differs tls-expires-soon host-rewritten path-rewritten query-rewritten "
               "subprotocol-lost foreign-origin fragments-joined ping-answered-by-hop compression-stripped "
               "buffered close-code-changed close-reason-lost close-lost close-slow uneven head-limit "
               "socket-limit drain-slow",
    "info": "client-address-lost fields-added half-close-cut hops-named slashes-merged sticky",
}
SEVERITY = {name: severity for severity, names in SEVERITIES.items() for name in names.split()}
WHOSE = ("silent", "client", "server", "client-pings", "server-pings")
SEVERITY |= {f"idle-{who}-{how}": "error" for who in WHOSE for how in HOWS}
SEVERITY |= {f"age-{how}": "error" for how in HOWS}


# ---- the command --------------------------------------------------------------------------------

@dataclass
class Run:
    code: int
    report: dict
    stderr: str
    seconds: float
    late: bool

    def found(self):
        return {finding["id"]: finding for finding in self.report.get("findings", [])}


async def probe(url, *flags, prefix=(), budget_s=30):
    """A report, of what is known so far if it takes longer than the budget."""
    began, late = time.monotonic(), False
    process = await asyncio.create_subprocess_exec(
        *prefix, str(BINARY), "probe", url, "--json", *map(str, flags), env=clean_environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, limit=1 << 24)
    output = asyncio.ensure_future(process.communicate())
    try:
        if not (await asyncio.wait([output], timeout=budget_s))[0]:
            late = True
            process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(output, 5)
    finally:
        if process.returncode is None:
            process.kill()
    seconds, report, said = time.monotonic() - began, {}, err.decode(errors="replace")
    try:
        report = json.loads(out)
    except ValueError:
        said += out.decode(errors="replace")
    return Run(process.returncode, report, said, seconds, late)


# ---- what is planted ----------------------------------------------------------------------------

@dataclass
class Target:
    url: str
    flags: tuple = ()
    prefix: tuple = ()


async def started(*args, **options):
    return await asyncio.to_thread(lambda: Server(*args, **options))


def direct(*server, path="/echo", flags=()):
    """No proxy."""
    @contextlib.asynccontextmanager
    async def planted():
        with await started(*server) as far:
            yield Target(far.ws(path), tuple(flags))
    return planted


def behind(snippet, *edits, flags=(), server=(), path="/echo", ready=b" 200 ", probe_flags=(), tls=False):
    """A proxy with an edited recipe. `tls`: the edits make it serve the certificate `good`."""
    @contextlib.asynccontextmanager
    async def planted():
        with await started(*server) as far:
            async with in_front(Proxy(snippet, far.main[1], edits, flags), ready, tls) as proxy:
                scheme, more = ("wss", ("--ca-file", authority())) if tls else ("ws", ())
                yield Target(f"{scheme}://127.0.0.1:{proxy.port}{path}", (*more, *probe_flags))
    return planted


@contextlib.asynccontextmanager
async def in_front(proxy, ready=b" 200 ", tls=False):
    try:
        if not await proxy.ready(ready, tls):
            raise RuntimeError(f"{proxy.name} does not start: {proxy.tail()}")
        yield proxy
    finally:
        proxy.stop()
        await asyncio.to_thread(proxy.process.wait, 10)


@contextlib.asynccontextmanager
async def running(expression, upstream):
    """The port of a hop of `probe_hops.py`, in its own process."""
    script = Path(__file__).with_name("probe_hops.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-B", str(script), str(upstream), expression,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield int(await asyncio.wait_for(process.stdout.readline(), 20))
    finally:
        process.stdin.close()
        await process.wait()


def hop(fault, *server):
    """A hop of ours with this fault, an expression of `probe_hops.py`."""
    @contextlib.asynccontextmanager
    async def planted():
        with await started(*server) as far:
            async with running(f"Hop(port, {fault})", far.main[1]) as port:
                yield Target(f"ws://127.0.0.1:{port}/echo")
    return planted


@contextlib.asynccontextmanager
async def listener(serve, host="127.0.0.1", port=0):
    """Calls `serve(reader, writer)` for each connection; yields the port."""
    tasks = set()

    async def accept(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            await serve(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(asyncio.current_task())
            writer.close()

    server = await asyncio.start_server(accept, host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# ---- names --------------------------------------------------------------------------------------

def with_hosts(text):
    """A command prefix that gives a process its own /etc/hosts; None if this machine cannot."""
    hosts = SCRATCH / f"hosts-{abs(hash(text))}"
    hosts.write_text("127.0.0.1 localhost\n" + text)
    prefix = ("unshare", "--mount", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh")
    tried = subprocess.run([*prefix, "true"], capture_output=True, timeout=10)
    return None if tried.returncode else prefix


# ---- certificates -------------------------------------------------------------------------------

CERTIFICATES = {}  # name -> (certificate, key)


def openssl(*args):
    done = subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"openssl {args[0]}: {done.stderr[-300:]}")


def authority():
    return SCRATCH / "ca.pem"


def certificates():
    """Signed by our CA: `good`, `soon` with 5 days left, `expired`, and `other` for another name.
    `itself` is not."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *curve, "-days", "90", "-subj", "/CN=probe CA", "-keyout", SCRATCH / "ca.key",
            "-out", authority())
    ours = "DNS:localhost,IP:127.0.0.1"
    for name, days, names in (("good", 60, ours), ("soon", 5, ours), ("expired", 0, ours),
                              ("other", 60, "DNS:other.example")):
        cert, key, request = (SCRATCH / f"{name}.{suffix}" for suffix in ("pem", "key", "csr"))
        openssl("req", *curve, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        extensions = SCRATCH / f"{name}.extensions"
        extensions.write_text(f"subjectAltName={names}\nbasicConstraints=CA:FALSE\n")
        openssl("x509", "-req", "-in", request, "-CA", authority(), "-CAkey", SCRATCH / "ca.key",
                "-CAcreateserial", "-days", days, "-extfile", extensions, "-out", cert)
        # HAProxy reads both from one file.
        (SCRATCH / f"{name}.both").write_text(cert.read_text() + key.read_text())
        CERTIFICATES[name] = (str(cert), str(key))
    cert, key = SCRATCH / "itself.pem", SCRATCH / "itself.key"
    openssl("req", "-x509", *curve, "-days", "60", "-subj", "/CN=itself", "-addext", f"subjectAltName={ours}",
            "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", cert)
    CERTIFICATES["itself"] = (str(cert), str(key))


def served_with(name, trusted=True):
    """wspulse itself with this certificate."""
    @contextlib.asynccontextmanager
    async def planted():
        cert, key = CERTIFICATES[name]
        with await started("--tls-cert", cert, "--tls-key", key) as far:
            ca = ("--ca-file", authority()) if trusted else ()
            yield Target(far.url("/echo", scheme="wss").replace("127.0.0.1", "localhost"),
                         ("--connect-to", f"127.0.0.1:{far.main[1]}", *ca))
    return planted


# ---- judging ------------------------------------------------------------------------------------

def plain(text):
    return re.sub(r"[^a-z0-9]", "", str(text).lower())


def judge(run, case):
    """What is wrong with a report: ("missed" | "false alarm" | "wrong", text) each."""
    if run.report.get("schema") != 1:
        return [("missed", f"no report: exit code {run.code}, {harness.one_line(run.stderr, 300)}")]
    problems, found = [], run.found()
    if run.late:
        problems.append(("wrong", f"it did not end within {run.seconds:.0f} s"))
    wanted = {name for names in case.wanted for name in names.split("|")}
    for names, (product, remedy) in case.wanted.items():
        # One of several, where the proxy itself does now this and now that.
        name = next((each for each in names.split("|") if each in found), None)
        if name is None:
            problems.append(("missed", f"{names} is not among {sorted(found)}"))
            continue
        finding = found[name]
        if product and not any(plain(product) in plain(each) for each in finding["hops"]):
            problems.append(("wrong", f"{name}: {product} is not among {finding['hops']}"))
        if remedy and not re.search(remedy, finding["remedy"]):
            problems.append(("wrong", f"{name}: no {remedy} in the remedy {finding['remedy']!r}"))
    for name, finding in found.items():
        if name not in SEVERITY:
            problems.append(("wrong", f"{name} is not in the contract"))
        elif finding["severity"] != SEVERITY[name]:
            problems.append(("wrong", f"{name} is {finding['severity']}, not {SEVERITY[name]}"))
        if finding["severity"] != "info" and name not in wanted and name not in case.also:
            problems.append(("false alarm", f"{name}: {finding['evidence']}"))
        for field in ("title", "evidence", "remedy"):
            if finding["severity"] != "info" and not finding.get(field):
                problems.append(("wrong", f"{name} has no {field}"))
    for experiment in run.report["experiments"]:
        after_s = experiment["figures"].get("cut_after_s")
        # All are planted at 5 s; Envoy closes a second later.
        if experiment["result"] == "finding" and after_s and not 4.5 <= after_s <= 6.5:
            problems.append(("wrong", f"{experiment['id']}: cut after {after_s} s"))
    named = [hop["name"].lower() for hop in run.report["path"] if hop["role"] == "hop"]
    if case.path is not None and named != case.path:
        problems.append(("wrong", f"the path has the hops {named}, not {case.path}"))
    errors = any(each["severity"] == "error" for each in found.values())
    if run.code != (case.code if case.code is not None else 3 if errors else 0):
        problems.append(("wrong", f"exit code {run.code} with {sorted(found)}"))
    return problems
