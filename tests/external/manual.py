#!/usr/bin/env -S python3 -B
"""The manual page in groff, and the completions in bash, zsh and fish.

    tests/external/manual.py            all checks
    tests/external/manual.py --install  only installs the needed programs
"""

import re
import shutil
import subprocess

import harness
import tools
from harness import SCRATCH, check, equal, section

NEEDED = {"zsh": "zsh", "fish": "fish", "groff": "groff-base"}


def output(*command, budget_s=60, **more):
    run = subprocess.run(command, capture_output=True, text=True, timeout=budget_s, **more)
    return run.returncode, run.stdout, run.stderr


def printed(what):
    code, text, errors = output("cargo", "run", "--quiet", "--example", "manual", what,
                                budget_s=300, cwd=harness.ROOT)
    check(f"{what}: is printed", code == 0 and text, errors)
    file = SCRATCH / f"manual.{what}"
    file.write_text(text)
    return file


def flags(verb):
    """The flags that `wspulse help` names."""
    _, text, _ = output(str(harness.BINARY), "help", verb)
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text.split("\n", 1)[1])) - {"--help", "--version"}


def page():
    file = printed("man")
    code, text, errors = output("groff", "-man", "-Tascii", "-P-cbou", "-ww", str(file))
    check("man: groff finds nothing", code == 0 and not errors, errors)
    missing = [flag for verb in ("serve", "load", "connect", "healthcheck")
               for flag in flags(verb) if flag not in text]
    equal("man: flags of help that are missing", missing, [])
    check("man: the description and the variables", text.count("WebSocket server") >= 1 and "WSPULSE_LISTEN" in text, text[:300])


def bash():
    file = printed("bash")

    def complete(*words):
        line = " ".join(f"'{word}'" for word in words)
        _, text, errors = output("bash", "-c", f"source {file}; COMP_WORDS=({line}); "
                                 f"COMP_CWORD={len(words) - 1}; _wspulse; echo \"${{COMPREPLY[*]}}\"")
        return text.split() or errors

    equal("bash: a command", complete("wspulse", "heal"), ["healthcheck"])
    equal("bash: a flag of the server", complete("wspulse", "--admin-l"), ["--admin-listen"])
    equal("bash: a flag of a command", complete("wspulse", "load", "--cl"), ["--clients"])
    equal("bash: a value", complete("wspulse", "--drain-ready", "k"), ["keep"])


def fish():
    file = printed("fish")

    def complete(line):
        code, text, errors = output("fish", "--no-config", "-c", f"source {file}; complete -C {line!r}")
        return sorted(row.split("\t")[0] for row in text.splitlines()) if code == 0 else errors

    equal("fish: a command", complete("wspulse heal"), ["healthcheck"])
    equal("fish: a flag of the server", complete("wspulse --admin-l"), ["--admin-listen"])
    equal("fish: a flag of a command only", complete("wspulse load --cl"), ["--clients"])
    equal("fish: a value", complete("wspulse --drain-ready k"), ["keep"])


def zsh():
    file = printed("zsh")
    equal("zsh: valid syntax", output("zsh", "-n", str(file)), (0, "", ""))
    # `_arguments` is replaced by a function that prints its arguments.
    code, text, errors = output("zsh", "-f", "-c", f"_arguments() {{ print -rl -- \"$@\" }}; "
                                f"complete() {{ words=($@); source {file} }}; complete wspulse load --cl")
    equal("zsh: runs", (code, errors), (0, ""))
    shown = text.splitlines()
    check("zsh: a flag of the command only", any(row.startswith("*--clients[") for row in shown)
          and not any(row.startswith("*--drain-ready[") for row in shown), text)


def main():
    missing = [package for name, package in NEEDED.items() if not shutil.which(name)]
    if missing:
        tools.carry_out(["apt-get", "update"])
        tools.carry_out(["apt-get", "install", "--yes", "--no-install-recommends", *missing])
    tools.install_only()
    harness.require_binary()
    for run in (page, bash, fish, zsh):
        section(run)
    harness.finish()


main()
