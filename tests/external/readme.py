#!/usr/bin/env -S python3 -B
"""The documents, run: each fenced block of README.md, docs/ and the other READMEs, as it stands.

    tests/external/readme.py            waits of more than some seconds are shortened, less than a minute
    tests/external/readme.py --all      as they stand: half an hour
    tests/external/readme.py USE        only the documents whose path has this text

A block begins with its language, then what it needs: ```sh needs=server,ingress. `sh` is run a line at a
time, in namespaces of its own for each section; a server continues until the section ends with Ctrl-C. A
`text` directly below is what the last command prints: lines that begin with `> ` are typed, and all but
numbers, bars and names of pods must be equal, and `…` stands for any lines. A comment is compared if it says `shows "…"`, `serves on URL` or `exit code N`.
"""

import concurrent.futures
import contextvars
import json
import os
import re
import signal
import subprocess
import sys

import readme_parts as parts  # first: it installs what the documents use
import tools

tools.install_only()

import harness
from harness import ROOT, SCRATCH, check, not_run, one_line, section

WHOLE = "--all" in sys.argv
IDLE_S, PATIENCE_S = (parts.IDLE_S, parts.PATIENCE_S) if WHOLE else (parts.IDLE_SHORT_S, parts.PATIENCE_SHORT_S)
LANGUAGES = {"sh", "text", "json"}
# What a block may need, and the lines that provide it.
PROVIDED = {
    "server": "wspulse & disown",
    "backend": f"(setsid {parts.STANDS} backend $PWD/id &)",
    "apiserver": f"export KUBECONFIG=$PWD/kubeconfig; (setsid {parts.STANDS} apiserver &)",
    "ingress": f"export WSPULSE_CA_FILE={SCRATCH}/ingress.crt; "
               f"(setsid {parts.STANDS} ingress {SCRATCH} {IDLE_S} &)",
    "connection": "rm -f id; (wspulse connect ws://localhost:8080/gateway/prod --wait 1h >/dev/null 2>&1 </dev/null &); "
                  "for i in 1 2 3 4 5 6 7 8 9; do test -s id && break; sleep 0.2; done; ID=$(cat id)",
}
# What is not run, and which check does what is possible without it.
ELSEWHERE = {
    "docker": "builds and starts images; image.py does so",
    "cluster": "changes a cluster; chart.py and manifests.py check the objects and start their containers",
    "systemd": "installs units on this machine; units.py does so in a container",
    "package": "installs a package on this machine; package.py does so in a container",
    "network": "downloads and compiles; `cargo test corpora` runs the same properties",
    "minutes": "a step of .ci/run",
}
KUBECONFIG = {"apiVersion": "v1", "kind": "Config", "current-context": "it",
              "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
              "clusters": [{"name": "it", "cluster": {"server": "http://127.0.0.1:6443"}}],
              "users": [{"name": "it", "user": {}}]}
SERVES = re.compile(r"(^|[\s/])wspulse( --| &| backend|\s*#|$)|cargo run --release")


class Block:
    """One fenced block: where it is, its language and needs, and its lines."""

    def __init__(self, document, line, info, text, follows):
        self.where, self.info, self.text = f"{document}:{line}", info, text
        self.language, *rest = info.split() or [""]
        self.needs = [need for word in rest for need in word.partition("=")[2].split(",")]
        self.attributes = {word.partition("=")[0] for word in rest}
        # The block directly above, if there is nothing between the two.
        self.follows = follows


def blocks(document):
    """[[Block of a section]] of a document; sections are separated by headings."""
    sections, lines, at, last, head = [[]], (ROOT / document).read_text().splitlines(), 0, None, re.compile(r"#+ ")
    while at < len(lines):
        line = lines[at]
        if fence := re.match(r"(\s*)(```+)(.*)", line):
            end = next((i for i in range(at + 1, len(lines)) if lines[i].strip() == fence[2]), None)
            if end is None:
                raise ValueError(f"{document}:{at + 1}: the block has no end")
            last = Block(document, at + 1, fence[3], "\n".join(lines[at + 1:end]), last)
            sections[-1].append(last)
            at = end
        elif line.strip():
            last = None
            if head.match(line):
                sections.append([])
        at += 1
    return [found for found in sections if found]


def documents():
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    wanted = [word for word in sys.argv[1:] if not word.startswith("--")]
    return [path for path in listed if not wanted or any(word in path for word in wanted)]


def commands(text):
    """The complete commands of a block: a line, and those that continue it."""
    found, pending = [], ""
    for line in text.splitlines():
        pending += line + "\n"
        bare = re.sub(r"\s+#\s.*", "", line).rstrip()
        if not bare.endswith(("\\", "|")) and syntax(pending) == "":
            found, pending = found + [pending.strip()], ""
    return [command for command in found + [pending.strip()] if command]


def syntax(text):
    return subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True).stderr


# ---- without running them -----------------------------------------------------------------------

def well_formed(found):
    """Each block has a language and known needs; syntax, and the files that it names."""
    faults = []
    for block in found:
        unknown = set(block.needs) - set(PROVIDED) - set(ELSEWHERE)
        if block.language not in LANGUAGES:
            faults.append(f"{block.where}: the language is {block.language!r}, not one of {sorted(LANGUAGES)}")
        if unknown or block.attributes - {"needs"}:
            faults.append(f"{block.where}: unknown: {block.info!r}")
        if block.language == "sh":
            faults += [f"{block.where}: {syntax(block.text)}"] if syntax(block.text) else []
            named = re.findall(r"(?<![\w/.])(?:deploy|docs|tests|fuzz/corpus|fuzz/regressions)/[\w./-]*\w", block.text)
            faults += [f"{block.where}: {path} does not exist" for path in named if not (ROOT / path).exists()]
        if block.language == "json":
            try:
                [json.loads(line) for line in block.text.splitlines()]
            except ValueError as error:
                faults.append(f"{block.where}: not JSON: {error}")
    check(f"{len(found)} blocks: languages, needs, syntax, files", found and not faults, "\n".join(faults))


def figures():
    """Each table and block of docs/FIGURES.md has a command, and a date or commit."""
    paragraphs = re.split(r"\n\n+", (ROOT / "docs" / "FIGURES.md").read_text())
    dated, faults, tables, above = False, [], 0, ""
    for text in paragraphs:
        if not text.startswith(("|", "```")):
            dated = dated or bool(re.search(r"\d{4}-\d\d-\d\d", text))
            above = text
            continue
        tables += 1
        said = " ".join((above + "\n" + "\n".join(text.splitlines()[:3])).split())
        command = re.findall(r"cargo (?:bench|build|llvm-cov)|valgrind|tests/external/[\w.]+\.py", said)
        date = re.search(r"\d{4}-\d\d-\d\d|commit [0-9a-f]{7}|the same day|same two cores and day", said)
        faults += [f"{'no command' if date else 'no date or commit'}: {text[:80]!r}"] if not (command and date) else []
        dated = dated or bool(re.search(r"\d{4}-\d\d-\d\d", text))
        faults += [f"the same day as what? {text[:80]!r}"] if not dated else []
    whole = "\n".join(paragraphs)
    named = set(re.findall(r"tests/[\w/]+\.(?:py|rs)", whole))
    faults += [f"{path} does not exist" for path in sorted(named) if not (ROOT / path).exists()]
    for commit in sorted(set(re.findall(r"commit ([0-9a-f]{7,})", whole))):
        known = subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True)
        faults += [f"no commit {commit}"] if known.returncode else []
    check(f"docs/FIGURES.md: {tables} tables, each with its command and its date or commit",
          tables > 5 and not faults, "\n".join(faults))


def promises():
    """Each row of SECURITY.md has a test that exists; its flags and constants exist."""
    text, faults, count = (ROOT / "SECURITY.md").read_text(), [], 0
    reference = (ROOT / "docs" / "REFERENCE.md").read_text() + (ROOT / "docs" / "USE.md").read_text()
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.rs"))
    for row in re.findall(r"^\| (.*) \|$", text, re.M):
        promise, limit, tests = re.split(r" ?\| ", row)
        if promise == "promise":
            continue
        count += 1
        found = re.findall(r"`([^`]+)`", tests)
        faults += [] if found else [f"{promise}: no test"]
        for name in found:
            path, _, test = name.partition("::")
            there = (ROOT / path).is_file() and re.search(rf"#\[test\]\n(?:#\[.*\n)*fn {test}\(",
                                                           re.sub("^ +", "", (ROOT / path).read_text(), flags=re.M))
            faults += [] if there or not test and (ROOT / path).is_file() else [f"{promise}: no test {name}"]
        for name in re.findall(r"`([^`]+)`", limit):
            known = f"{name} " in reference or f"{name}`" in reference if name.startswith("--") \
                else re.search(rf"const {name}\b", source)
            faults += [] if known else [f"{promise}: no {name}"]
    check(f"SECURITY.md: {count} promises, their limits and tests exist", count > 20 and not faults, "\n".join(faults))


# ---- running them -------------------------------------------------------------------------------

def session(found):
    """The blocks of one section, in one shell."""
    runnable = [block for block in found if block.language == "sh" and not set(block.needs) & set(ELSEWHERE)]
    for block in found:
        if block.language == "sh" and block not in runnable:
            why = next(ELSEWHERE[need] for need in block.needs if need in ELSEWHERE)
            not_run(f"{block.where} `{one_line(block.text, 50)}`", why)
    if not runnable:
        return
    below = {block.follows: block for block in found if block.language == "text" and block.follows in runnable}
    with parts.Shell(re.sub(r"\W", "-", runnable[0].where), WHOLE) as shell:
        (shell.home / "kubeconfig").write_text(json.dumps(KUBECONFIG))
        provided = set()
        for block in runnable:
            if SERVES.search(block.text):
                stopped(shell, block, "wspulse")
            if "ingress" in block.needs:
                shell.run(f"export WSPULSE_PATIENCE={PATIENCE_S if WHOLE or block in below else 4}s")
            # An unknown need is a failed check already.
            for need in filter(PROVIDED.get, block.needs):
                provide(shell, block, need, provided)
            paste(shell, block, below.get(block))
            if "ingress" in block.needs:
                shell.run("unset WSPULSE_CA_FILE WSPULSE_PATIENCE")
        stopped(shell, runnable[-1])


def stopped(shell, block, only=""):
    wrong = shell.stop_jobs(only)
    for pid in shell.servers():
        os.kill(pid, signal.SIGINT)
    if not harness.until(lambda: not shell.servers(), 15):
        wrong.append("a server still runs")
    if wrong:
        check(f"{block.where}: Ctrl-C stops what runs in the background", False, wrong)


def provide(shell, block, need, provided):
    before = shell.listeners()
    lines = PROVIDED[need] if need not in provided else PROVIDED[need].partition("; (")[0]
    if need in provided and lines.startswith("("):
        return
    status, output = shell.run(lines)
    if need not in provided and need != "connection":
        wanted = {"ingress": 6}.get(need, 1)
        harness.until(lambda: len(shell.listeners() - before) >= wanted)
        if len(shell.listeners() - before) < wanted:
            raise RuntimeError(f"{block.where}: {need} does not listen: {output}")
    provided.add(need)


def paste(shell, block, text):
    """Each command of a block; `text` shows what the last one prints."""
    lines = commands(block.text)
    for line in lines:
        shown = text.text if text and line is lines[-1] else None
        one(shell, block, line, shown)


def one(shell, block, line, shown):
    name, before = f"{block.where} `{one_line(line, 60)}`", shell.listeners()
    command = parts.shortened(line, WHOLE)
    if parts.READS_LINES.match(line):
        end = "terminate" if "after kill -TERM" in line else "close"
        status, output = shell.converse(command, (shown or "").splitlines(), end)
    else:
        status, output = shell.run(command)
    for said in re.findall(r'#.* shows "([^"]+)"', line):
        check(f"{name}: shows {said!r}", said in output, output)
    ended = status in expected(line, output)
    if ended and status == 3:
        harness.say(f"# {name}: exit code 3: {one_line(output, 300)}")
    serves = line.rstrip().endswith("&") or re.search(r"& done$", line) or "&  " in line or status == "serves"
    if serves and ended:
        listening(shell, name, line, before)
    else:
        check(name, ended, f"exit code {status}: {output}")
    if shown is not None:
        compare(name, shown, output)


def expected(line, output):
    """The exit codes of a command: 0, or the one that its comment names. A finding of `probe` is about
    the path, and a p99 above its threshold about this machine."""
    said = re.search(r"#.*exit code (\d)", line)
    found = re.match(r"wspulse probe", line) or re.search(r"p99 .*--max-p99|--max-p99.*p99", output)
    return {int(said[1]) if said else 0} | ({3} if found else set()) | (
        {130} if parts.READS_LINES.match(line) else {"serves"})


def listening(shell, name, line, before):
    """Waits for a server that the line started, which must answer HTTP."""
    harness.until(lambda: shell.listeners() - before, 10)
    shell.settled()
    ports = sorted({port for port, _ in shell.listeners() - before})
    urls = re.findall(r"serves on (http\S+)", line) or [f"http://localhost:{port}/healthz" for port in ports]
    answers = []
    for url in urls:
        answers.append(shell.run(f"curl -s -m 5 -o /dev/null -w 'status %{{http_code}}\\n' {url}")[1])
        if served := re.search("status [1-5]", answers[-1]):
            break
    check(f"{name}: serves", ports and served, f"ports {ports}, {answers}, {shell.seen[-600:]}")


def compare(name, shown, output):
    wanted, got = parts.shapes(shown), parts.shapes(output)
    missing, more = [x for x in wanted if x not in got], [x for x in got if x not in wanted]
    check(f"{name}: prints what the document shows", parts.same(wanted, got),
          f"missing {missing}, not shown {more}, printed:\n{output}")


def main():
    harness.require_binary()
    parts.prepare()
    found = {path: blocks(path) for path in documents()}
    everything = [block for sections in found.values() for some in sections for block in some]
    section(well_formed, everything)
    section(figures)
    section(promises)
    tried = subprocess.run([*parts.ENTER, "true"], capture_output=True, text=True)
    if tried.returncode:
        not_run("the documents' commands", f"no namespaces: {tried.stderr}")
        harness.finish()
    sections = [some for sections in found.values() for some in sections]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(contextvars.copy_context().run, section, session, some) for some in sections]:
            done.result()
    harness.finish()


main()
