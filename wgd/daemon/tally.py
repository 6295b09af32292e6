"""What has been counted of the kernel's log, in a file in memory that the daemon and its recorder share.

It outlives both: a recorder's successor goes on where it ended, and so does a daemon that was killed or restarted, for
the file is in /run, as long as the kernel's table is (promise 6). Each part has one writer, which changes it as a
whole: whoever is killed leaves what was before or what came after, nothing in between.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from wgd.errors import ConflictError, HostError

REASONS = ("overrun", "disk_full", "rate_limit", "restart")
"""Why lines are lost, as the event log says it; the place in this list is the place of the UNWRITTEN count.

overrun: a queue was full, or the file took no lines for another reason than its disk's being full; disk_full: no room,
no quota, or a limit of the file's size; rate_limit: denials that the ruleset did not log; restart: nobody read, or
whoever had read was killed.
"""
MAX_SOURCES = 4


class Count(IntEnum):
    """What is counted of each source."""

    EVENTS = 0
    LOST = 1
    UNDECODED = 2
    NEXT_SEQUENCE = 3


class Cell(IntEnum):
    """The places of the recorder's numbers; the last ones say what is about to be written (event_log.py)."""

    SOURCES = 0
    UNWRITTEN = 16
    UNRESOLVED = 20
    OVERRUNS = 21
    RATE_LIMITED = 22
    REQUEST = 23
    PENDING = 24
    PENDING_SOURCE = 25
    PENDING_EVENTS = 26
    PENDING_LOST = 27
    PENDING_UNDECODED = 28
    PENDING_UNRESOLVED = 29
    PENDING_SEQUENCE = 30
    PENDING_REQUEST = 31
    DEVICE = 32
    INODE = 33
    OFFSET = 34
    UNSENT = 35


class Counters(NamedTuple):
    """What Status shows; `events` + `lost` + `undecoded` is all we know the kernel to have logged, limited or told.

    `events` are lines of packets and flows in the file; `lost` are events that gave none; `undecoded` are messages that
    were not understood; `unresolved` are lines of a policy whose names were not known; `overruns` counts how often the
    kernel's queue was full; `unsent` lines of the file are not in the journal, which should have them too.
    """

    events: int
    lost: int
    undecoded: int
    unresolved: int
    overruns: int
    unsent: int


_MAGIC = 0x7764_6774_616C_0002
"""The layout: a tally of another version's is begun anew."""
_NUMBER = struct.Struct("@Q")
"""Native, so that it is written at once."""
_WAIT_SECONDS = 5.0
_PAUSE_SECONDS = 0.01


def cell(source: int, count: Count) -> int:
    """Return the place of a source's count."""
    return Cell.SOURCES + len(Count) * source + count


class Part:
    """Numbers with one writer and any number of readers: two copies, and a count of changes that says which is meant.

    `numbers` is the writer's own copy; `commit` makes it the one that everybody reads.
    """

    def __init__(self, memory: mmap.mmap, offset: int, size: int) -> None:
        self._memory = memory
        self._changes = offset
        self._form = struct.Struct(f"={size}Q")
        self._copies = tuple(offset + _NUMBER.size + copy * self._form.size for copy in (0, 1))
        self.numbers = self.read()

    @staticmethod
    def bytes_of(size: int) -> int:
        """Return how many bytes a part of `size` numbers takes."""
        return (1 + 2 * size) * _NUMBER.size

    def read(self) -> list[int]:
        """Return the numbers as they were committed last."""
        while True:
            (changes,) = _NUMBER.unpack_from(self._memory, self._changes)
            numbers = list(self._form.unpack_from(self._memory, self._copies[changes & 1]))
            # The copy that was read is overwritten by the change after the next.
            if _NUMBER.unpack_from(self._memory, self._changes) == (changes,):
                return numbers

    def commit(self) -> None:
        """Make `numbers` what is read from now on."""
        (changes,) = _NUMBER.unpack_from(self._memory, self._changes)
        self._form.pack_into(self._memory, self._copies[(changes + 1) & 1], *self.numbers)
        _NUMBER.pack_into(self._memory, self._changes, changes + 1)


RECORDED, COMPARED = 40, 12
"""How many numbers each part has; more than are in use."""
_RECORDED_AT = _NUMBER.size
_COMPARED_AT = _RECORDED_AT + Part.bytes_of(RECORDED)
_TAKEN_AT = _COMPARED_AT + Part.bytes_of(COMPARED)
SIZE = _TAKEN_AT + _NUMBER.size
FLOW_ENDS = 2
"""The place of the source that tells of the ends of flows, after the two log groups."""


class Tally:
    """The numbers behind a descriptor of `open_tally`.

    `recorded` is written by the recorder, and by the daemon while there is none; `compared` by the daemon alone
    (accounting.py says what is in it).
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = memory = mmap.mmap(descriptor, SIZE)
        self.recorded = Part(memory, _RECORDED_AT, RECORDED)
        self.compared = Part(memory, _COMPARED_AT, COMPARED)

    @property
    def taken(self) -> int:
        """How many ends of flows were taken from their socket, by all recorders: written at each, before it is read."""
        (taken,) = _NUMBER.unpack_from(self._memory, _TAKEN_AT)
        return int(taken)

    @taken.setter
    def taken(self, taken: int) -> None:
        _NUMBER.pack_into(self._memory, _TAKEN_AT, taken)

    def counters(self) -> Counters:
        """Return the counts."""
        numbers = self.recorded.read()
        events, lost, undecoded = (
            sum(numbers[cell(source, count)] for source in range(MAX_SOURCES))
            for count in (Count.EVENTS, Count.LOST, Count.UNDECODED)
        )
        others = (numbers[place] for place in (Cell.UNRESOLVED, Cell.OVERRUNS, Cell.UNSENT))
        return Counters(events, lost + numbers[Cell.RATE_LIMITED], undecoded, *others)


def accounted(numbers: Sequence[int], source: int) -> int:
    """Return how many events of a source are in the file, lost or not understood."""
    return sum(numbers[cell(source, count)] for count in (Count.EVENTS, Count.LOST, Count.UNDECODED))


def open_tally(path: Path) -> int:
    """Return a descriptor of the tally at `path`, made if there is none, and held for this process and its children.

    Wait until a recorder that is left of a daemon before has written what it had read. Raise ConflictError when it
    does not end, HostError when the file cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HostError(str(path), f"cannot be opened: {error.strerror}") from error
    try:
        _hold(descriptor, path)
        _begin(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise HostError(str(path), f"cannot be prepared: {error.strerror}") from error
    except ConflictError:
        os.close(descriptor)
        raise
    return descriptor


def close_tally(descriptor: int) -> None:
    """Let go of a tally when its recorder has ended; what reads it yet shall not keep the next daemon waiting."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _hold(descriptor: int, path: Path) -> None:
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise ConflictError(str(path), "the recorder of a gateway that has ended still runs") from None
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _begin(descriptor: int) -> None:
    """Fill a file that is new, or another version's, with zeros; all its memory is taken now, or it is refused."""
    if os.pread(descriptor, _NUMBER.size, 0) != _NUMBER.pack(_MAGIC) or os.fstat(descriptor).st_size != SIZE:
        os.ftruncate(descriptor, 0)
        os.posix_fallocate(descriptor, 0, SIZE)
        os.pwrite(descriptor, _NUMBER.pack(_MAGIC), 0)
