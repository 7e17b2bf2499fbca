"""A container engine of our own: podman and runc, with their storage in the scratch folder.

It knows how to build, run and clean up, and whether this machine lets it; not what runs inside.
"""

import atexit
import json
import os
import shutil
import subprocess

import tools
from harness import SCRATCH

HOME = SCRATCH / "podman"
# What systemd would do for podman is left out: PID 1 is not systemd here. Unprivileged ports as
# Docker has them; podman's `kube play` does not read the pod's own sysctls.
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
# A network of this run only: two runs side by side would give out the same addresses.
NETWORK = f"wspulse-{os.getpid()}"
BASE = ["podman", "--root", HOME / "root", "--runroot", HOME / "run", "--tmpdir", HOME / "tmp",
        "--network-config-dir", HOME / "net", "--log-level", "fatal"]


def install():
    tools.apt("podman", "podman", "runc", "catatonit", "netavark", "aardvark-dns", "iptables")


def podman(*args, budget_s=60):
    """One command to its end: exit code, stdout and stderr in one text."""
    (HOME / "buildah").mkdir(parents=True, exist_ok=True)
    (HOME / "containers.conf").write_text(CONF)
    told = {"CONTAINERS_CONF": str(HOME / "containers.conf"), "TMPDIR": str(HOME / "buildah")}
    try:
        done = subprocess.run([str(part) for part in [*BASE, *args]], env=os.environ | told,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=budget_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, str(error)
    return done.returncode, without_timers(done.stdout)


def without_timers(text):
    """Health checks on a timer need systemd; podman says so at each command, and goes on."""
    return "\n".join(line for line in text.split("\n")
                     if "systemd connection" not in line and "connect to syslog" not in line)


def written(tree, *lines):
    """A Dockerfile for nothing but the files of a folder named `tree`, beside it; their folder."""
    text = "\n".join(["FROM scratch", "COPY tree /", *lines, ""])
    (tree.parent / "Dockerfile").write_text(text)
    return tree.parent


def image_of(tag, tree, *lines):
    return podman("build", "--format", "docker", "--tag", tag, written(tree, *lines))


def unusable():
    """Why no container can be run here; None when one can. catatonit is a small static program."""
    tree = SCRATCH / "probe" / "tree"
    tree.mkdir(parents=True)
    shutil.copy(shutil.which("catatonit"), tree / "catatonit")
    run = ["run", "--rm", "--memory", "16m", "--cpus", "0.1", "--publish", "127.0.0.1::80"]
    for step in (lambda: podman("build", "--tag", "probe", written(tree)), network,
                 lambda: podman(*run, "--network", NETWORK, "probe", "/catatonit", "--version")):
        code, said = step()
        if code:
            return f"podman: exit code {code}: {said}"
    return None


def network():
    """A bridge whose name and addresses no other run has."""
    number = os.getpid()
    subnet = f"10.{100 + number % 100}.{number // 100 % 256}.0/24"
    code, said = podman("network", "create", "--subnet", subnet, NETWORK)
    if code == 0:
        config = HOME / "net" / f"{NETWORK}.json"
        told = json.loads(config.read_text()) | {"network_interface": f"ws{number}"}
        config.write_text(json.dumps(told))
    return code, said


def inspect(name, template):
    """One field of a container or an image."""
    return podman("inspect", "--format", template, name)[1].strip()


@atexit.register
def _clean_up():
    if (HOME / "root").exists():
        podman("pod", "rm", "--all", "--force", "--time", "0")
        podman("rm", "--all", "--force", "--time", "0")
        podman("umount", "--all")
        podman("network", "rm", "--force", NETWORK)
        # The storage is mounted on itself, which would keep the folder.
        subprocess.run(["umount", "--recursive", HOME / "root" / "overlay"], check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20)
