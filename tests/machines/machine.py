"""What a test does with a machine that booted systemd, be it a container or a virtual machine."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

SUITES = ("bookworm", "trixie")
CAPTIVE_SECONDS = 300.0
"""How long a command may take: a bound for what hangs, not for what is slow."""


class CommandError(AssertionError):
    """A command on a machine failed that should not have."""


def wait_until(what: str, condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Return the first true value of `condition`; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} seconds")
        time.sleep(0.1)


class Machine(ABC):
    """A machine with systemd as its first process. How a command gets there is the subclass's.

    `concerns` are the units whose journal is shown when a test fails.
    """

    def __init__(self, name: str, suite: str) -> None:
        self.name = name
        self.suite = suite
        self.concerns: list[str] = []

    @abstractmethod
    def execute(self, command: list[str], stdin: str, seconds: float) -> subprocess.CompletedProcess[str]:
        """Run a command as root and return what came of it."""

    @abstractmethod
    def reboot(self) -> None:
        """Shut the machine down in order, and boot it again from the same disk."""

    def answer(self, *command: str, stdin: str = "", seconds: float = CAPTIVE_SECONDS) -> tuple[int, str]:
        """Run a command; return its exit code and what it printed, on either stream."""
        done = self.execute(list(command), stdin, seconds)
        return done.returncode, done.stdout + done.stderr

    def run(self, *command: str, stdin: str = "", seconds: float = CAPTIVE_SECONDS) -> str:
        """Run a command that must succeed; return its standard output."""
        done = self.execute(list(command), stdin, seconds)
        if done.returncode != 0:
            said = f"{done.stdout}{done.stderr}".strip()
            raise CommandError(f"{self.name}: {shlex.join(command)}: exit code {done.returncode}\n{said}")
        return done.stdout

    def succeeds(self, *command: str) -> bool:
        return self.answer(*command)[0] == 0

    def shell(self, script: str, seconds: float = CAPTIVE_SECONDS) -> str:
        """Run a script of sh, which ends at its first failure."""
        return self.run("sh", "-euc", script, seconds=seconds)

    def read(self, path: str) -> str:
        return self.run("cat", path)

    def write(self, path: str, text: str, mode: str = "0644", group: str = "root") -> None:
        """Write a file whole, with the folders above it."""
        self.run("install", "-D", "-m", mode, "-g", group, "/dev/stdin", path, stdin=text)

    def properties(self, unit: str, *names: str) -> dict[str, str]:
        """Return properties of a unit, as `systemctl show` has them."""
        shown = self.run("systemctl", "show", unit, *(f"--property={name}" for name in names))
        return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)

    def property(self, unit: str, name: str) -> str:
        return self.properties(unit, name).get(name, "")

    def main_pid(self, unit: str) -> int:
        return int(self.property(unit, "MainPID") or 0)

    def is_active(self, unit: str) -> bool:
        return self.property(unit, "ActiveState") == "active"

    def wait_active(self, unit: str) -> None:
        wait_until(f"{unit} on {self.name} is active", lambda: self.is_active(unit))

    def cursor(self) -> str:
        """Return the journal's end, from which `journal` reads on."""
        shown = self.run("journalctl", "--lines=0", "--show-cursor", "--quiet").strip()
        return shown.removeprefix("-- cursor: ")

    def journal(self, unit: str, cursor: str = "", match: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Return the entries of a unit's journal, after `cursor` if one is given."""
        after = [f"--after-cursor={cursor}"] if cursor else []
        fields = [f"{name}={value}" for name, value in (match or {}).items()]
        printed = self.run("journalctl", "--quiet", "--output=json", f"--unit={unit}", *after, *fields)
        return [json.loads(line) for line in printed.splitlines()]

    def said(self, unit: str, cursor: str = "") -> list[str]:
        """Return what a unit's processes themselves wrote to the journal, a line each."""
        return [entry["MESSAGE"] for entry in self.journal(unit, cursor) if entry.get("SYSLOG_IDENTIFIER") != "systemd"]

    def shown_journal(self, unit: str, since: float) -> str:
        """Return a unit's journal from a time on as people read it, or why there is none."""
        options = ("--no-pager", "--lines=100", "--output=short-precise", f"--since=@{since:.6f}")
        return self.answer("journalctl", *options, f"--unit={unit}")[1]
