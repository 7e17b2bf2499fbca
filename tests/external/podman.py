"""A separate container engine: podman and runc, with their storage in the scratch folder.

It builds, runs and cleans up, and checks whether this machine can run containers.
"""

import atexit
import json
import os
import shlex
import shutil
import subprocess

import tools
from harness import SCRATCH

HOME = SCRATCH / "podman"
# Without systemd, which may not be PID 1 here. Unprivileged ports start at 0 as in Docker, since
# podman's `kube play` ignores the pod's sysctls.
CONF = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
default_sysctls = ["net.ipv4.ip_unprivileged_port_start=0"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""
# A network of this run only: parallel runs would assign the same addresses.
NETWORK = f"wspulse-{os.getpid()}"
BASE = ["podman", "--root", HOME / "root", "--runroot", HOME / "run", "--tmpdir", HOME / "tmp",
        "--network-config-dir", HOME / "net", "--log-level", "fatal"]


def install():
    tools.apt("podman", "podman", "runc", "catatonit", "netavark", "aardvark-dns", "iptables")


def podman(*args, budget_s=60):
    """Runs one command; returns exit code, and stdout and stderr in one text."""
    (HOME / "buildah").mkdir(parents=True, exist_ok=True)
    (HOME / "containers.conf").write_text(CONF)
    variables = {"CONTAINERS_CONF": str(HOME / "containers.conf"), "TMPDIR": str(HOME / "buildah")}
    try:
        done = subprocess.run([str(part) for part in [*BASE, *args]], env=os.environ | variables,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=budget_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, str(error)
    return done.returncode, without_timers(done.stdout)


def without_timers(text):
    """Drops the warning of every command that timed health checks need systemd."""
    return "\n".join(line for line in text.split("\n")
                     if "systemd connection" not in line and "connect to syslog" not in line)


def written(tree, *lines):
    """Writes a Dockerfile beside the folder `tree` that copies it; returns the build context."""
    text = "\n".join(["FROM scratch", "COPY tree /", *lines, ""])
    (tree.parent / "Dockerfile").write_text(text)
    return tree.parent


def image_of(tag, tree, *lines):
    return podman("build", "--format", "docker", "--tag", tag, written(tree, *lines))


def unusable():
    """Why no container can be run here, or None. catatonit is a small static program."""
    tree = SCRATCH / "probe" / "tree"
    tree.mkdir(parents=True)
    shutil.copy(shutil.which("catatonit"), tree / "catatonit")
    run = ["run", "--rm", "--memory", "16m", "--cpus", "0.1", "--publish", "127.0.0.1::80"]
    for step in (lambda: podman("build", "--tag", "probe", written(tree)), network,
                 lambda: podman(*run, "--network", NETWORK, "probe", "/catatonit", "--version")):
        code, output = step()
        if code:
            return f"podman: exit code {code}: {output}"
    return None


def network():
    """A bridge with a name and addresses that no other run uses."""
    number = os.getpid()
    subnet = f"10.{100 + number % 100}.{number // 100 % 256}.0/24"
    code, output = podman("network", "create", "--subnet", subnet, NETWORK)
    if code == 0:
        config = HOME / "net" / f"{NETWORK}.json"
        settings = json.loads(config.read_text()) | {"network_interface": f"ws{number}"}
        config.write_text(json.dumps(settings))
    return code, output


def inspect(name, template):
    """One field of a container or an image."""
    return podman("inspect", "--format", template, name)[1].strip()


def remove_rules(network):
    """Netavark leaves the rules of a container that was restarted. They would redirect its port of this
    machine, which any other process may get later, to an address that nobody has."""
    def iptables(*args):
        subprocess.run(["iptables", "-w", "-t", "nat", *args], check=False, timeout=20,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    saved = subprocess.run(["iptables-save", "-t", "nat"], capture_output=True, text=True, check=False, timeout=20)
    chains = set()
    for line in saved.stdout.splitlines():
        if line.startswith("-A") and f"name: {network} id:" in line:
            rule = shlex.split(line)
            chains.add(rule[rule.index("-j") + 1])
            iptables("-D", *rule[1:])
    for chain in chains:
        iptables("-F", chain)
        iptables("-X", chain)


@atexit.register
def _clean_up():
    if (HOME / "root").exists():
        podman("pod", "rm", "--all", "--force", "--time", "0")
        podman("rm", "--all", "--force", "--time", "0")
        podman("umount", "--all")
        podman("network", "rm", "--force", NETWORK)
        remove_rules(NETWORK)
        # The storage is bind-mounted on itself; while mounted it cannot be removed.
        subprocess.run(["umount", "--recursive", HOME / "root" / "overlay"], check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20)
