#!/usr/bin/env -S python3 -B
"""The crate as `cargo publish` would send it, the Debian package, and the bill of materials.

    tests/external/package.py

The package is installed, upgraded and removed in a Debian with systemd that mmdebstrap makes.
"""

import hashlib
import os
import re
import shutil
import subprocess
import time
import tomllib

import podman
import tools


def debian(home):
    """Of this machine's release, whose C library the binary needs."""
    with open("/etc/os-release", encoding="utf-8") as release:
        suite = re.search(r"^VERSION_CODENAME=(\w+)", release.read(), re.M)[1]
    yield ["mkdir", "-p", str(home)]
    # A mirror may be older than its signatures allow.
    yield ["mmdebstrap", "--quiet", "--variant=minbase", "--include=systemd-sysv,curl",
           '--aptopt=Acquire::Check-Valid-Until "false"', suite, str(home / "debian.tar")]


VENV = tools.venv("sbom", ["cyclonedx-python-lib[json-validation]==11.*"])
CARGO_DEB = tools.install("cargo-deb", "cargo-deb 3", lambda home: [
    ["cargo", "install", "--quiet", "--locked", "--root", str(home), "cargo-deb@^3"]])
tools.apt("mmdebstrap", "mmdebstrap")
tools.apt("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross")
DEBIAN = tools.install("debian", "debian with systemd and curl", debian) / "debian.tar"
podman.install()
tools.install_only()
tools.rerun_inside(VENV)

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import harness
from crowd import Crowd, Peer
from harness import BINARY, ROOT, SCRATCH, check, equal, not_run, section, until
from machine import HERE, Machine

MANIFEST = tomllib.loads((ROOT / "Cargo.toml").read_text())
PACKAGED = re.compile(r"Cargo\.(toml|lock)|Cargo\.toml\.orig|\.cargo_vcs_info\.json|(src|assets|"
                      r"examples)/.*|docs/\w+\.md|\w+\.md|LICENSE-\w+")
DOC = "usr/share/doc/wspulse"
FILES = {"etc/wspulse.env", "usr/bin/wspulse", "usr/lib/systemd/system/wspulse.service",
         "usr/lib/systemd/system/wspulse.socket", "usr/share/man/man1/wspulse.1.gz",
         "usr/share/bash-completion/completions/wspulse", f"{DOC}/copyright",
         "usr/share/zsh/vendor-completions/_wspulse", f"{DOC}/THIRD-PARTY.gz",
         "usr/share/fish/vendor_completions.d/wspulse.fish", f"{DOC}/sbom.cdx.json"}
UNITS = ("wspulse.socket", "wspulse.service")
PATH = {"PATH": f"{CARGO_DEB / 'bin'}:{os.environ['PATH']}"}
HEALTHZ = b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n"
# What dpkg and the journal write for every package.
OF_THE_SYSTEM = (r"/(proc|sys|dev|run|tmp)/|/var/(log|cache)/|/var/lib/dpkg/|"
                 r"/var/lib/systemd/catalog")


def output(*command, budget_s=60, **more):
    """Exit code, stdout and stderr; 127 if there is no such program."""
    if shutil.which(str(command[0])) is None:
        return 127, "", f"{command[0]}: not found"
    done = subprocess.run([str(part) for part in command], cwd=ROOT, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=budget_s, **more)
    return done.returncode, done.stdout, done.stderr


# ---- the crate -----------------------------------------------------------------------------------

def crate():
    """Compiles what the package contains, as the registry's users would."""
    _, listed, _ = output("cargo", "package", "--list", "--allow-dirty")
    files = listed.split()
    check("cargo package --list: the sources and the documents", "src/main.rs" in files, listed)
    equal("… and nothing else", [name for name in files if not PACKAGED.fullmatch(name)], [])
    code, _, said = output("cargo", "publish", "--dry-run", "--no-verify", "--locked",
                           "--allow-dirty", budget_s=100)
    if code and re.search(r"failed to (fetch|query|download|get)|could not resolve", said, re.I):
        return not_run("cargo publish --dry-run", said[-300:])
    equal("cargo publish --dry-run: exit code", (code, said[-500:] if code else ""), (0, ""))
    warnings = re.findall(r"^warning: (.*)", said, re.M)
    # Only tests that the package does not contain are left out.
    expected = ("ignoring test `it` ", "ignoring benchmark `messages` ", "aborting upload")
    equal("… warnings", [line for line in warnings if not line.startswith(expected)], [])
    # What cargo would verify, without generating code.
    name = f"wspulse-{MANIFEST['package']['version']}"
    # A dry run leaves the file elsewhere.
    output("cargo", "package", "--quiet", "--no-verify", "--locked", "--allow-dirty", budget_s=100)
    output("tar", "-xzf", f"target/package/{name}.crate", "-C", SCRATCH)
    code, _, said = output("cargo", "check", "--quiet", "--locked", "--bins", "--examples",
                           "--manifest-path", SCRATCH / name / "Cargo.toml",
                           "--target-dir", ROOT / "target", budget_s=300)
    return equal("the packaged files compile without warnings", (code, said[-500:]), (0, ""))


def arm64():
    """The image is also for arm64: its sources are checked, and ring's C code is compiled."""
    target = "aarch64-unknown-linux-musl"
    if target not in output("rustup", "target", "list", "--installed")[1].split():
        return not_run(f"cargo check --target {target}", f"rustup target add {target}")
    variable = f"CC_{target.replace('-', '_')}"
    code, _, said = output("cargo", "check", "--quiet", "--locked", "--bins", "--target", target,
                           budget_s=300, env=os.environ | {variable: "aarch64-linux-gnu-gcc"})
    return equal(f"cargo check --target {target}", (code, said[-500:]), (0, ""))


# ---- the bill of materials -----------------------------------------------------------------------

def bill(*flags):
    return output("sh", "deploy/sbom.sh", *flags)


def crates_of(kinds, *flags):
    _, tree, _ = output("cargo", "tree", "--locked", "--edges", kinds, "--prefix", "none", *flags)
    found = {tuple(line.split()[:2]) for line in tree.splitlines()}
    return {f"{name}@{version.removeprefix('v')}" for name, version in found if name != "wspulse"}


def bills():
    for flags in ((), ("--no-default-features",), ("--target", "aarch64-unknown-linux-musl")):
        code, text, why = bill(*flags)
        if not check(f"sbom.sh {' '.join(flags)}: exit code 0", code == 0, why):
            continue
        error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
        check("… valid CycloneDX 1.5", error is None, error)
        parts = named(text)
        equal("… it names exactly the crates of cargo tree -e normal", parts.keys(),
              crates_of("normal", *flags))
        equal("… those that are linked have the scope `required`",
              {name for name, part in parts.items() if part["scope"] == "required"},
              crates_of("normal,no-proc-macro", *flags))
        whole = harness.json.loads(text)
        refs = {part["purl"] for part in parts.values()} | {whole["metadata"]["component"]["purl"]}
        equal("… each crate has a row of dependencies",
              {row["ref"] for row in whole["dependencies"]}, refs)
        check("… and is needed by another", {need for row in whole["dependencies"]
              for need in row["dependsOn"]} >= refs - {whole["metadata"]["component"]["purl"]})
    # Panics name their source file, so this needs neither cargo tree nor the script.
    paths = set(re.findall(rb"registry/src/[^/]+/([a-z0-9_-]+)-(\d+\.\d+\.\d+[^/]*)/",
                           BINARY.read_bytes()))
    seen = {f"{name.decode()}@{version.decode()}" for name, version in paths}
    known = {name for name, part in named(bill()[1]).items() if part["scope"] == "required"}
    check(f"the binary names {len(seen)} crates, all in the bill", seen and seen <= known,
          seen - known)
    code, _, why = output("sh", ROOT / "deploy/sbom.sh", "--features", "none")
    check("sbom.sh fails if cargo tree does", code != 0 and why, why)


def named(text):
    """The crates among the components; the others are the libraries of Rust and C."""
    return {part["purl"].removeprefix("pkg:cargo/"): part
            for part in harness.json.loads(text)["components"] if "purl" in part}


# ---- the Debian package --------------------------------------------------------------------------

def built():
    """Returns the package that deploy/deb.sh builds."""
    code, said, why = output("sh", "deploy/deb.sh", budget_s=400, env=os.environ | PATH)
    if not check("deploy/deb.sh: exit code 0", code == 0, why):
        return None
    package = ROOT / said.strip().splitlines()[-1]
    _, listed, _ = output("dpkg-deb", "--contents", package)
    files = {line.split(" ./", 1)[1] for line in listed.splitlines() if not line.endswith("/")}
    equal("the package: files that are missing", FILES - files, set())
    tree = SCRATCH / "unpacked"
    output("dpkg-deb", "--raw-extract", package, tree)
    control = dict(re.findall(r"^([\w-]+): (.*)", (tree / "DEBIAN/control").read_text(), re.M))
    equal("the package: version and needs", (control["Version"], control["Depends"].split()[0]),
          (f"{MANIFEST['package']['version']}-1", "libc6"))
    equal("the package: conffiles", (tree / "DEBIAN/conffiles").read_text().split(),
          ["/etc/wspulse.env"])
    equal("the package: the tested binary", digest(tree / "usr/bin/wspulse"), digest(BINARY))
    check("the package: its unit starts its binary", "\nExecStart=/usr/bin/wspulse\n"
          in (tree / "usr/lib/systemd/system/wspulse.service").read_text())
    equal("the package: its bill of materials", (tree / DOC / "sbom.cdx.json").read_text(),
          bill()[1])
    return package


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def versions(package):
    """The package as 1, and as 2 and 3 with another binary; 3 also has another conffile."""
    folder = SCRATCH / "packages"
    folder.mkdir()
    shutil.copy(package, folder / "1.deb")
    digests = {"1": digest(SCRATCH / "unpacked/usr/bin/wspulse")}
    for number in ("2", "3"):
        tree = SCRATCH / f"tree-{number}"
        shutil.copytree(SCRATCH / "unpacked", tree)
        control = tree / "DEBIAN" / "control"
        control.write_text(re.sub(r"^(Version: .*)-1$", rf"\1-{number}", control.read_text(),
                                  flags=re.M))
        # Bytes behind the last section change nothing but the digest.
        with open(tree / "usr/bin/wspulse", "ab") as binary:
            binary.write(number.encode())
        if number == "3":
            with open(tree / "etc/wspulse.env", "a", encoding="utf-8") as env:
                env.write("#WSPULSE_MAX_CONNECTIONS=1000\n")
        digests[number] = digest(tree / "usr/bin/wspulse")
        output("dpkg-deb", "--build", "--root-owner-group", "-Zgzip", "-z1", tree,
               folder / f"{number}.deb")
    return folder, digests


class Host(Machine):
    """A Debian with the packages in /packages."""

    def __init__(self, name, folder, digests):
        super().__init__(name, "debian", "--volume", f"{folder}:/packages:ro")
        self.digests = digests

    def files(self):
        paths = self.run("find", "/", "-xdev", "!", "-type", "s")[1].splitlines()
        return {path for path in paths if not re.match(OF_THE_SYSTEM, path + "/")}

    def dpkg(self, *args):
        return self.run("dpkg", *args)

    def runs(self, number):
        """Whether the process is the binary of this version."""
        pid = self.show("MainPID")
        text = self.run("sha256sum", f"/proc/{pid}/exe")[1]
        return text.split()[:1] == [self.digests[number]]

    def active(self):
        return [self.show("ActiveState", unit) for unit in UNITS]

    def enabled(self):
        return [self.show("UnitFileState", unit) for unit in UNITS]

    def journal(self):
        return self.run("journalctl", "--no-pager", "--lines", "20")[1]


def install(host):
    code, said = host.dpkg("--install", "/packages/1.deb")
    check("dpkg --install: exit code 0", code == 0, said)
    check("… the server runs, from /usr/bin", until(host.is_up, 5) and host.runs("1"),
          host.status() + host.journal())
    equal("… both units are active", host.active(), ["active"] * 2)
    equal("… and enabled", host.enabled(), ["enabled"] * 2)
    crowd = host.crowd()
    equal("… 20 clients get their echo", crowd.count("stage", "end"), {("echoed", None): 20})
    crowd.leave()
    equal("… healthcheck", host.run("wspulse", "healthcheck")[0], 0)
    _, verified = host.dpkg("--verify", "wspulse")
    equal("… dpkg --verify", verified.strip(), "")


def upgrade(host, number, close_code, *options):
    """Installs another version under 20 clients."""
    pid, crowd = host.show("MainPID"), host.crowd()
    running = host.launch("dpkg", *options, "--install", f"/packages/{number}.deb",
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    # Requests all the time; all must be answered, late at most.
    requests, asked = Crowd(0, None), time.monotonic()
    while running.poll() is None and time.monotonic() - asked < 30:
        requests.add(Peer(0, ("127.0.0.1", host.port), first=HEALTHZ, sources=HERE))
        crowd.run_until(lambda peer: peer.end, 0.01)
        requests.run_until(lambda peer: peer.end, 0.01)
    said = running.communicate(timeout=10)[0].decode()
    print(f"# the upgrade took {time.monotonic() - asked:.1f} s", flush=True)
    check(f"upgrade to {number}: exit code 0", running.returncode == 0, said)
    equal(f"… the clients are closed with {close_code}", crowd.count("close_code", "end"),
          {(close_code, "eof"): 20})
    check("… the new binary runs", until(lambda: host.is_up(but=pid), 5) and host.runs(number),
          host.status() + host.journal())
    requests.run_until(lambda peer: peer.end, 5)
    answers = requests.count("stage", "end")
    check(f"… {sum(answers.values())} requests meanwhile are all answered with 200",
          answers.keys() == {("200", "eof")}, answers)
    again = host.crowd()
    equal("… 20 clients get their echo", again.count("stage", "end"), {("echoed", None): 20})
    for each in (crowd, again, requests):
        each.leave()


def upgrades(host):
    """The administrator changes the conffile before the first, the package itself in the second."""
    host.run("sh", "-c", "echo WSPULSE_DRAIN_CODE=1012 >> /etc/wspulse.env")
    upgrade(host, "2", 1001)
    text = host.run("cat", "/etc/wspulse.env")[1]
    upgrade(host, "3", 1012, "--force-confold")
    equal("… the changed conffile is kept", host.run("cat", "/etc/wspulse.env")[1], text)
    check("… the package's is beside it",
          "MAX_CONNECTIONS" in host.run("cat", "/etc/wspulse.env.dpkg-dist")[1])


def disabled(host):
    """What the administrator has disabled stays so."""
    host.systemctl("disable", "--now", *UNITS)
    code, said = host.dpkg("--force-downgrade", "--force-confold", "--install", "/packages/2.deb")
    equal("upgrade of disabled units: exit code", (code, code and said), (0, 0))
    equal("… they stay disabled", host.enabled(), ["disabled"] * 2)
    equal("… and inactive", host.active(), ["inactive"] * 2)
    host.systemctl("enable", "--now", *UNITS)


def removal(host, before):
    crowd = host.crowd()
    removing = host.launch("dpkg", "--remove", "wspulse", stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
    crowd.run_until(lambda peer: peer.end, 10)
    equal("dpkg --remove: exit code", removing.wait(30), 0)
    equal("… the clients are closed with 1012", crowd.count("close_code", "end"),
          {(1012, "eof"): 20})
    crowd.leave()
    equal("… systemd has forgotten the units",
          [host.show("LoadState", unit) for unit in UNITS], ["not-found"] * 2)
    left = {path for path in host.files() - before if not path.startswith("/etc/systemd/system/")
            and not path.startswith("/var/lib/systemd/deb-systemd-helper-enabled")}
    equal("… only the settings stay", left,
          {"/etc/wspulse.env", "/etc/wspulse.env.dpkg-dist"} & host.files())
    host.dpkg("--install", "/packages/2.deb")
    check("installed again: the server runs", until(host.is_up, 5), host.status())
    equal("… both units are active", host.active(), ["active"] * 2)
    code, said = host.dpkg("--purge", "wspulse")
    equal("dpkg --purge: exit code", (code, code and said), (0, 0))
    equal("… nothing is left", host.files() ^ before, set())
    names = host.run("sh", "-c", "cat /proc/[0-9]*/comm")[1].split()
    check("… and no process", "systemd" in names and "wspulse" not in names, names)


def taken(host):
    """Another program has the port."""
    host.run("systemd-run", "--unit=other", "systemd-socket-activate", "--listen=8080", "/bin/cat")
    until(lambda: ":1F90 " in host.run("cat", "/proc/net/tcp", "/proc/net/tcp6")[1], 5)
    code, said = host.dpkg("--install", "/packages/1.deb")
    equal("a taken port does not fail the installation", (code, code and said), (0, 0))
    check("… the unit tells why", "in use" in host.journal(), host.journal())
    host.systemctl("stop", "other")
    # Between two attempts the service may have started by itself.
    host.systemctl("stop", *UNITS)
    host.systemctl("reset-failed")
    equal("… and starts when the port is free", host.systemctl("start", *UNITS), (0, ""))
    host.dpkg("--purge", "wspulse")


def main():
    harness.require_binary()
    for group in (crate, arm64, bills):
        section(group)
    package = built()
    if not package:
        harness.finish()
    if why := podman.unusable():
        not_run("the Debian package in a Debian", why)
        harness.finish()
    code, said = podman.podman("import", "--change", "ENV container=podman", DEBIAN, "debian")
    try:
        if code:
            raise RuntimeError(said)
        host = Host("host", *versions(package))
    except RuntimeError as error:
        not_run("the Debian package in a Debian", f"systemd does not start in a container: {error}")
        harness.finish()
    with host:
        before = host.files()
        for group in (install, upgrades, disabled):
            section(group, host)
        section(removal, host, before)
        section(taken, host)
    harness.finish()


main()
