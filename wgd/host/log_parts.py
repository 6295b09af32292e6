"""A log for its readers: the file that is written to, and the older ones that logrotate has made of it."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path

from wgd.errors import HostError

BLOCK_BYTES = 1 << 19
"""What is read at once: few system calls, and the lines of a block still fit the processor's cache."""
MAX_HEAD_BYTES = 1 << 16
LAST_BYTES = 512
"""How much of what was read last is compared to see that it is still there."""
_ATTEMPTS = 10
"""How often the folder is read anew when a file vanishes before it is opened; logrotate renames one after another."""
_ROTATED = re.compile(r"(?:\.([0-9]{1,6})|-([0-9]{8}(?:-[0-9]{1,10})?))(\.gz)?")
"""What logrotate appends: a number that grows with age, or with `dateext` a date; both perhaps compressed."""


class LogPart:
    """One file of a log, open for reading; `position` is where the next line begins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_compressed = path.suffix == ".gz"
        self.position = 0
        try:
            # Not waiting for a writer, should it be a pipe.
            self._raw = open(path, "rb", buffering=0, opener=_open_at_once)  # noqa: SIM115  # `close` closes it
        except OSError as error:
            raise _error(path, error) from error
        self._file = self._from_start()
        self._head = b""
        self._last = b""

    @property
    def head(self) -> bytes:
        """The first line, by which a file is known under whatever name: its time has microseconds.

        Empty where it has no end yet, or cannot be decompressed.
        """
        if not self._head:
            start = self._decompressed_start() if self.is_compressed else self._text_at(0, MAX_HEAD_BYTES)
            self._head = start[: start.find(b"\n") + 1]
        return self._head

    def close(self) -> None:
        """Let go of the file."""
        self._raw.close()

    def status(self) -> os.stat_result:
        """Return what fstat says of the file."""
        return os.fstat(self._raw.fileno())

    def is_cut(self) -> bool:
        """Return whether what was read last no longer stands there: the file was emptied, and perhaps filled again."""
        if self.is_compressed:
            return False
        start = self.position - len(self._last)
        return self.status().st_size < self.position or self._text_at(start, len(self._last)) != self._last

    def resume(self, other: LogPart) -> None:
        """Go on where `other`, which holds the same bytes, has been read to."""
        self.position, self._last = other.position, other._last

    def _text_at(self, start: int, size: int) -> bytes:
        return os.pread(self._raw.fileno(), size, start)

    def _decompressed_start(self) -> bytes:
        start, file = b"", self._from_start()
        with suppress(OSError, EOFError, zlib.error):
            while b"\n" not in start and len(start) < MAX_HEAD_BYTES and (more := file.read(1 << 10)):
                start += more
        # After an error it would not begin at the beginning again.
        self._file = self._from_start()
        return start

    def _from_start(self) -> FileIO | gzip.GzipFile:
        self._raw.seek(0)
        return gzip.GzipFile(fileobj=self._raw) if self.is_compressed else self._raw

    def batches(self, *, unfinished: bool = True) -> Iterator[list[bytes]]:
        """Yield the lines from `position` on, many at once and without line ends, and move `position` behind them.

        A last line without its end is yielded with `unfinished`, else left for later. Raise HostError.
        """
        try:
            self._file.seek(self.position)
            for text in whole_lines(self._file.read):
                if not (text.endswith(b"\n") or unfinished):
                    return
                if not self.position:
                    # Now: once the file is cut, this line is gone.
                    self._head = text.partition(b"\n")[0] + b"\n"
                self.position += len(text)
                self._last = text[-LAST_BYTES:]
                yield text.split(b"\n")
        except (OSError, EOFError, zlib.error) as error:
            raise _error(self.path, error) from error

    def batches_backwards(self, *, unfinished: bool = True) -> Iterator[list[bytes]]:
        """Yield all lines, the last batch first, each batch in the file's order; `position` is moved to the end.

        Like `batches` with a last line without its end. Of a compressed file, which is read from its beginning, all
        lines are one batch.
        """
        if self.is_compressed:
            yield [line for lines in self.batches(unfinished=unfinished) for line in lines]
            return
        try:
            yield from self._blocks_backwards(self.status().st_size, unfinished=unfinished)
        except OSError as error:
            raise _error(self.path, error) from error

    def _blocks_backwards(self, start: int, *, unfinished: bool) -> Iterator[list[bytes]]:
        later: list[bytes] = []
        is_last = True
        self._head = self.head
        while start:
            size = min(BLOCK_BYTES, start)
            start -= size
            block = self._text_at(start, size)
            if is_last and not unfinished:
                end = block.rfind(b"\n") + 1
                if not end:
                    continue
                block = block[:end]
            if is_last:
                self.position = start + len(block)
                self._last = block[-LAST_BYTES:]
                is_last = False
            first = block.find(b"\n") + 1 if start else 0
            if start and not first:
                later.insert(0, block)
                continue
            lines = b"".join((block[first:], *later)).split(b"\n")
            later = [block[:first]]
            yield lines


def whole_lines(read: Callable[[int], bytes | None]) -> Iterator[bytes]:
    """Yield what `read` of a file gives, many whole lines at once; the last may lack its end."""
    pieces: list[bytes] = []
    while block := read(BLOCK_BYTES):
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join((*pieces, block[:end]))
            pieces = []
        if end < len(block):
            pieces.append(block[end:])
    if pieces:
        yield b"".join(pieces)


def open_parts(path: Path) -> list[LogPart]:
    """Open a log with its older parts, the oldest first and the file that is written to last.

    That one may be missing where there are older ones: its writer makes it anew. What stands in two files at once,
    because logrotate is just copying or compressing it, is given once. Raise HostError when one cannot be read.
    """
    try:
        current = [LogPart(path)]
    except HostError as error:
        if not isinstance(error.__cause__, FileNotFoundError) or not _older_paths(path):
            raise
        current = []
    for _ in range(_ATTEMPTS):
        try:
            older = [LogPart(found) for found in _older_paths(path)]
        except HostError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                continue
            raise
        return _without_copies([*older, *current])
    raise HostError(str(path), "its older parts change faster than they can be opened")


def _older_paths(path: Path) -> list[Path]:
    """Return the rotated files, the oldest first: those with dates, then those with numbers, the largest first."""
    found = []
    try:
        entries = list(path.parent.iterdir())
    except OSError as error:
        raise HostError(str(path.parent), f"cannot be read: {error.strerror}") from error
    for entry in entries:
        rotated = _ROTATED.fullmatch(entry.name, len(path.name)) if entry.name.startswith(path.name) else None
        if rotated is not None:
            number, date, _ = rotated.groups()
            age = (1, -int(number), "") if number else (0, 0, date)
            found.append((age, not rotated[3], entry))
    return [file for _age, _is_plain, file in sorted(found)]


def _without_copies(parts: list[LogPart]) -> list[LogPart]:
    """Of parts with the same first line leave out all but the most complete, and what is being compressed."""
    best: dict[bytes, LogPart] = {}
    for part in parts:
        if part.head and (part.head not in best or _completeness(part) >= _completeness(best[part.head])):
            best[part.head] = part
    paths = {part.path for part in parts}
    kept = []
    for part in parts:
        # The file that is being compressed is still there.
        is_being_made = part.is_compressed and part.path.with_suffix("") in paths
        if part is parts[-1] or best.get(part.head) is part or not (part.head or is_being_made):
            kept.append(part)
        else:
            part.close()
    return kept


def _completeness(part: LogPart) -> tuple[bool, int]:
    return not part.is_compressed, part.status().st_size


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _error(path: Path, error: Exception) -> HostError:
    if isinstance(error, OSError) and error.strerror is not None:
        return HostError(str(path), f"cannot be read: {error.strerror}")
    return HostError(str(path), f"is damaged and cannot be read to its end: {error}")
