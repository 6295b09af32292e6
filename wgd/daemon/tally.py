"""What the recorder has counted, in memory that it shares with the daemon, so that it outlives a recorder that dies.

It holds the number of the next event of each log group too: the recorder's successor continues there and knows how
many events its predecessor had read and not written.
"""

from __future__ import annotations

import mmap
import os
from enum import IntEnum
from typing import NamedTuple

REASONS = ("overrun", "disk_full", "rate_limit", "restart")
"""Why lines are lost; the place in this list is the place of their UNWRITTEN count."""


class Cell(IntEnum):
    """The places of the 64-bit numbers."""

    EVENTS = 0
    LOST = 1
    UNDECODED = 2
    UNRESOLVED = 3
    OVERRUNS = 4
    NEXT_SEQUENCE = 8
    UNWRITTEN = 12


CELLS = 16


class Counters(NamedTuple):
    """Since the log groups were bound; `events` + `lost` + `undecoded` is what the kernel has logged and we know of.

    `events` are lines of packets in the file; `lost` are events that gave none; `undecoded` are messages that were
    not understood; `unresolved` are lines of a policy whose names were not known; `overruns` counts how often the
    kernel's queue was full.
    """

    events: int
    lost: int
    undecoded: int
    unresolved: int
    overruns: int


class Tally:
    """The numbers behind a descriptor that `create_tally` made."""

    def __init__(self, descriptor: int) -> None:
        self._cells = memoryview(mmap.mmap(descriptor, CELLS * 8)).cast("Q")

    def __getitem__(self, cell: int) -> int:
        return self._cells[cell]

    def add(self, cell: int, count: int) -> None:
        """Add to a number."""
        self._cells[cell] += count

    def set(self, cell: int, number: int) -> None:
        """Replace a number."""
        self._cells[cell] = number

    def counters(self) -> Counters:
        """Return the counts."""
        return Counters(*self._cells[: len(Counters._fields)])


def create_tally() -> int:
    """Return the descriptor of a new tally, all zero."""
    descriptor = os.memfd_create("wgd-tally")
    os.ftruncate(descriptor, CELLS * 8)
    return descriptor
