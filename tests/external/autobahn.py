#!/usr/bin/env -S python3 -B
"""Autobahn's fuzzing client against `wspulse`: 301 cases that know RFC 6455 by heart.

    tests/external/autobahn.py              sections 1-7, 9, 10: what has to be perfect
    tests/external/autobahn.py 6 7.1        these sections or cases only
    tests/external/autobahn.py --all        with 12 and 13, compression: about 18 minutes more
    AUTOBAHN_URL=ws://127.0.0.1:9001/ …     another server on this machine, to try the script

The suite runs on Python 2.7 only; pyenv has one on this machine.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import harness
import tools
from harness import check, equal, not_run

SUITE, MAKER = "autobahntestsuite==25.10.1", "virtualenv==20.21.1"
PERFECT = ["1", "2", "3", "4", "5", "6", "7", "9", "10"]
PERFECT_COUNT = {"OK": 298, "INFORMATIONAL": 3}
COMPRESSION = ["12", "13"]
GOOD = {"OK", "INFORMATIONAL"}
BUDGET_S = {"perfect": 180, "compression": 1800}


def python27():
    """pyenv's newest 2.7, or one on the PATH; virtualenv 20.22 no longer knows how to use it."""
    found = sorted(Path.home().glob(".pyenv/versions/2.7.*/bin/python2.7"))
    return str(found[-1]) if found else shutil.which("python2.7")


def wstest(python):
    maker = tools.venv("virtualenv", [MAKER])

    def steps(home):
        yield [maker.parent / "virtualenv", "--quiet", "--python", python, home]
        yield [home / "bin" / "pip", "install", "--quiet", SUITE]
    return tools.install("autobahn", f"{SUITE} on {python}", steps) / "bin" / "wstest"


def fuzz(tool, url, cases, budget_s):
    """Runs the cases; {case: {"behavior": …, "behaviorClose": …}} of the one agent."""
    reports = tools.TOOLS / "reports" / "autobahn"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    spec = reports / "spec.json"
    spec.write_text(json.dumps({
        "outdir": str(reports), "servers": [{"agent": "wspulse", "url": url}],
        "options": {"failByDrop": False}, "cases": cases, "exclude-cases": []}))
    # cwd: wstest leaves files where it stands.
    run = subprocess.run([tool, "-m", "fuzzingclient", "-s", spec], cwd=reports,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, timeout=budget_s)
    index = reports / "index.json"  # written at the end only
    if not index.exists():
        raise RuntimeError(f"no report; wstest said {run.stdout[-500:]}")
    return json.loads(index.read_text()).get("wspulse", {}), reports


def judge(results, whole):
    """Whether all is well; the cases that are not are listed."""
    behaviour = Counter(result["behavior"] for result in results.values())
    closing = Counter(result["behaviorClose"] for result in results.values())
    print(f"# behaviour {dict(behaviour)}, closing {dict(closing)}", flush=True)
    well = check("Autobahn ran its cases", results, "the report is empty")
    for field, name in (("behavior", "behaviour"), ("behaviorClose", "closing")):
        bad = {case: result for case, result in results.items() if result[field] not in GOOD}
        well &= check(f"{name}: every case OK or INFORMATIONAL", not bad, f"{len(bad)} of {len(results)} are not")
        for case in sorted(bad, key=lambda case: [int(part) for part in case.split(".")]):
            print(f"#   {case}: {bad[case][field]}, {bad[case]['duration']} ms, "
                  f"close code {bad[case]['remoteCloseCode']}", flush=True)
    if whole:
        well &= equal("sections 1-7, 9, 10: 298 OK and 3 INFORMATIONAL", dict(behaviour), PERFECT_COUNT)
    return well


def run(tool, sections):
    cases = [s if s.count(".") == 2 else s + ".*" for s in sections]
    compressed = any(s.split(".")[0] in COMPRESSION for s in sections)
    budget_s = BUDGET_S["compression" if compressed else "perfect"]
    url = os.environ.get("AUTOBAHN_URL")
    if url:
        results, reports = fuzz(tool, url, cases, budget_s)
    else:
        # Section 9 sends messages of 16 MiB.
        with harness.Server("--max-message", "17MiB") as server:
            results, reports = fuzz(tool, server.ws("/echo"), cases, budget_s)
            check("the server outlives the suite", server.process.poll() is None,
                  f"exit code {server.process.returncode}: {server.log_text()[-400:]}")
    if judge(results, whole=sections == PERFECT):
        shutil.rmtree(reports)
    else:
        print(f"# each case in full: {reports}/index.html", flush=True)


def main():
    python = python27()
    if python is None:
        not_run("Autobahn, all of it", "there is no Python 2.7 (pyenv or PATH)")
        harness.finish()
    tool = wstest(python)
    tools.install_only()
    if "AUTOBAHN_URL" not in os.environ:
        harness.require_binary()
    chosen = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    harness.section(run, tool, chosen or PERFECT)
    if "--all" in sys.argv:
        harness.section(run, tool, COMPRESSION)
    elif not chosen:
        not_run("Autobahn 12 and 13 (compression)", "18 minutes; ask for them with --all")
    harness.finish()


main()
