"""The event log's second copy, in the journal: never in the way of the first, which is the complete one."""

from __future__ import annotations

import select
import socket
import time

from wgd.events.journal import journal_entry

MOST_A_SECOND = 2000
"""How many entries are sent in a second. journald takes 10,000 in half a minute from a service, and drops the others
(RateLimitBurst= in journald.conf(5), LogRateLimitBurst= in systemd.exec(5))."""
PATIENCE_SECONDS = 0.05
"""For how much of a second the recorder waits for a journal that is busy, all waits together."""


class JournalCopy:
    """Sends lines of the event log over a socket that is connected to the journal."""

    def __init__(self, journal: socket.socket) -> None:
        self._socket = journal
        self._socket.setblocking(False)  # noqa: FBT003 the socket's own interface
        self._second = 0
        self._left = 0
        self._patience = 0.0

    def send(self, text: bytes) -> int:
        """Send each of some whole lines; return how many of them the journal does not have."""
        if int(time.monotonic()) != self._second:
            self._second, self._left, self._patience = int(time.monotonic()), MOST_A_SECOND, PATIENCE_SECONDS
        count = text.count(b"\n")
        if not self._left:
            return count
        lines = text.split(b"\n", self._left)[: min(count, self._left)]
        self._left -= len(lines)
        return count - sum(map(self._send, lines))

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def _send(self, line: bytes) -> bool:
        entry = journal_entry(line)
        if entry is None:
            return False
        while True:
            try:
                self._socket.send(entry, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                if not self._is_ready():
                    return False
            except OSError:
                # It is gone, or the entry is too large for it.
                return False
            else:
                return True

    def _is_ready(self) -> bool:
        """Wait until the journal takes entries again, as long as there is patience left."""
        begun = time.monotonic()
        if self._patience <= 0:
            return False
        ready = bool(select.select((), (self._socket,), (), self._patience)[1])
        self._patience -= time.monotonic() - begun
        return ready
