"""Tools that an external check needs, installed by package name, once, outside the tree.

All are under $WSPULSE_TOOLS or ~/.cache/wspulse-tools; remove that folder to reinstall.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

TOOLS = Path(os.environ.get("WSPULSE_TOOLS") or Path.home() / ".cache" / "wspulse-tools")


def install(name, recipe, steps):
    """Runs `steps` unless the same recipe was installed before; returns the tool's folder.

    The stamp is written last, so a failed install is repeated; the lock lets parallel
    scripts share one install.
    """
    home, stamp = TOOLS / name, TOOLS / f"{name}.installed"
    TOOLS.mkdir(parents=True, exist_ok=True)
    with open(TOOLS / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == recipe and home.exists():
            return home
        print(f"# installing {name}: {recipe}", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        for step in steps(home):
            carry_out(step)
        stamp.write_text(recipe)
    return home


def carry_out(command, budget_s=300):
    """One step of an install. Without its tool a script cannot run, so a failure ends it."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=budget_s)
        why = f"exit code {done.returncode}\n{done.stdout[-1500:]}" if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    if why:
        print(f"not ok - install step {' '.join(map(str, command))}: {why}\n0 passed, 1 failed")
        sys.exit(1)


def venv(name, packages):
    """A Python virtual environment; returns its interpreter."""
    def steps(home):
        yield [sys.executable, "-m", "venv", str(home)]
        yield [str(home / "bin" / "pip"), "install", "--quiet", *packages]
    return install(name, " ".join(packages), steps) / "bin" / "python"


def rerun_inside(python):
    """Re-executes the script in that environment, so that it can import its packages."""
    if Path(sys.prefix).resolve() != python.parent.parent.resolve():
        os.execv(python, [str(python), "-B", *sys.argv])


def npm(packages, name="npm"):
    """Packages of the npm registry; returns the folder that holds `node_modules`."""
    def steps(home):
        yield ["npm", "install", "--prefix", str(home), "--no-fund", "--no-audit",
               "--loglevel=error", *packages]
    return install(name, " ".join(packages), steps)


def apt(program, *packages):
    """Debian packages, unless the program is installed already; returns its path."""
    if shutil.which(program) is None:
        wait = ["-o", "DPkg::Lock::Timeout=120"]
        carry_out(["apt-get", *wait, "update"])
        carry_out(["apt-get", *wait, "install", "--yes", "--no-install-recommends", *packages])
    return shutil.which(program)


def install_only():
    """With `--install` the script ends here: CI installs the tools while the compiler runs."""
    if "--install" in sys.argv:
        sys.exit(0)
