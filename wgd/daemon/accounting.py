"""What the kernel has logged, against what is in the file, lost or not understood: the rest is lost too (promise 6).

The kernel's counters live as long as its table, the tally's as long as /run. The difference between the two at their
beginning is kept for each source, its base. Where a comparison shows more events than the kernel can have logged since
that beginning, the table was made anew and its counters began at 0: the base is moved. What was on its way in that
moment makes it too small at first, so that no event is ever called lost that is not; the next comparisons mend it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from wgd.daemon.tally import FLOW_ENDS, REASONS, Cell, Count, Tally, accounted, cell
from wgd.kernel.nft_counters import Logged

_LIMITED, _KNOWN, _ENDS = 8, 9, 10
"""The places of the base of what was only counted, after those of the groups, of whether there are any yet, and of the
base of the ends of flows: of these the kernel has counted the beginnings, and those are missing that live on."""
_MODULO, _LAST_POSITIVE = 1 << 64, (1 << 63) - 1
NOTHING = Logged((0, 0), 0)
LAST_TAKEN = (1 << 32) - 1


class Expected(NamedTuple):
    """How many events of each source, and how many that were only counted, must be accounted for."""

    logged: tuple[int, ...]
    limited: int


class Alive(NamedTuple):
    """How many recorded flows live on: at least, of those that the kernel had counted, and at most, with later ones."""

    least: int = 0
    most: int = 0


NO_FLOWS = Alive()


class Accounting:
    """The comparison for one tally; it goes on where the daemon before has ended."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._recorded = tally.recorded
        self._compared = tally.compared

    def begin(self, logged: Logged | None, anew: Collection[int], alive: Alive) -> int:
        """Begin before there is a recorder; return how many events were lost while there was none.

        `logged` is what the kernel has counted until now, None where it has no table. The groups of the sources `anew`
        were not bound: nothing of that can still come of them. `alive` are the recorded flows of whose ends the next
        recorder is told, which matters only where FLOW_ENDS is one of `anew`.
        """
        numbers = self._recorded.numbers = self._recorded.read()
        numbers[Cell.REQUEST] = 0
        if logged is None or not self._compared.numbers[_KNOWN]:
            self._set_bases(numbers, logged or NOTHING)
            self._compared.numbers[_ENDS] = (accounted(numbers, FLOW_ENDS) - (logged or NOTHING).recorded) % _MODULO
        missing = 0
        expected = self.expected(numbers, logged or NOTHING).logged
        for source in anew:
            if source == FLOW_ENDS:
                missing += self._ends_lost(numbers, logged or NOTHING, alive)
                continue
            lost = max(0, expected[source] - accounted(numbers, source))
            numbers[cell(source, Count.LOST)] += lost
            numbers[cell(source, Count.NEXT_SEQUENCE)] = 0
            missing += lost
        numbers[Cell.UNWRITTEN + REASONS.index("restart")] += missing
        self._recorded.commit()
        return missing

    def _ends_lost(self, numbers: list[int], logged: Logged, alive: Alive) -> int:
        """Count as lost the ends of flows that were told to nobody, or not told of, and begin with another socket."""
        bases, told = self._compared.numbers, accounted(numbers, FLOW_ENDS)
        # Flows that the kernel has not counted yet would make the base, and the losses of the next start, too large.
        bases[_ENDS] = max(_signed(bases[_ENDS]), told + alive.least - logged.recorded) % _MODULO
        self._compared.commit()
        lost = max(0, logged.recorded + _signed(bases[_ENDS]) - alive.most - told)
        numbers[cell(FLOW_ENDS, Count.LOST)] += lost
        place = cell(FLOW_ENDS, Count.NEXT_SEQUENCE)
        # Of this socket none was dropped so far (sources.py, accounted_ends).
        numbers[place] = self._tally.taken & LAST_TAKEN
        return lost

    def bound_anew(self) -> None:
        """Take it, between two recorders, that the kernel counts events of the sources from 0 again."""
        numbers = self._recorded.numbers = self._recorded.read()
        for source in range(len(NOTHING.groups)):
            numbers[cell(source, Count.NEXT_SEQUENCE)] = 0
        self._recorded.commit()

    def expected(self, before: list[int], logged: Logged) -> Expected:
        """Return what the kernel has counted, in the tally's terms; `before` was read from it before `logged` was."""
        differences = _differences(before, logged)
        bases = self._compared.numbers
        for place, difference in differences.items():
            bases[place] = max(_signed(bases[place]), difference) % _MODULO
        self._compared.commit()
        return Expected(
            tuple(count + _signed(bases[source]) for source, count in enumerate(logged.groups)),
            logged.limited + _signed(bases[_LIMITED]),
        )

    def _set_bases(self, numbers: list[int], logged: Logged) -> None:
        for place, difference in _differences(numbers, logged).items():
            self._compared.numbers[place] = difference % _MODULO
        self._compared.numbers[_KNOWN] = 1
        self._compared.commit()


def _differences(numbers: list[int], logged: Logged) -> dict[int, int]:
    """Return by how much the tally's counts exceed the kernel's, by the place of their base."""
    sources = {source: accounted(numbers, source) - count for source, count in enumerate(logged.groups)}
    return {**sources, _LIMITED: numbers[Cell.RATE_LIMITED] - logged.limited}


def _signed(number: int) -> int:
    return number if number <= _LAST_POSITIVE else number - _MODULO
