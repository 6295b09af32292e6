"""The names of the last policies: the kernel's log prefix carries the digest of the policy that logged a packet.

So an event that was queued across a reload is resolved against its own policy.
"""

from __future__ import annotations

from math import inf

from wgd.policy.names import Names

KEPT = 8
"""How many policies' Names are kept: the newest, and those that queued events may still point to."""


class NamesBook:
    """The Names of the last policies by digest. `generation` grows with every change, for those who cache."""

    def __init__(self) -> None:
        self._names: dict[str, Names] = {}
        self.generation = 0

    def add(self, names: Names) -> None:
        """Keep these names as the newest; forget the oldest beyond KEPT."""
        self._names.pop(names.digest, None)
        self._names[names.digest] = names
        if len(self._names) > KEPT:
            del self._names[next(iter(self._names))]
        self.generation += 1

    def next_end(self, now: float) -> float:
        """Return when, after `now`, the next rule of any of them ends, in POSIX seconds; infinity when none does."""
        ends = (names.next_end(now) for names in self._names.values())
        return min((end for end in ends if end is not None), default=inf)

    def get(self, digest: str) -> Names | None:
        """Return the names of the policy that this digest stands for, None when they are not (or no longer) known."""
        return self._names.get(digest)
