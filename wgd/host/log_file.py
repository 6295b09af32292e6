"""A log file that only ever holds whole lines."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from wgd.errors import HostError

MODE = 0o640
MAX_LINE_BYTES = 1 << 16
"""More than any line has."""
LINE_START = b'{"ts":'
"""How our lines begin: only half a line of ours is cut off, whatever else a file ends in stays."""


class LogFile:
    """A file that is appended to. It is opened at the first need, and again at the first after `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._torn = False

    def open(self) -> None:
        """Open or create the file, mode 0640, and let go of the one before; raise HostError when it is not writable."""
        before, self._descriptor = self._descriptor, self._open()
        if before is not None:
            self._finish(before)

    def append(self, text: bytes) -> tuple[bytes, HostError | None]:
        """Append whole lines; return those that do not stand in the file after an error, and that error.

        A line that was written in part is taken back.
        """
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
        except HostError as error:
            return text, error
        data = b"\n" + text if self._torn else text
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:] if written else data)
        except OSError as error:
            whole = data.rfind(b"\n", 0, written) + 1
            if written:
                self._torn = not self._take_back(self._descriptor, written - whole)
            return data[max(whole, len(data) - len(text)) :], _error(self.path, "written to", error)
        self._torn = False
        return b"", None

    def close(self) -> None:
        """Bring what was written to the disk and let go of the file; raise HostError when the disk refuses."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._finish(descriptor)

    def _open(self) -> int:
        descriptor = _open(self.path)
        # A writer that was killed while it wrote, or a machine that lost power, leaves half a line.
        torn = _torn_line(descriptor)
        self._torn = bool(torn) and not (torn.startswith(LINE_START) and self._take_back(descriptor, len(torn)))
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


def _error(path: Path, what: str, error: OSError) -> HostError:
    return HostError(str(path), f"cannot be {what}: {error.strerror}")
