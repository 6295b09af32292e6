"""The recorder's pen: lines go into the file, and what does not is counted and said there later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from wgd.daemon.tally import REASONS, Cell, Tally
from wgd.errors import HostError
from wgd.events.lines import lost_line, time_text
from wgd.host.log_file import LogFile

_LOST = b'","event":"lost",'
_LOST_BEFORE = 64
"""Where a line's event stands at the latest."""


class EventLog:
    """Writes to one file. `report` is told when the file begins to refuse, and None when it takes lines again."""

    def __init__(self, tally: Tally, report: Callable[[HostError | None], None]) -> None:
        self._tally = tally
        self._report = report
        self._file: LogFile | None = None
        self._refused = False

    def open(self, path: Path) -> None:
        """Write to this path from now on, opened anew; raise HostError when that fails, and try again at each write."""
        before, self._file = self._file, LogFile(path)
        try:
            self._file.open()
        finally:
            if before is not None:
                before.close()

    @property
    def is_behind(self) -> bool:
        """Whether lost lines wait to be told of in the file."""
        return any(self._tally[Cell.UNWRITTEN + place] for place in range(len(REASONS)))

    def write(self, text: bytes) -> int:
        """Append lines, after those that tell of earlier losses; return how many lines of `text` are not there."""
        debts = self._debts()
        rest, error = self._file.append(debts + text) if self._file is not None else (debts + text, None)
        for place in range(len(REASONS)):
            self._tally.set(Cell.UNWRITTEN + place, 0)
        missing = rest.splitlines(keepends=True)
        lost_lines = [line for line in missing if _LOST in line[:_LOST_BEFORE]]
        for line in lost_lines:
            entry = json.loads(line)
            self._tally.add(Cell.UNWRITTEN + REASONS.index(entry["reason"]), entry["count"])
        self._tally.add(Cell.UNWRITTEN + REASONS.index("disk_full"), len(missing) - len(lost_lines))
        if (error is not None) != self._refused:
            self._refused = error is not None
            self._report(error)
        return len(missing) - len(lost_lines)

    def close(self) -> None:
        """Bring everything to the disk; raise HostError when that fails."""
        if self._file is not None:
            self._file.close()

    def _debts(self) -> bytes:
        """Return the lines for what was lost and has not been told."""
        time_now = time_text(time.time_ns())
        counts = ((reason, self._tally[Cell.UNWRITTEN + place]) for place, reason in enumerate(REASONS))
        return "".join(lost_line(time_now, count, reason) for reason, count in counts if count).encode()
