"""Containers that boot systemd: systemd-nspawn on a copy-on-write layer over a root that others start from too.

A container has cgroups of its own, under every hierarchy that this host has mounted for systemd: two containers in one
cgroup break each other. Its network is cables into a namespace that the test made. Neither device policy nor
IP filters are enforced in it: those are for the vm lane.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from tests.machines.machine import Machine, wait_until
from tests.machines.network import Network
from tests.machines.process import BOUND
from tests.machines.root import quietly

BOOT_SECONDS = 120.0
STOP_SECONDS = 90.0
# systemd's own: power off in order.
POWER_OFF = signal.SIGRTMIN + 4
PROMPT_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
# Debian 12's nspawn knows nothing of Landlock.
SYSTEM_CALLS = "--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self"
CGROUP_PREFIX = "wgd-test-"
# The shell puts itself into the container's cgroups before it becomes nspawn.
START = 'for group in $CGROUPS; do echo $$ >"$group/cgroup.procs"; done; exec "$@"'


def hierarchies() -> list[Path]:
    """Return where this host has mounted the cgroup hierarchies that systemd keeps its units in."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ", 1)
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(before.split()[4]))
    return found


def sweep_cgroups() -> None:
    """End the containers whose makers were killed and could not, and remove their cgroups."""
    for mounted in hierarchies():
        for group in mounted.glob(f"{CGROUP_PREFIX}*"):
            maker = group.name.removeprefix(CGROUP_PREFIX).split("-")[0]
            if not Path("/proc", maker).exists():
                for listed in group.rglob("cgroup.procs"):
                    for pid in listed.read_text().split():
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(int(pid), signal.SIGKILL)
                remove_cgroup(group)


def remove_cgroup(path: Path) -> None:
    """Remove an empty cgroup and the ones in it."""
    if path.exists():
        for directory, _, _ in os.walk(path, topdown=False):
            # A process that was killed a moment ago may not have left yet.
            wait_until(f"{directory} is removed", lambda here=directory: _removed(here))


def _removed(directory: str) -> bool:
    with contextlib.suppress(OSError):
        Path(directory).rmdir()
    return not Path(directory).exists()


class Container(Machine):
    """A container over `root`, whose changes are in `scratch`. `cables` names the bridge behind each of its links."""

    def __init__(
        self,
        name: str,
        suite: str,
        root: Path,
        scratch: Path,
        *,
        network: Network,
        cables: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(name, suite)
        self._hostname = re.sub(r"[^a-z0-9-]", "-", name)
        self._network = network
        # The end in the network is named after machine and link, within the kernel's 15 characters.
        self._ends = {f"{self._hostname[:7]}-{link[:7]}": (link, bridge) for link, bridge in (cables or {}).items()}
        self._options = [f"--network-veth-extra={end}:{link}" for end, (link, _) in self._ends.items()]
        self._scratch = scratch
        self.root = scratch / "root"
        self._cgroups = [mounted / f"{CGROUP_PREFIX}{os.getpid()}-{self._hostname}" for mounted in hierarchies()]
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader: int | None = None
        for part in ("root", "changed", "work"):
            (scratch / part).mkdir(parents=True)
        # Debian's udev lets everybody open it; this host may have none.
        self._tun = scratch / "tun"
        os.mknod(self._tun, 0o666 | stat.S_IFCHR, os.makedev(10, 200))
        self._tun.chmod(0o666)
        layers = f"lowerdir={root},upperdir={scratch}/changed,workdir={scratch}/work"
        quietly("mount", "-t", "overlay", "overlay", "-o", layers, str(self.root))
        self._identify()

    def _identify(self) -> None:
        """Give the machine its name and its id: without one, systemd takes a boot for the first."""
        (self.root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (self.root / "etc/hostname").write_text(f"{self._hostname}\n")

    def boot(self) -> None:
        """Start the machine and wait until systemd has nothing more to do."""
        for group in self._cgroups:
            group.mkdir(exist_ok=True)
        command = [
            *(*BOUND, *self._network.enter, "sh", "-c", START, "sh"),
            *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", f"--directory={self.root}"),
            *(f"--machine={self._hostname}", "--private-network", "--boot", "--capability=all", "--console=pipe"),
            *(f"--bind={self._tun}:/dev/net/tun", SYSTEM_CALLS, "--resolv-conf=off", "--timezone=off", *self._options),
        ]
        environment = {
            **os.environ,
            "CGROUPS": " ".join(map(str, self._cgroups)),
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        }
        console = self._scratch / "console"
        with console.open("wb") as output:
            self._nspawn = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
            )
        self._leader = wait_until(f"{self.name} starts", self._find_leader, BOOT_SECONDS)
        self._network.join({end: bridge for end, (_, bridge) in self._ends.items()})
        wait_until(f"{self.name} has booted", self._has_booted, BOOT_SECONDS)

    def _find_leader(self) -> int | None:
        """Return the container's first process, as this host numbers it."""
        assert self._nspawn is not None
        code = self._nspawn.poll()
        assert code is None, f"systemd-nspawn ended with {code}:\n{(self._scratch / 'console').read_text()}"
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(FileNotFoundError):
                status = Path(f"/proc/{child}/status").read_text()
                numbers = re.search(r"^NSpid:\t(.*)$", status, re.MULTILINE)
                # Once systemd runs as number 1 of its namespace, the namespaces are as they will stay.
                if numbers and numbers[1].split()[1:] == ["1"] and status.startswith("Name:\tsystemd\n"):
                    return int(child)
        return None

    def _has_booted(self) -> bool:
        return self.answer("systemctl", "is-system-running", "--wait")[1].strip() in {"running", "degraded"}

    def _entered(self, command: list[str]) -> list[str]:
        assert self._leader is not None, f"{self.name} is not running"
        return ["nsenter", "--target", str(self._leader), "--all", "--wd=/", "--", *command]

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command that runs beside the test, and ends with it or when its standard input does."""
        return subprocess.Popen(
            [*BOUND, *self._entered(list(command))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=PROMPT_ENVIRONMENT,
        )

    def execute(self, command: list[str], stdin: str, seconds: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._entered(command),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            env=PROMPT_ENVIRONMENT,
            timeout=seconds,
            check=False,
        )

    def power_off(self) -> None:
        """Shut the machine down in order."""
        if self._nspawn is None or self._leader is None:
            return
        os.kill(self._leader, POWER_OFF)
        self._nspawn.wait(STOP_SECONDS)
        self._nspawn = self._leader = None

    def reboot(self) -> None:
        self.power_off()
        self.boot()

    def remove(self) -> None:
        """Take the machine and all that it left away; whoever calls needs nothing more of it."""
        if self._nspawn is not None:
            if self._leader is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._leader, signal.SIGKILL)
            else:
                self._nspawn.kill()
            self._nspawn.wait(STOP_SECONDS)
            self._nspawn = self._leader = None
        quietly("umount", "--lazy", str(self.root))
        shutil.rmtree(self._scratch)
        for group in self._cgroups:
            remove_cgroup(group)
