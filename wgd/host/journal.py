"""The journal's own socket, over which entries with fields are sent (sd_journal_send(3) uses it too)."""

from __future__ import annotations

import socket
from pathlib import Path

from wgd.errors import HostError

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")


class JournalSocket:
    """A datagram socket that is connected to the journal; raise HostError when there is none.

    The daemon opens it, since the recorder, which sends, can open nothing.
    """

    def __init__(self, path: Path = JOURNAL_SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.connect(str(path))
            self._identity = _identity(path)
        except OSError as error:
            self._socket.close()
            raise HostError(str(path), f"the journal cannot be reached: {error.strerror}") from error

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._socket.fileno()

    def is_stale(self) -> bool:
        """Return whether the journal has another socket now."""
        try:
            return _identity(self._path) != self._identity
        except OSError:
            return False

    def close(self) -> None:
        """Close it here; who was handed it keeps it."""
        self._socket.close()


def _identity(path: Path) -> tuple[int, int, int]:
    """Return what tells a socket from the one before, which may have had the same inode."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_ctime_ns
