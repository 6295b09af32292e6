"""The descriptors that a service manager keeps for a service: what systemd does with FDSTORE=1, as far as wgd uses it.

src/core/service.c: service_add_fd_store keeps a descriptor of each open file once and refuses more than the unit
allows; service_remove_fd_store takes out all of a name. What is kept is given to the next process of the service, from
3 on (sd_listen_fds(3)).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

MOST = 16
"""FileDescriptorStoreMax= of wgd-server.service."""
LAUNCH = """
import fcntl, os, sys
kept = [fcntl.fcntl(int(word), fcntl.F_DUPFD, 100) for word in sys.argv[2].split(",")]
for number, descriptor in enumerate(kept, 3):
    os.dup2(descriptor, number)
    os.close(descriptor)
given = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(kept)), "LISTEN_FDNAMES": sys.argv[1]}
os.execvpe(sys.argv[3], sys.argv[3:], {**os.environ, **given})
"""


class Kept:
    """What is kept, by name, at `most` so many; 0 is what a unit allows that says nothing."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self.found: list[tuple[str, int]] = []

    def hear(self, lines: Sequence[str], descriptors: Sequence[int]) -> None:
        """Do what a message asks for."""
        name = next((line.removeprefix("FDNAME=") for line in lines if line.startswith("FDNAME=")), "stored")
        if "FDSTOREREMOVE=1" in lines:
            self._close([each for each in self.found if each[0] == name])
        for descriptor in descriptors:
            known = any(os.path.sameopenfile(descriptor, other) for _, other in self.found)
            if "FDSTORE=1" in lines and "FDPOLL=0" in lines and not known and len(self.found) < self._most:
                self.found.append((name, descriptor))
            else:
                os.close(descriptor)

    def given_to(self, command: list[str]) -> list[str]:
        """Return the command that runs `command` with what is kept."""
        if not self.found:
            return command
        names, numbers = zip(*self.found, strict=True)
        return ["/usr/bin/python3", "-c", LAUNCH, ":".join(names), ",".join(map(str, numbers)), *command]

    def descriptors(self) -> tuple[int, ...]:
        """Return what is kept."""
        return tuple(descriptor for _, descriptor in self.found)

    def names(self) -> list[str]:
        """Return under which names something is kept."""
        return sorted(name for name, _ in self.found)

    def close(self) -> None:
        """Keep nothing any more."""
        self._close(self.found)

    def _close(self, gone: Sequence[tuple[str, int]]) -> None:
        for each in list(gone):
            self.found.remove(each)
            os.close(each[1])
