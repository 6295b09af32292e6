"""What others on the host do to the gateway's traffic, looked for again when they change something."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from wgd.errors import WgdError
from wgd.kernel.monitor import Notice, Subject
from wgd.plan.neighbours import Finding

log = logging.getLogger(__name__)

REST = 50
"""Looking takes at most one part in so many of the time: a host may have tables of any size, and change them often."""


class Neighbours:
    """The findings of `read`, which raises WgdError when the kernel cannot be read. New ones are logged."""

    def __init__(self, read: Callable[[], tuple[Finding, ...]]) -> None:
        self._read = read
        self._changed = True
        self._not_before = 0.0
        self.found: tuple[Finding, ...] = ()

    def notified(self, notices: Iterable[Notice]) -> None:
        """Note that somebody has changed something, if the notices say so."""
        about = {Subject.TABLE, Subject.RULE, Subject.FORWARDING, Subject.LOST}
        self._changed = self._changed or any(notice.subject in about for notice in notices)

    def look(self, *, anew: bool = False) -> None:
        """Look if anything has changed, or `anew` in any case; what is found is in `found`, what is new in the log."""
        begun = time.monotonic()
        if not anew and (not self._changed or begun < self._not_before):
            return
        self._changed = False
        try:
            found = self._read()
        except WgdError as error:
            log.warning("what others do to the traffic is not known: %s", error)
            return
        ended = time.monotonic()
        self._not_before = ended + REST * (ended - begun)
        for finding in found:
            if finding not in self.found:
                log.warning("in the way: %s", finding)
        for finding in self.found:
            if finding not in found:
                log.info("no longer in the way: %s", finding.where)
        self.found = found

    def fields(self) -> list[dict[str, Any]]:
        """Return what Status says of them."""
        return [{"where": each.where, "effect": each.effect, "remedy": each.remedy} for each in self.found]
