#!/usr/bin/env -S python3 -B
"""`wspulse probe` through real proxies: nothing is found behind the recipes of deploy/proxy, and each
planted fault is named, with its product and its setting, and no other.

    tests/external/probe.py [WORD…]      only the cases whose names have one of these words
    PROBE_RUNS=20 tests/external/probe.py

`probe_cases.py` has the table, `probe_hops.py` and `probe_h2.py` the faulty hops.
"""

import asyncio
import collections
import contextlib
import json
import os
import re
import sys
import time
import traceback

import recipes
import tools

NODE = tools.npm(["wscat@6", "ws@8"])
tools.install_only()
tools.rerun_inside(recipes.PYTHON)

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

import harness
import probe_cases
import probe_parts
from harness import check, equal
from probe_parts import PATIENCE_S, probe

AT_ONCE = 6
BUSY_TRIES = 3
RUNS = int(os.environ.get("PROBE_RUNS", "1"))
WORDS = [word for word in sys.argv[1:] if not word.startswith("-")]
ALARMS = collections.Counter()


def chosen(name):
    return not WORDS or any(word in name for word in WORDS)


# ---- the table ----------------------------------------------------------------------------------

async def run_case(case):
    flags = ("--quick",) if case.quick else ("--patience", f"{PATIENCE_S}s")
    async with case.plant() as target:
        if target.prefix is None:
            return None
        return await probe(target.url, *flags, *target.flags, prefix=target.prefix,
                           budget_s=case.budget_s)


async def judge(case):
    """One line per case, and what went wrong by kind. A probe that says that this machine is too busy to
    tell is right, and asked again."""
    try:
        for _ in range(BUSY_TRIES):
            run = await run_case(case)
            if run is None:
                return harness.not_run(case.name, "no mount namespaces here")
            problems = probe_parts.judge(run, case)
            if not problems or "too busy" not in json.dumps(run.report):
                break
            print(f"# {case.name}: too busy to tell", flush=True)
    except Exception as error:  # any error: the other cases still run
        where = traceback.extract_tb(error.__traceback__)[-1]
        problems = [("broken", f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})")]
        run = None
    ALARMS.update(kind for kind, _ in problems)
    wanted = ", ".join(case.wanted) or "no finding"
    check(f"{case.name}: {wanted}", not problems, "; ".join(f"{kind}: {text}" for kind, text in problems))
    if run and problems and os.environ.get("PROBE_REPORTS"):
        name = re.sub(r"\W+", "-", case.name)
        (tools.Path(os.environ["PROBE_REPORTS"]) / f"{name}.json").write_text(json.dumps(run.report, indent=1))
    if run and not problems and os.environ.get("PROBE_SECONDS"):
        print(f"# {run.seconds:.1f} s", flush=True)


async def table():
    gate = asyncio.Semaphore(AT_ONCE)

    async def gated(case):
        async with gate:
            await judge(case)
    await asyncio.gather(*(gated(case) for case in probe_cases.all_cases() if chosen(case.name)))


def covered():
    """Each finding of the contract is planted, but those that need what a machine does not have."""
    planted = {name for case in probe_cases.all_cases() for names in case.wanted for name in names.split("|")}
    unplanted = {"drain-slow", "client-address-lost", "fields-added", "half-close-cut", "hops-named",
                 "slashes-merged"}
    # The other ways to cut such a socket are cut by the same code of the probe.
    unplanted |= {f"idle-{who}-{how}" for who in probe_parts.WHOSE[1:] for how in probe_parts.HOWS}
    equal("each finding is planted", set(probe_parts.SEVERITY) - planted - unplanted, set())


# ---- other servers ------------------------------------------------------------------------------

NPM = """const { WebSocketServer } = require('ws');
const server = new WebSocketServer({ host: '127.0.0.1', port: 0 }, () => console.log(server.address().port));
server.on('connection', (peer) => peer.on('message', (data, binary) => peer.send(data, { binary })));"""


async def echo(peer):
    with contextlib.suppress(ConnectionClosed):
        async for message in peer:
            await peer.send(message)


async def any_server(name, url, wanted):
    """Only what such a server really does may be claimed."""
    run = await probe(url, "--any", "--patience", f"{PATIENCE_S}s")
    found = {name for name, finding in run.found().items() if finding["severity"] != "info"}
    equal(f"--any, {name}: the far end", run.report.get("farEnd"), "other")
    check(f"--any, {name}: {', '.join(wanted)}", found == wanted, run.report.get("findings") or run.stderr)


async def npm_ws():
    process = await asyncio.create_subprocess_exec(
        "node", "-e", NPM, stdout=asyncio.subprocess.PIPE, env=os.environ | {"NODE_PATH": f"{NODE}/node_modules"})
    try:
        port = int(await process.stdout.readline())
        # It accepts any Origin. That it does not compress is no hop's doing.
        await any_server("npm ws", f"ws://127.0.0.1:{port}/", {"foreign-origin"})
    finally:
        process.kill()
        await process.wait()


async def python_websockets():
    async with serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await any_server("python websockets", f"ws://127.0.0.1:{port}/", {"foreign-origin"})


async def bare_page():
    async with probe_cases.answers(probe_cases.PAGE)() as target:
        await any_server("a page of nginx", target.url, {"upgrade-page"})


async def without_any():
    async with serve(echo, "127.0.0.1", 0) as server:
        run = await probe(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", "--quick")
        check("another server without --any: the report says what it cannot tell",
              run.report.get("farEnd") == "other" and "no wspulse" in json.dumps(run.report), (run.code, run.report))


# ---- cost ---------------------------------------------------------------------------------------

def cpu_s(pid):
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as stat:
        return int(stat.read().split()[0]) / 1e9


async def requests_of(far):
    status_and_rest = await recipes.get(far.admin[1], "/metrics")
    counts = re.findall(rb"^(?:http_requests_total|websocket_connections_total)\{[^}]*\} (\d+)$",
                        status_and_rest[1], re.MULTILINE)
    return sum(map(int, counts))


async def quick():
    with await probe_parts.started() as far:
        run = await probe(far.ws(), "--quick")
        count = await requests_of(far)
    print(f"# --quick: {run.seconds:.1f} s, {count} requests and WebSockets", flush=True)
    equal("--quick: exit code", run.code, 0)
    check("--quick: less than 5 s", run.seconds < 5, run.seconds)
    check("--quick: fewer than 200 requests", 0 < count < 200, count)


async def far_end_cpu():
    """The CPU of the far end: the whole of a run with a patience of 8 s, and what its waiting part costs
    a second, extended to the default patience of 70 s."""
    with await probe_parts.started() as far:
        began, before = time.monotonic(), cpu_s(far.process.pid)
        work = asyncio.ensure_future(probe(far.ws(), "--patience", f"{PATIENCE_S}s"))
        samples = []
        while not work.done():
            samples.append((time.monotonic() - began, cpu_s(far.process.pid) - before))
            await asyncio.wait([work], timeout=0.25)
        run = work.result()
        total_s = cpu_s(far.process.pid) - before
    # From 4 s on the other experiments have ended; the last second has their closing.
    idle = [sample for sample in samples if 4 <= sample[0] <= PATIENCE_S - 1]
    slope = (idle[-1][1] - idle[0][1]) / (idle[-1][0] - idle[0][0])
    more_s = 70 - PATIENCE_S
    share = (total_s + slope * more_s) / (run.seconds + more_s)
    print(f"# the far end's CPU: {total_s * 1000:.0f} ms in {run.seconds:.1f} s, waiting {slope:.2%} of a core, "
          f"with the default patience {share:.2%}", flush=True)
    check("the far end's CPU is at most 1 % of a core with the default patience", share <= 0.01, f"{share:.2%}")


# ---- all of it ----------------------------------------------------------------------------------

async def guarded(work):
    if chosen(work.__name__):
        try:
            await work()
        except Exception as error:  # any error: the others still run
            where = traceback.extract_tb(error.__traceback__)[-1]
            check(f"{work.__name__} runs to its end", False, f"{type(error).__name__}: {error} (line {where.lineno})")


async def others():
    await asyncio.gather(*map(guarded, (npm_ws, python_websockets, bare_page, without_any)))
    # These measure, so they run alone.
    for work in (quick, far_end_cpu):
        await guarded(work)


def main():
    harness.require_binary()
    probe_parts.certificates()
    covered()
    for number in range(RUNS):
        began = time.monotonic()
        asyncio.run(table())
        asyncio.run(others())
        print(f"# run {number + 1} of {RUNS}: {time.monotonic() - began:.0f} s; so far {ALARMS['missed']} missed, "
              f"{ALARMS['false alarm']} false alarms, {ALARMS['wrong']} wrong in another way", flush=True)
    harness.finish()


main()
