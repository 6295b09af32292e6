"""A log file that only ever holds whole lines."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from wgd.errors import HostError
from wgd.host.copies import Copies

MODE = 0o640
MAX_LINE_BYTES = 1 << 16
"""More than any line has."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
LINE_START = b'{"ts":'
"""How our lines begin: only half a line of ours is cut off, whatever else a file ends in stays."""


class Place(NamedTuple):
    """An end of a file: lines that are appended stand behind it."""

    device: int
    inode: int
    size: int


class Appended(NamedTuple):
    """What does not stand in the file after an append, and why."""

    rest: bytes
    error: HostError | None


class LogFile:
    """A file that is appended to. It is opened at the first need, and again at the first after `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._torn = False
        self._copies = Copies(path)
        self._end = 0
        self._owed = b""

    def open(self) -> None:
        """Open or create the file, mode 0640, and let go of the one before; raise HostError when it is not writable."""
        before, self._descriptor = self._descriptor, self._open()
        if before is not None:
            self._finish(before)

    @property
    def owes(self) -> bool:
        """Whether lines wait to be written once more, which a copy that the file was truncated after does not have."""
        return bool(self._owed)

    def place(self) -> tuple[Place | None, HostError | None]:
        """Return where the next lines will stand, or why there is no file; one that was deleted is made anew.

        What the file owes is written before.
        """
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
            found = os.fstat(self._descriptor)
            if found.st_nlink == 0:
                os.close(self._descriptor)
                self._descriptor = None
                self._descriptor = self._open()
                found = os.fstat(self._descriptor)
            self._look_for_truncation(found.st_size)
            if self._owed:
                appended = self._write(self._descriptor, self._owed)
                self._owed = appended.rest
                if appended.error is not None:
                    return None, appended.error
                found = os.fstat(self._descriptor)
        except HostError as error:
            return None, error
        except OSError as error:
            return None, _error(self.path, "looked at", error)
        return Place(found.st_dev, found.st_ino, found.st_size), None

    def append(self, text: bytes) -> Appended:
        """Append whole lines; after an error, what is left of a line that was written in part is taken back."""
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
        except HostError as error:
            return Appended(text, error)
        return self._write(self._descriptor, text)

    def _write(self, descriptor: int, text: bytes) -> Appended:
        data = b"\n" + text if self._torn else text
        written = 0
        appended = Appended(b"", None)
        try:
            while written < len(data):
                written += os.write(descriptor, data[written:] if written else data)
            self._torn = False
        except OSError as error:
            whole = data.rfind(b"\n", 0, written) + 1
            if written:
                self._torn = not self._take_back(descriptor, written - whole)
            appended = Appended(data[max(whole, len(data) - len(text)) :], _error(self.path, "written to", error))
            written = whole if not self._torn else written
        self._wrote(descriptor, data[:written])
        return appended

    def _wrote(self, descriptor: int, data: bytes) -> None:
        """Remember what was written last, or see that the file was truncated while it was."""
        size = os.fstat(descriptor).st_size
        if size >= self._end + len(data):
            self._copies.wrote(self._end, data)
        elif size < len(data):
            # Truncated after it was written, so that it is gone, or in the copy.
            self._copies.remember(self._end, data)
            self._owed += self._copies.missing()
        else:
            self._owed += self._copies.missing()
        self._end = size

    def _look_for_truncation(self, size: int) -> None:
        if size < self._end:
            self._owed += self._copies.missing()
        self._end = size

    def was_deleted(self, place: Place) -> bool:
        """Tell whether the file was deleted since `place` was asked for; then it is as it was there."""
        if self._descriptor is None or os.fstat(self._descriptor).st_nlink:
            return False
        with suppress(OSError):
            os.ftruncate(self._descriptor, place.size)
        return True

    def lines_after(self, place: Place) -> list[bytes] | None:
        """Return the whole lines behind a place; None when the file ends before it. Half a line is cut off."""
        try:
            with self.path.open("r+b") as file:
                if os.fstat(file.fileno()).st_size < place.size:
                    return None
                file.seek(place.size)
                text = file.read()
                whole = text.rfind(b"\n") + 1
                if whole < len(text):
                    os.ftruncate(file.fileno(), place.size + whole)
        except OSError:
            return None
        # A line end of its own ends what another left.
        return [line for line in text[:whole].splitlines(keepends=True) if line != b"\n"]

    def close(self) -> None:
        """Bring what was written to the disk and let go of the file; raise HostError when the disk refuses."""
        if self._descriptor is not None:
            self._look_for_truncation(os.fstat(self._descriptor).st_size)
        if self._owed:
            self.place()
        descriptor, self._descriptor = self._descriptor, None
        self._copies.close()
        if descriptor is not None:
            self._finish(descriptor)

    def _open(self) -> int:
        # Before the file: no copy of it is missed.
        self._copies.watch()
        descriptor = _open(self.path)
        # A writer that was killed while it wrote, or a machine that lost power, leaves half a line.
        torn = _torn_line(descriptor)
        self._torn = bool(torn) and not (torn.startswith(LINE_START) and self._take_back(descriptor, len(torn)))
        self._end = os.fstat(descriptor).st_size
        return descriptor

    def _take_back(self, descriptor: int, size: int) -> bool:
        """Cut `size` bytes off the end; False where that is refused (an append-only file)."""
        if size == 0:
            return True
        try:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - size)
        except OSError:
            return False
        return True

    def _finish(self, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise _error(self.path, "brought to the disk", error) from error
        finally:
            os.close(descriptor)


def _open(path: Path) -> int:
    # Reading is for the end alone. Without O_NONBLOCK a pipe of that name would hold us up for ever.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, MODE)
    except FileNotFoundError as error:
        raise HostError(
            str(path), f"cannot be opened: the directory {path.parent} does not exist; create it"
        ) from error
    except OSError as error:
        raise _error(path, "opened", error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise HostError(str(path), "is not a regular file")
    return descriptor


def _torn_line(descriptor: int) -> bytes:
    """Return what stands behind the last whole line, as far as MAX_LINE_BYTES back."""
    size = os.fstat(descriptor).st_size
    end = os.pread(descriptor, MAX_LINE_BYTES, max(0, size - MAX_LINE_BYTES))
    return end[end.rfind(b"\n") + 1 :]


def is_full(error: HostError) -> bool:
    """Tell whether an error of a LogFile means that there is no room for more: disk, quota, or a limit of the size."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL


def _error(path: Path, what: str, error: OSError) -> HostError:
    made = HostError(str(path), f"cannot be {what}: {error.strerror}")
    made.__cause__ = error
    return made
