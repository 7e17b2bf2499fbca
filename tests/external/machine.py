"""A container whose PID 1 is systemd, for `units.py` and `package.py`."""

import podman
import harness
from crowd import Crowd
from harness import until

HERE = ["127.0.0.1"]


class Machine:
    """Runs systemd in an image; `with` removes the container."""

    def __init__(self, name, image, *options):
        self.name, self.port = name, harness.free_port()
        code, output = podman.podman(
            "run", "--detach", "--name", name, "--systemd=always", "--cap-add", "ALL",
            "--security-opt", "seccomp=unconfined", "--publish", f"127.0.0.1:{self.port}:8080",
            "--network", podman.NETWORK, *options, image, "/lib/systemd/systemd")
        if code:
            raise RuntimeError(output)
        if not until(lambda: self.run("systemctl", "is-active", "default.target")[0] == 0, 20):
            raise RuntimeError(podman.podman("logs", name)[1])

    def run(self, *command, budget_s=30):
        return podman.podman("exec", self.name, *command, budget_s=budget_s)

    def systemctl(self, *command):
        return self.run("systemctl", "--no-pager", *command)

    def show(self, key, unit="wspulse.service"):
        return self.systemctl("show", "--value", "--property", key, unit)[1].strip()

    def crowd(self, count=20):
        crowd = Crowd(count, ("127.0.0.1", self.port), sources=HERE)
        crowd.run_until(lambda peer: peer.end or peer.echoes, 5)
        return crowd

    def is_up(self, but="0"):
        """Whether it is ready and its process is not `but`."""
        up = self.show("ActiveState") == "active" and self.show("SubState") == "running"
        return up and self.show("MainPID") not in ("0", but)

    def status(self):
        return self.systemctl("status", "wspulse.service")[1]

    def launch(self, *command, **popen):
        """Starts a command without waiting for it."""
        command = [*podman.BASE, "exec", self.name, *command]
        return harness.launch([str(part) for part in command], **popen)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        podman.podman("rm", "--force", "--time", "0", self.name)
