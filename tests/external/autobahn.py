#!/usr/bin/env -S python3 -B
"""Autobahn's fuzzing client against `wspulse`: 517 cases for RFC 6455 and 7692.

    tests/external/autobahn.py              sections 1-10, some cases of 12 and 13 (compression)
    tests/external/autobahn.py 6 7.1        these sections or cases only
    tests/external/autobahn.py --all        all 517 cases: about 20 minutes
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
PLAIN = ["1", "2", "3", "4", "5", "6", "7", "9", "10"]
COMPRESSION = ["12", "13"]
# Each kind of data, each set of parameters, sizes from 16 bytes to 128 KiB, fragments.
CHOSEN = ["12.1.1", "12.1.5", "12.1.10", "12.1.13", "12.2.3", "12.2.9", "12.3.6", "12.3.12",
          "12.4.7", "12.4.14", "12.5.4", "12.5.13", "13.1.2", "13.1.12", "13.2.5", "13.2.13",
          "13.3.4", "13.3.11", "13.4.8", "13.5.6", "13.5.12", "13.6.7", "13.7.3", "13.7.12"]
GOOD = {"OK", "INFORMATIONAL"}
# Cases of section 7 whose outcome the RFC leaves open.
INFORMATIONAL = 3
COUNTS = {"usual": 301 + len(CHOSEN), "all": 517}
BUDGET_S = {"usual": 280, "all": 3000}


def python27():
    """pyenv's newest 2.7, or one on the PATH; virtualenv 20.22 no longer supports it."""
    found = sorted(Path.home().glob(".pyenv/versions/2.7.*/bin/python2.7"))
    return str(found[-1]) if found else shutil.which("python2.7")


def wstest(python):
    maker = tools.venv("virtualenv", [MAKER])

    def steps(home):
        yield [maker.parent / "virtualenv", "--quiet", "--python", python, home]
        yield [home / "bin" / "pip", "install", "--quiet", SUITE]
    return tools.install("autobahn", f"{SUITE} on {python}", steps) / "bin" / "wstest"


def fuzz(tool, url, cases, budget_s):
    """Runs the cases; {case: {"behavior": …, "behaviorClose": …}} of our only agent."""
    reports = tools.TOOLS / "reports" / f"autobahn-{os.getpid()}"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    spec = reports / "spec.json"
    spec.write_text(json.dumps({
        "outdir": str(reports), "servers": [{"agent": "wspulse", "url": url}],
        "options": {"failByDrop": False}, "cases": cases, "exclude-cases": []}))
    # cwd: wstest writes files into its working directory.
    run = subprocess.run([tool, "-m", "fuzzingclient", "-s", spec], cwd=reports,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, timeout=budget_s)
    index = reports / "index.json"  # written at the end only
    if not index.exists():
        raise RuntimeError(f"no report; wstest printed {run.stdout[-500:]}")
    return json.loads(index.read_text()).get("wspulse", {}), reports


def judge(results, count):
    """Whether every case passed; lists those that did not."""
    behaviour = Counter(result["behavior"] for result in results.values())
    closing = Counter(result["behaviorClose"] for result in results.values())
    print(f"# behaviour {dict(behaviour)}, closing {dict(closing)}", flush=True)
    well = check("Autobahn ran its cases", results, "the report is empty")
    for field, name in (("behavior", "behaviour"), ("behaviorClose", "closing")):
        bad = {case: result for case, result in results.items() if result[field] not in GOOD}
        well &= check(f"{name}: every case OK or INFORMATIONAL", not bad,
                      f"{len(bad)} of {len(results)} are not")
        for case in sorted(bad, key=lambda case: [int(part) for part in case.split(".")]):
            print(f"#   {case}: {bad[case][field]}, {bad[case]['duration']} ms, "
                  f"close code {bad[case]['remoteCloseCode']}", flush=True)
    if count:
        wanted = {"OK": count - INFORMATIONAL, "INFORMATIONAL": INFORMATIONAL}
        well &= equal(f"{count} cases: {wanted}", dict(behaviour), wanted)
    return well


def run(tool, chosen, kind):
    cases = [s if s.count(".") == 2 else s + ".*" for s in chosen]
    count, budget_s = COUNTS.get(kind), BUDGET_S.get(kind, BUDGET_S["all"])
    url = os.environ.get("AUTOBAHN_URL")
    if url:
        results, reports = fuzz(tool, url, cases, budget_s)
    else:
        # Section 9 sends messages of 16 MiB.
        with harness.Server("--max-message", "17MiB") as server:
            results, reports = fuzz(tool, server.ws("/echo"), cases, budget_s)
            check("the server outlives the suite", server.process.poll() is None,
                  f"exit code {server.process.returncode}: {server.log_text()[-400:]}")
    if judge(results, count):
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
    if chosen:
        harness.section(run, tool, chosen, "chosen")
    elif "--all" in sys.argv:
        harness.section(run, tool, PLAIN + COMPRESSION, "all")
    else:
        harness.section(run, tool, PLAIN + CHOSEN, "usual")
        not_run(f"Autobahn, {COUNTS['all'] - COUNTS['usual']} more compression cases",
                "20 minutes; --all runs them")
    harness.finish()


main()
