"""Copies that somebody makes of a log file to truncate it then: logrotate's copytruncate.

What is written between the copier's last read and its truncation is in neither file. Who writes can tell: the copy is
made beside the log, under its name and something more, and inotify(7) tells of it before a byte is copied. So what is
written from then on is remembered, and what the copy does not have is written once more. Two copies between two writes
are taken for one: then the lines written last stand in the first copy and in the file.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_IN_CLOSE_WRITE, _IN_CREATE = 0x8, 0x100
_EVENT = struct.Struct("=iIII")
_READ_BYTES = 1 << 16
MAX_REMEMBERED_BYTES = 64 << 20
"""A copy of a log that grows by more while it is made is not waited for."""

TRUNCATED_AFTER_SECONDS = 10.0
"""So long after a copy is complete it is forgotten; logrotate truncates even before it closes it."""


class Copies:
    """Watches the directory of a log file. Where inotify is refused, no copy is ever seen."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._copies: dict[str, int] = {}
        self._complete: dict[str, float] = {}
        self._remembered: list[tuple[int, bytes]] = []
        self._inotify: int | None = None

    def watch(self) -> None:
        """Begin to watch, before the file is written to."""
        if self._inotify is None:
            self._inotify = _watch(self._path.parent)

    def wrote(self, offset: int, data: bytes) -> None:
        """Remember what was written at an offset of the file, which has been seen not to be truncated since."""
        now = time.monotonic()
        self._forget([name for name, since in self._complete.items() if now - since > TRUNCATED_AFTER_SECONDS])
        self._look()
        self.remember(offset, data)
        if not self._copies or sum(len(data) for _, data in self._remembered) > MAX_REMEMBERED_BYTES:
            # A copy that is begun before the next look may yet have been begun before this was written.
            del self._remembered[:-1]

    def remember(self, offset: int, data: bytes) -> None:
        """Remember what was written at an offset of the file."""
        self._remembered.append((offset, data))

    def missing(self) -> bytes:
        """Return, when the file has been truncated, the whole lines that were written before and no copy has."""
        self._look()
        copied = max((os.fstat(copy).st_size for copy in self._copies.values()), default=None)
        remembered, self._remembered = self._remembered, []
        # The next truncation is after another copy.
        self._forget(tuple(self._copies))
        if copied is None:
            return b""
        # A line that the copy has in part is written whole.
        return b"".join(
            data[data.rfind(b"\n", 0, max(0, copied - offset)) + 1 :]
            for offset, data in remembered
            if offset + len(data) > copied
        )

    def close(self) -> None:
        """Watch no more."""
        self._forget(tuple(self._copies))
        if self._inotify is not None:
            os.close(self._inotify)
            self._inotify = None

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            os.close(self._copies.pop(name))
            self._complete.pop(name, None)

    def _look(self) -> None:
        """Take note of copies that were begun or are complete."""
        for name, mask in self._events():
            if not name.startswith(self._path.name) or name == self._path.name:
                continue
            if mask & _IN_CREATE:
                # The one before may have another name by now.
                self._forget([name] if name in self._copies else [])
                with suppress(OSError):
                    self._copies[name] = os.open(self._path.with_name(name), os.O_RDONLY | os.O_CLOEXEC)
            elif mask & _IN_CLOSE_WRITE and name in self._copies:
                self._complete[name] = time.monotonic()

    def _events(self) -> Iterator[tuple[str, int]]:
        if self._inotify is None:
            return
        with suppress(BlockingIOError):
            while True:
                events = os.read(self._inotify, _READ_BYTES)
                offset = 0
                while offset < len(events):
                    _, mask, _, length = _EVENT.unpack_from(events, offset)
                    offset += _EVENT.size + length
                    yield os.fsdecode(events[offset - length : offset].rstrip(b"\0")), mask


def _watch(directory: Path) -> int | None:
    libc = ctypes.CDLL(None, use_errno=True)
    inotify = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if inotify < 0:
        return None
    if libc.inotify_add_watch(inotify, os.fsencode(directory), _IN_CREATE | _IN_CLOSE_WRITE) < 0:
        os.close(inotify)
        return None
    return inotify
