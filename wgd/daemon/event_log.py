"""The recorder's pen: lines go into the file, and what does not is counted and said there later.

The journal, where it is asked for, is sent what stands in the file.

What lines mean is committed to the tally before they are written and after: a successor of a recorder that was killed
in between looks into the file for how far it came (`recover`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from wgd.daemon.journal_copy import JournalCopy
from wgd.daemon.tally import REASONS, Cell, Count, Part, cell
from wgd.errors import HostError
from wgd.events.lines import lost_line, time_text
from wgd.host.log_file import Appended, LogFile, Place, is_full

_LOST = b'","event":"lost",'
_LOST_BEFORE = 64
"""Where a line's event stands at the latest."""
_ATTEMPTS = 3
"""How often lines are written again whose file was deleted meanwhile."""


class Change(NamedTuple):
    """What lines say once they stand in the file: what was read from a source, or a request of the daemon."""

    source: int | None = None
    events: int = 0
    lost: int = 0
    undecoded: int = 0
    unresolved: int = 0
    next_sequence: int = 0
    request: int = 0


class EventLog:
    """Writes to one file. `report` is told when the file begins to refuse, and None when it takes lines again."""

    def __init__(self, part: Part, report: Callable[[HostError | None], None]) -> None:
        self._part = part
        self._report = report
        self._file: LogFile | None = None
        self._refused = False
        self._journal: JournalCopy | None = None

    def open(self, path: Path) -> None:
        """Write to this path from now on, opened anew; raise HostError when that fails, and try again at each write."""
        before, self._file = self._file, LogFile(path)
        try:
            self._file.open()
        finally:
            if before is not None:
                before.close()

    def copy_to(self, journal: JournalCopy | None) -> None:
        """Send what stands in the file to the journal too from now on; None: no longer."""
        before, self._journal = self._journal, journal
        if before is not None:
            before.close()

    @property
    def is_behind(self) -> bool:
        """Whether lines wait to be written, such as those that tell of losses."""
        return self._has_debts or (self._file is not None and self._file.owes)

    @property
    def _has_debts(self) -> bool:
        return any(self._part.numbers[Cell.UNWRITTEN : Cell.UNWRITTEN + len(REASONS)])

    def lose(self, reason: str, count: int) -> None:
        """Have a line tell of `count` lost ones, before what is written next; it is committed with the next change."""
        self._part.numbers[Cell.UNWRITTEN + REASONS.index(reason)] += count

    def write(self, text: bytes, change: Change) -> bool:
        """Append lines, after those that tell of earlier losses; False when not all of `text` stands in the file."""
        data = self._debts() + text
        if not data and not self.is_behind:
            _apply(self._part.numbers, change)
            self._part.commit()
            return True
        appended = self._append(data, change)
        missing = appended.rest.splitlines(keepends=True)
        if self._journal is not None:
            self._part.numbers[Cell.UNSENT] += self._journal.send(data[: len(data) - len(appended.rest)])
        full = appended.error is not None and is_full(appended.error)
        self._end(change, missing, "disk_full" if full else "overrun")
        if (appended.error is not None) != self._refused:
            self._refused = appended.error is not None
            self._report(appended.error)
        return not missing

    def close(self) -> None:
        """Bring everything to the disk; raise HostError when that fails."""
        if self._file is not None:
            self._file.close()

    def _append(self, data: bytes, change: Change) -> Appended:
        if self._file is None:
            return Appended(data, None)
        for _ in range(_ATTEMPTS):
            place, error = self._file.place()
            if place is None:
                return Appended(data, error)
            self._begin(place, change)
            appended = self._file.append(data)
            if not self._file.was_deleted(place):
                break
        return appended

    def _begin(self, place: Place, change: Change) -> None:
        """Commit what is about to be written, and where."""
        numbers = self._part.numbers
        numbers[Cell.PENDING] = 1
        numbers[Cell.PENDING_SOURCE : Cell.PENDING_REQUEST + 1] = (
            0 if change.source is None else change.source + 1,
            *change[1:],
        )
        numbers[Cell.DEVICE : Cell.OFFSET + 1] = place
        self._part.commit()

    def _end(self, change: Change, missing: list[bytes], reason: str) -> None:
        """Commit what was written."""
        numbers = self._part.numbers
        numbers[Cell.UNWRITTEN : Cell.UNWRITTEN + len(REASONS)] = [0] * len(REASONS)
        events, losses = _split(missing)
        for lost, count in losses:
            self.lose(lost, count)
        if change.source is None:
            change = Change() if events else change
        else:
            self.lose(reason, events)
            change = change._replace(events=change.events - events, lost=change.lost + events)
        _apply(numbers, change)
        numbers[Cell.PENDING] = 0
        self._part.commit()

    def _debts(self) -> bytes:
        """Return the lines for what was lost and has not been told."""
        if not self._has_debts:
            return b""
        time_now = time_text(time.time_ns())
        unwritten = self._part.numbers[Cell.UNWRITTEN : Cell.UNWRITTEN + len(REASONS)]
        counts = zip(REASONS, unwritten, strict=True)
        return "".join(lost_line(time_now, count, reason) for reason, count in counts if count).encode()


def recover(part: Part, directory: Path) -> None:
    """Count what a recorder was writing to a file in `directory` when it was killed: line by line what stands there.

    The rest of it is lost. Lines of a file that is gone, or was truncated since, are taken for written.
    """
    numbers = part.numbers
    if not numbers[Cell.PENDING]:
        return
    pending = numbers[Cell.PENDING_SOURCE : Cell.PENDING_REQUEST + 1]
    change = Change(pending[0] - 1 if pending[0] else None, *pending[1:])
    unwritten = [Cell.UNWRITTEN + place for place in range(len(REASONS)) if numbers[Cell.UNWRITTEN + place]]
    lines = _written(directory, Place(*numbers[Cell.DEVICE : Cell.OFFSET + 1]))
    for place in unwritten if lines is None else unwritten[: len(lines)]:
        numbers[place] = 0
    if lines is not None:
        change = _as_far(numbers, change, lines[len(unwritten) :])
    _apply(numbers, change)
    numbers[Cell.PENDING] = 0
    part.commit()


def _as_far(numbers: list[int], change: Change, lines: list[bytes]) -> Change:
    """Return what of a change these lines are; what else it has of events is lost."""
    if change.source is None:
        return change if lines else Change()
    events, losses = _split(lines)
    missing = change.events - events
    told = sum(count for _, count in losses)
    numbers[Cell.UNWRITTEN + REASONS.index("restart")] += max(0, missing + change.lost - told)
    return change._replace(events=events, lost=change.lost + missing)


def _apply(numbers: list[int], change: Change) -> None:
    if change.source is not None:
        numbers[cell(change.source, Count.EVENTS)] += change.events
        numbers[cell(change.source, Count.LOST)] += change.lost
        numbers[cell(change.source, Count.UNDECODED)] += change.undecoded
        numbers[cell(change.source, Count.NEXT_SEQUENCE)] = change.next_sequence
        numbers[Cell.UNRESOLVED] += change.unresolved
    elif change.request:
        numbers[Cell.REQUEST] = change.request


def _split(lines: Iterable[bytes]) -> tuple[int, list[tuple[str, int]]]:
    """Return how many lines are events, and reason and count of those that tell of lost ones."""
    events, losses = 0, []
    for line in lines:
        if _LOST in line[:_LOST_BEFORE]:
            entry = json.loads(line)
            losses.append((entry["reason"], entry["count"]))
        else:
            events += 1
    return events, losses


def _written(directory: Path, place: Place) -> list[bytes] | None:
    """Return the whole lines that stand in a file behind a place; what is left of another is cut off.

    None when the file is gone or shorter. It may have another name by now.
    """
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.inode() == place.inode and entry.stat(follow_symlinks=False).st_dev == place.device:
                    return LogFile(Path(entry.path)).lines_after(place)
    except OSError:
        return None
    return None
