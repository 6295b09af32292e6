"""A reload that has to be confirmed: where to go back to, and when.

While one waits, only Confirm ends it. A further reload with a time restarts the clock, one without leaves it running:
somebody who has locked himself out is let in again whatever else reloads meanwhile. It always goes back to the last
config that needed no confirmation. A restart of the daemon takes what the files say.
"""

from __future__ import annotations

from wgd.plan.gateway import Desired

RETRY_SECONDS = 10.0


class Confirmation:
    """`now` is in seconds of a clock that nobody sets."""

    def __init__(self) -> None:
        self._back_to: Desired | None = None
        self._deadline = 0.0

    def begin(self, before: Desired, seconds: float, now: float) -> None:
        """Go back to `before`, or to what is waited for already, unless it is confirmed in `seconds`."""
        if self._back_to is None:
            self._back_to = before
        self._deadline = now + seconds

    def due(self, now: float) -> Desired | None:
        """Return what to go back to when the time is over, None before."""
        return self._back_to if now >= self._deadline else None

    def left(self, now: float) -> int | None:
        """Return how many seconds are left, None when nothing waits."""
        return None if self._back_to is None else max(0, round(self._deadline - now))

    def retry(self, now: float) -> None:
        """Try once more in a moment: going back has failed."""
        self._deadline = now + RETRY_SECONDS

    def end(self) -> bool:
        """Wait no longer; False when nothing waited."""
        waited, self._back_to = self._back_to is not None, None
        return waited
