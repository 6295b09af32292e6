"""The names of the last policies: the kernel's log prefix carries the digest of the policy that logged a packet.

So an event that was queued across a reload is resolved against its own policy. What the kernel tells of a flow's end
carries no digest, but the time at which the flow began; for it the book knows which policy was in force then.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from math import inf

from wgd.policy.names import Names

KEPT = 8
"""How many policies' Names are kept: the newest, and those that queued events may still point to."""


class NamesBook:
    """The Names of the last policies by digest. `generation` grows with every change, for those who cache."""

    def __init__(self) -> None:
        self._names: dict[str, Names] = {}
        self._since: list[tuple[int, str]] = []
        self.generation = 0

    def add(self, names: Names, since: int = 0) -> None:
        """Keep these names as the newest, in force from `since`, in ns of the epoch; forget the oldest beyond KEPT."""
        self._names.pop(names.digest, None)
        self._names[names.digest] = names
        insort(self._since, (since, names.digest))
        if len(self._names) > KEPT:
            oldest = next(iter(self._names))
            del self._names[oldest]
            self._since = [entry for entry in self._since if entry[1] != oldest]
        del self._since[: -2 * KEPT]
        self.generation += 1

    def next_end(self, now: float) -> float:
        """Return when, after `now`, the next rule of any of them ends, in POSIX seconds; infinity when none does."""
        ends = (names.next_end(now) for names in self._names.values())
        return min((end for end in ends if end is not None), default=inf)

    def get(self, digest: str) -> Names | None:
        """Return the names of the policy that this digest stands for, None when they are not (or no longer) known."""
        return self._names.get(digest)

    def changes(self) -> list[int]:
        """Return when another policy came into force or a rule ended, in ns of the epoch, the oldest first."""
        ends = {rule.until * 1_000_000_000 for names in self._names.values() for rule in names.rules if rule.until}
        return sorted(ends.union(since for since, _ in self._since))

    def in_force(self, time: int) -> list[Names]:
        """Return the names that were in force at a time, in ns of the epoch, and after them all others, newest first.

        Of a time before the first names the oldest are the best guess.
        """
        if not self._since:
            return []
        place = bisect_right(self._since, time, key=lambda entry: entry[0]) - 1
        first = self._names[self._since[max(place, 0)][1]]
        return [first, *(names for names in reversed(self._names.values()) if names is not first)]
