"""New lines of a log while it is written, over every way in which logrotate or a person replaces its file.

The folder is looked at again and again: what matters is which file holds which bytes, and a notification of the kernel
would only say when to look.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wgd.errors import HostError
from wgd.host.log_parts import LogPart, open_parts


class Follower:
    """Goes on where `part` has been read to, the file at `path`; None where there is no file yet.

    `missed` becomes true when lines were cut off that had perhaps not been read, and no copy of them is there.
    """

    def __init__(self, path: Path, part: LogPart | None) -> None:
        self.missed = False
        self._path = path
        self._part = part

    def close(self) -> None:
        """Let go of the file."""
        if self._part is not None:
            self._part.close()

    def new(self) -> Iterator[list[bytes]]:
        """Yield the lines, without line ends, that have come since; none lost and none twice. Raise HostError."""
        if self._part is None:
            self._part = self._opened()
        part = self._part
        if part is None:
            return
        if part.is_cut():
            yield from self._go_on_after(part, was_cut=True)
            return
        replaced = self._is_replaced(part)
        # After the look at the path: who writes to the new file has written its last line to this one.
        yield from part.batches(unfinished=False)
        if replaced:
            yield from self._go_on_after(part, was_cut=False)

    def _go_on_after(self, part: LogPart, *, was_cut: bool) -> Iterator[list[bytes]]:
        """Yield what the copy of a part that was read holds beyond it, and all parts after it."""
        try:
            parts = open_parts(self._path)
        except HostError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            # It is between two names; the next call finds it.
            return
        copies = [place for place, other in enumerate(parts) if part.head and other.head == part.head]
        if copies:
            parts = parts[copies[-1] :]
            parts[0].resume(part)
        else:
            self.missed = self.missed or was_cut
            parts = [other for other in parts if other.path == self._path]
        for following in parts:
            part.close()
            self._part = part = following
            yield from part.batches(unfinished=False)

    def _is_replaced(self, part: LogPart) -> bool:
        """Return whether another file has the name, and lines in it."""
        try:
            now = self._path.stat()
        except OSError:
            return False
        mine = part.status()
        return (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino) and now.st_size > 0

    def _opened(self) -> LogPart | None:
        try:
            return LogPart(self._path)
        except HostError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
