"""The network between containers: a namespace with a bridge a network, and nothing that leads out of it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping

from tests.machines.machine import wait_until
from tests.machines.process import BOUND, ended
from tests.machines.root import MakingError, quietly


class Network:
    """A namespace that lives as long as the process `holder`. `join` puts the ends of cables into its bridges."""

    def __init__(self, holder: int) -> None:
        self.enter = ["nsenter", f"--net=/proc/{holder}/ns/net", "--"]

    def ip(self, *arguments: str) -> None:
        quietly(*self.enter, "ip", *arguments)

    def join(self, cables: Mapping[str, str]) -> None:
        """Plug in cables, given as end -> bridge: they appear while the machine starts."""
        for end, bridge in cables.items():
            wait_until(f"the cable {end}", lambda end=end, bridge=bridge: self._plugged(end, bridge))

    def _plugged(self, end: str, bridge: str) -> bool:
        with contextlib.suppress(MakingError):
            self.ip("link", "set", end, "master", bridge, "up")
            return True
        return False


@contextlib.contextmanager
def network(*bridges: str) -> Iterator[Network]:
    """Make a network with these bridges; it and what is in it are gone afterwards."""
    # What it prints tells that the namespace is there.
    holder = subprocess.Popen(
        [*BOUND, "unshare", "--net", "sh", "-c", "echo && exec sleep infinity"], stdout=subprocess.PIPE
    )
    with ended(holder):
        assert holder.stdout is not None
        holder.stdout.readline()
        made = Network(holder.pid)
        for bridge in bridges:
            made.ip("link", "add", bridge, "type", "bridge")
            made.ip("link", "set", bridge, "up")
        yield made
