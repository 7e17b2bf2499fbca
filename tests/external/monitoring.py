#!/usr/bin/env -S python3 -B
"""deploy/chart/monitoring: the alerts in promtool, whose tests must notice a broken rule, the dashboard
against Grafana's types, and every query of both in a Prometheus that scrapes a busy server.

    tests/external/monitoring.py
"""

import asyncio
import contextlib
import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from itertools import combinations

import tools

PYTHON = tools.venv("monitoring", ["grafana-foundation-sdk==1769699379!11.6.0", "pyyaml>=6,<7",
                                   "websockets>=17,<18"])
PROMTOOL = tools.apt("promtool", "prometheus")
tools.install_only()
tools.rerun_inside(PYTHON)

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import harness
from backend_parts import listens
from harness import ROOT, SCRATCH, Server, check, equal, free_port, launch, section

FOLDER = ROOT / "deploy" / "chart" / "monitoring"
BOARD = json.loads((FOLDER / "dashboard.json").read_text())
ALERTS = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
# Metrics that Prometheus itself adds.
FOREIGN = {"up"}
# Metrics that a build without the feature `gateway` does not have.
OPTIONAL = ("gateway_", "backend_")
# Errors that do not occur here: these metrics have no rows until the first.
RARE = {"backend_session_errors_total"}
WORDS = {"and", "or", "unless", "offset", "bool", "inf", "nan"}
ROWS_OF_HISTOGRAM = ("_bucket", "_sum", "_count")


def run(*command):
    done = harness.subprocess.run([str(part) for part in command], stdin=-3, stdout=-1, stderr=-2,
                                  text=True, timeout=60)
    return done.returncode, done.stdout


# ---- alerts --------------------------------------------------------------------------------------

def alerts():
    code, output = run(PROMTOOL, "check", "rules", "--lint=all", "--lint-fatal", FOLDER / "alerts.yaml")
    check(f"promtool check rules: {len(RULES)} of them", code == 0 and len(RULES) >= 10, output)
    code, output = run(PROMTOOL, "test", "rules", FOLDER / "alerts_test.yaml")
    check("promtool test rules", code == 0, output)
    for rule in RULES:
        wanted = {"severity", "summary", "description"}
        check(f"{rule['alert']}: says what is wrong and what to look at",
              wanted <= {*rule["labels"], *rule["annotations"]}, rule)


def mutants():
    """alerts_test.yaml fails for each alert that never fires, and for each that always fires."""
    folder = SCRATCH / "mutants"
    folder.mkdir()
    shutil.copy(FOLDER / "alerts_test.yaml", folder)
    for rule in RULES:
        survived, real = [], rule["expr"]
        for expr in ("vector(1) < 0", "vector(1)"):
            rule["expr"] = expr
            (folder / "alerts.yaml").write_text(yaml.safe_dump(ALERTS))
            if run(PROMTOOL, "test", "rules", folder / "alerts_test.yaml")[0] == 0:
                survived.append(expr)
        rule["expr"] = real
        equal(f"{rule['alert']}: the tests notice a rule that never or always fires", survived, [])


# ---- the dashboard -------------------------------------------------------------------------------

def targets():
    """Title and query of every panel."""
    for panel in BOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def variables():
    """Name, metric and label of every variable that Prometheus fills."""
    for own in BOARD["templating"]["list"]:
        if own["type"] == "query":
            yield own["name"], *re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)",
                                             own["query"]["query"]).groups()


def lost(where, given, kept):
    """The parts of `given` that Grafana's types did not keep."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return [fault for key in given for fault in (
            lost(f"{where}.{key}", given[key], kept[key]) if key in kept else [f"{where}.{key}"])]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [fault for at, pair in enumerate(zip(given, kept))
                for fault in lost(f"{where}[{at}]", *pair)]
    return [] if given == kept else [f"{where}: {given!r} became {kept!r}"]


def looks():
    register_default_plugins()
    kept = json.loads(json.dumps(Dashboard.from_json(BOARD), cls=JSONEncoder))
    equal("Grafana's types know every field of the dashboard", lost("", BOARD, kept), [])
    panels = BOARD["panels"]
    equal("panel ids are unique", len({panel["id"] for panel in panels}), len(panels))
    places = {panel["title"]: panel["gridPos"] for panel in panels}
    overlapping = [(a, b) for (a, one), (b, two) in combinations(places.items(), 2)
                   if one["x"] < two["x"] + two["w"] and two["x"] < one["x"] + one["w"]
                   and one["y"] < two["y"] + two["h"] and two["y"] < one["y"] + one["h"]]
    equal(f"{len(panels)} panels, none overlapping", overlapping, [])
    check("… and none beyond the edge", all(at["x"] + at["w"] <= 24 for at in places.values()), places)
    unchosen = [expr for _, expr in targets()
                if expr.count('job=~"$job",instance=~"$instance"') != len(metrics_in(expr))]
    equal("every query asks only for the chosen jobs and instances", unchosen, [])


# ---- names ---------------------------------------------------------------------------------------

def metrics_in(query):
    """The metrics in a query: what is left without labels, ranges, functions and keywords."""
    rest = re.sub(r'"[^"]*"|\{[^{}]*\}|\[[^\]]*\]', " ", re.sub(r'"[^"]*"', '""', query))
    rest = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*(\([^()]*\))?", " ", rest)
    found = re.findall(r"\b[a-z_:][\w:]*\b(?!\s*\()", rest)
    return [name for name in found if name not in WORDS]


def names_of(page):
    """The names of the rows that /metrics can have, also those without a row yet."""
    return {name + ending for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page, re.M)
            for ending in (ROWS_OF_HISTOGRAM if kind == "histogram" else ("",))}


def shown_by(names):
    """The names that this build has; the others are reported as not run."""
    known = {name for name in names if has_gateway() or not name.startswith(OPTIONAL)}
    if known != names:
        harness.not_run(f"{sorted(names - known)}", "this build has no gateway")
    return known


def has_gateway():
    return "--gateway-backend" in harness.wspulse("help")[1]


def named(page):
    there = names_of(page) | FOREIGN
    check("/metrics has TYPE lines", len(there) > 20, page[:300])
    for what, queries in (
            ("dashboard", [expr for _, expr in targets()]
             + [own["expr"] for own in BOARD["annotations"]["list"]]
             + [metric for _, metric, _ in variables()]),
            ("alerts", [rule["expr"] for rule in RULES])):
        asked = shown_by({metric for query in queries for metric in metrics_in(query)})
        check(f"{what}: {len(asked)} metrics, each in /metrics", len(asked) > 5 and asked <= there,
              asked - there)


# ---- a busy server -------------------------------------------------------------------------------

def ask(base, path, **options):
    url = f"{base}/api/v1/{path}?{urllib.parse.urlencode(options)}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.loads(answer.read())["data"]
    except OSError as error:
        return getattr(error, "read", lambda: str(error).encode())().decode()


async def busy(server, seconds, paths):
    """Traffic of every kind, so that each panel has data."""
    end = asyncio.get_running_loop().time() + seconds
    async with contextlib.AsyncExitStack() as stack:
        open_for_long = [await stack.enter_async_context(connect(server.ws(path))) for path in paths]
        while asyncio.get_running_loop().time() < end:
            for path in ("/healthz", "/whoami", "/nowhere"):
                await asyncio.to_thread(fetched, server.url(path))
            async with connect(server.ws("/ws")) as short:
                for message in ("text", b"binary"):
                    await short.send(message)
                    await short.recv()
            broken = await connect(server.ws("/ws"))
            broken.transport.abort()
            try:
                await connect(server.ws(), origin="https://evil.example")
            except InvalidStatus:
                pass
            for socket in open_for_long:
                await socket.send("x")
                await socket.recv()
            await asyncio.sleep(0.2)


def fetched(url):
    try:
        return urllib.request.urlopen(url, timeout=5).read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


async def at_work(server, backend):
    """A Prometheus with our alerts; every query of the dashboard has a result."""
    port, places = free_port(), [f"{host}:{port}" for host, port in (server.admin, *backend)]
    config, base = SCRATCH / "prometheus.yml", f"http://127.0.0.1:{port}"
    config.write_text(json.dumps({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(FOLDER / "alerts.yaml")],
        "scrape_configs": [{"job_name": "ws", "static_configs": [{"targets": places}]}]}))
    launch(["prometheus", f"--config.file={config}", f"--storage.tsdb.path={SCRATCH / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"], stdin=-3, stdout=-3, stderr=-3)
    await busy(server, 8, ["/echo?ping=1s"] + ["/gateway/prod"] * bool(backend))
    chosen = {"$job": "ws|$", "$instance": ".+", "$__rate_interval": "10s", "$__range": "10s"}
    for title, expr in targets():
        if not has_gateway() and metrics_in(expr)[0].startswith(OPTIONAL):
            continue
        query = re.sub(r"\$\w+", lambda found: chosen[found[0]], expr)
        found = await asyncio.to_thread(ask, base, "query", query=query)
        shown = isinstance(found, dict) and (found["result"] or RARE & set(metrics_in(expr)))
        check(f"{title}: {expr[:60]}", shown, f"{query}: {found}")
    for name, metric, label in variables():
        found = await asyncio.to_thread(ask, base, f"label/{label}/values", **{"match[]": metric})
        check(f"variable {name}", found, found)
    rules = [rule for group in (await asyncio.to_thread(ask, base, "rules"))["groups"]
             for rule in group["rules"]]
    equal("Prometheus evaluates every alert", [rule["name"] for rule in rules if rule["health"] != "ok"]
          + [len(rules)], [len(RULES)])
    equal("… and none fires", [rule["name"] for rule in rules if rule["state"] == "firing"], [])


def main():
    harness.require_binary()
    for group in (alerts, mutants, looks):
        section(group)
    place = ("127.0.0.1", free_port())
    behind, keys = [], SCRATCH / "peer-keys"
    keys.write_text("0123456789abcdef" * 4)
    if has_gateway():
        behind = [f"--gateway-backend=http://{place[0]}:{place[1]}",
                  f"--gateway-peer-key-file={keys}", "--gateway-peer-listen=127.0.0.1:0"]
    # No API server is there: the informer's metrics exist all the same.
    behind.append("--kube=http://127.0.0.1:1")
    # The backend calls another replica than the one that holds the connections.
    with Server(*behind) as server, Server(*behind) as other:
        if len(behind) > 1:
            launch([harness.BINARY, "backend", f"--listen={place[0]}:{place[1]}",
                    f"--gateway={other.url('', 'admin')}"], stdin=-3, stdout=-3, stderr=-3,
                   env=harness.clean_environment())
            listens(place[1])
        section(at_work, server, [place, other.admin] if len(behind) > 1 else [])
        pages = [fetched(each.url("/metrics", "admin")) for each in (server, other)]
        pages += [fetched(f"http://{place[0]}:{place[1]}/metrics") for _ in behind[:1]]
        section(named, "\n".join(pages))
    harness.finish()


main()
