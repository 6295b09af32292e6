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
    """Goes on where `part` has been read to, the newest of the log at `path` that has lines; None where none has.

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
        part = self._part
        if part is None:
            parts = self._parts()
            yield from self._read(parts, parts)
        elif part.is_cut():
            yield from self._go_on_after(part, was_cut=True)
        else:
            replaced = self._is_replaced(part)
            # After the look at the path: who writes to the new file has written its last line to this one.
            yield from part.batches(unfinished=False)
            if replaced:
                yield from self._go_on_after(part, was_cut=False)

    def _go_on_after(self, part: LogPart, *, was_cut: bool) -> Iterator[list[bytes]]:
        """Yield what the copy of a part that was read holds beyond it, and all parts after it."""
        parts = self._parts()
        copies = [place for place, other in enumerate(parts) if part.head and other.head == part.head]
        if copies:
            parts[copies[-1]].resume(part)
            yield from self._read(parts, parts[copies[-1] :])
        else:
            self.missed = self.missed or was_cut
            yield from self._read(parts, [other for other in parts if other.path == self._path], even_empty=True)

    def _read(self, parts: list[LogPart], wanted: list[LogPart], *, even_empty: bool = False) -> Iterator[list[bytes]]:
        """Yield the lines of those parts that are wanted, stay with the last of them that has some, and close the rest.

        One that is empty could not be known again when it is replaced in its turn.
        """
        try:
            for part in wanted:
                if part.head or even_empty:
                    self.close()
                    self._part = part
                    yield from part.batches(unfinished=False)
        finally:
            for part in parts:
                if part is not self._part:
                    part.close()

    def _parts(self) -> list[LogPart]:
        try:
            return open_parts(self._path)
        except HostError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return []
            raise

    def _is_replaced(self, part: LogPart) -> bool:
        """Return whether another file has the name, and lines in it."""
        try:
            now = self._path.stat()
        except OSError:
            return False
        mine = part.status()
        return (now.st_dev, now.st_ino) != (mine.st_dev, mine.st_ino) and now.st_size > 0
