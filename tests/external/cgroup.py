"""Control groups below our own, version 1 and version 2.

A server enters its group before exec, so that all of its memory is charged to the group.
"""

import os
import time
from pathlib import Path

_made = 0


class Unavailable(Exception):
    """This machine does not allow such a group; the text says why."""


def hierarchies():
    """{"memory": (folder of our own group, version)} for each controller that is mounted."""
    mounts = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2":
            mounts[""] = where
        elif kind == "cgroup":
            mounts |= {option: where for option in options.split(",")}
    found = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in mounts:
                version = 1 if controller else 2
                found[controller] = (Path(mounts[controller] + path), version)
    if "" in found:
        folder, _ = found.pop("")
        offered = folder / "cgroup.controllers"
        for controller in offered.read_text().split() if offered.exists() else ():
            found.setdefault(controller, (folder, 2))
    return found


class Group:
    """A group with limits; commands behind `prefix` run in it, and `with` removes it."""

    def __init__(self, cpu_milli=None, memory=None):
        global _made
        _made += 1
        self.name = f"wspulse-{os.getpid()}-{_made}"
        self.folders, self.memory = {}, memory
        try:
            if cpu_milli:
                self._limit_cpu(cpu_milli)
            if memory:
                self._limit_memory(memory)
        except OSError as error:
            self.remove()
            raise Unavailable(str(error)) from error

    def _make(self, controller):
        folder, version = hierarchies().get(controller, (None, 0))
        if folder is None:
            raise Unavailable(f"there is no controller {controller!r}")
        if version == 2:
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        group = folder / self.name
        group.mkdir(exist_ok=True)
        self.folders[controller] = (group, version)
        return group, version

    def _limit_cpu(self, milli):
        group, version = self._make("cpu")
        quota_us = milli * 100  # the period of 100 000 us is what every container runtime sets
        if version == 2:
            (group / "cpu.max").write_text(f"{quota_us} 100000")
        else:
            (group / "cpu.cfs_period_us").write_text("100000")
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))

    def _limit_memory(self, limit):
        group, version = self._make("memory")
        if version == 2:
            (group / "memory.max").write_text(str(limit))
            return
        (group / "memory.limit_in_bytes").write_text(str(limit))
        # Version 1 counts socket buffers separately, and only if they have a limit; version 2 counts
        # them with the rest. A limit that is never reached enables the counter.
        tcp = group / "memory.kmem.tcp.limit_in_bytes"
        if tcp.exists():
            tcp.write_text(str(1 << 40))

    @property
    def prefix(self):
        """Goes before a command that is to run in this group; the process id stays the same."""
        procs = " ".join(str(folder / "cgroup.procs") for folder, _ in self.folders.values())
        enter = 'for procs in $1; do echo $$ > "$procs" || exit 1; done; shift; exec "$@"'
        return ["sh", "-c", enter, "sh", procs]

    def _number(self, file, key=None):
        """A figure of the memory controller; 0 if this kernel does not report it."""
        try:
            text = (self.folders["memory"][0] / file).read_text()
        except OSError:
            return 0
        if key is None:
            return int(text)
        return next((int(line.split()[1]) for line in text.splitlines()
                     if line.split()[0] == key), 0)

    def usage(self):
        """Bytes in use: the process, kernel memory charged to it, and socket buffers."""
        if self.folders["memory"][1] == 2:
            return self._number("memory.current")
        return self._number("memory.usage_in_bytes") + self._number("memory.kmem.tcp.usage_in_bytes")

    def sockets(self):
        if self.folders["memory"][1] == 2:
            return self._number("memory.stat", "sock")
        return self._number("memory.kmem.tcp.usage_in_bytes")

    def refusals(self):
        """How often the limit was reached; the kernel then reclaims or kills."""
        if self.folders["memory"][1] == 2:
            return self._number("memory.events", "max")
        return self._number("memory.failcnt")

    def kills(self):
        file = "memory.events" if self.folders["memory"][1] == 2 else "memory.oom_control"
        return self._number(file, "oom_kill")

    def remove(self):
        for folder, _ in self.folders.values():
            for _ in range(50):  # a process killed just now may not be gone yet
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()
