"""When to look after the kernel has notified something: soon, once for many notifications, never in a storm."""

from __future__ import annotations

import time
from collections.abc import Callable

from wgd.daemon.loop import Loop
from wgd.kernel.monitor import Monitor, Notice

QUIET_SECONDS = 0.15
"""So long after the last notification it is looked."""
LONGEST_SECONDS = 1.0
"""So long after the first one at the latest, however many follow."""
CALM_SECONDS = 10.0
"""After so long without anything to put back, the next change is again answered at once."""

Look = Callable[[frozenset[Notice]], bool]
"""Looks at what the notices are about and puts back what has to be; tells whether there was anything to put back."""


class Watch:
    """Has `look` called after notifications that `concerns` is true of.

    When somebody takes away again and again what is put back, the pause before each look doubles up to
    LONGEST_SECONDS, and it is never shorter than the last look took.
    """

    def __init__(self, loop: Loop, monitor: Monitor, concerns: Callable[[Notice], bool], look: Look) -> None:
        self._loop, self._monitor, self._concerns, self._look = loop, monitor, concerns, look
        self._pending: frozenset[Notice] = frozenset()
        self._first = self._last = 0.0
        self._pause = QUIET_SECONDS
        self._put_back = -CALM_SECONDS
        loop.on_readable(monitor, self._notified)

    def _notified(self) -> None:
        concerning = frozenset(filter(self._concerns, self._monitor.read()))
        if not concerning:
            return
        now = time.monotonic()
        if not self._pending:
            self._first = now
            if now - self._put_back > CALM_SECONDS:
                self._pause = QUIET_SECONDS
            self._loop.after(self._pause, self._due)
        self._last = now
        self._pending |= concerning

    def _due(self) -> None:
        """Look, or wait for the end of what is going on."""
        now = time.monotonic()
        at = min(self._last + self._pause, self._first + max(LONGEST_SECONDS, self._pause))
        if now < at:
            self._loop.after(at - now, self._due)
            return
        notices, self._pending = self._pending, frozenset()
        put_back = self._look(notices)
        ended = time.monotonic()
        if put_back:
            self._pause = max(min(2 * self._pause, LONGEST_SECONDS), ended - now)
            self._put_back = ended
