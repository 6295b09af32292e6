"""Descriptors that the service manager keeps over a restart: sd_notify(3), sd_listen_fds(3), FileDescriptorStoreMax=.

The kernel goes on queueing in a socket that somebody holds, so that a restart loses nothing of the log. Where there is
no manager, or it keeps nothing, there is nothing to take and putting has no effect.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from wgd.daemon import notify


class Store:
    """What the manager has kept of the daemon before, each to be taken once, and what it keeps of this one."""

    def __init__(self) -> None:
        self._found = notify.kept_descriptors()
        self._put: set[str] = set()

    def take(self, name: str) -> int | None:
        """Return a descriptor that was kept under `name`, which is the caller's from now on, None if there is none."""
        return self._found.pop(name, None)

    def names(self, prefix: str) -> tuple[str, ...]:
        """Return the names beginning with `prefix` of what was kept and not taken yet."""
        return tuple(name for name in self._found if name.startswith(prefix))

    def put(self, name: str, descriptor: int) -> None:
        """Have a descriptor kept; one that is kept already is not kept twice."""
        self._put.add(name)
        notify.keep_descriptor(name, descriptor)

    def remove(self, names: Iterable[str]) -> None:
        """Have what is kept under these names let go of."""
        for name in names:
            self._put.discard(name)
            notify.let_go(name)

    def remove_all(self) -> None:
        """Have everything let go of that was put here."""
        self.remove(sorted(self._put))

    def remove_rest(self) -> None:
        """Let go of what was kept and that nobody has taken."""
        for descriptor in self._found.values():
            os.close(descriptor)
        self.remove(self._found)
        self._found.clear()
