"""From one config to the next while the gateway runs: all of it or nothing, and back again when it is not confirmed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from wgd.daemon.confirmation import Confirmation
from wgd.daemon.gateway import Gateway
from wgd.daemon.recordings import Recordings
from wgd.errors import WgdError
from wgd.model import ServerConfig
from wgd.plan.gateway import Desired

log = logging.getLogger(__name__)


class Reload:
    """Reloads of one gateway and its event log.

    `load` reads the config anew; `reloaded` is told what is in force now, what was before, and in words how.
    """

    def __init__(
        self,
        gateway: Gateway,
        recordings: Recordings,
        load: Callable[[], ServerConfig],
        reloaded: Callable[[Desired, Desired | None, str], None],
    ) -> None:
        self._gateway = gateway
        self._recordings = recordings
        self._load = load
        self._reloaded = reloaded
        self._confirmation = Confirmation()

    def prepare(self) -> Desired:
        """Return what the config as it is now wants; raise WgdError where it would be refused."""
        return self._gateway.prepare(self._load())

    def reload(self, confirm: int | None) -> None:
        """Read the config anew and go over to it; raise WgdError, and stay with what was, when that is refused.

        `confirm` is after how many seconds to go back unless `confirm` was called.
        """
        before = self._gateway.desired
        try:
            desired = self.prepare()
            self._go_over_to(desired)
        except WgdError as error:
            log.error("reload refused:")
            for line in str(error).splitlines():
                log.error("  %s", line)
            raise
        if confirm is not None and before is not None:
            self._confirmation.begin(before, confirm, time.monotonic())
        self._reloaded(desired, before, "reloaded" if confirm is None else f"reloaded, to be confirmed in {confirm} s")

    def confirm(self) -> bool:
        """Keep the config that was to be confirmed; False when none was."""
        confirmed = self._confirmation.end()
        if confirmed:
            log.info("the reload is confirmed")
        return confirmed

    @property
    def confirm_seconds(self) -> int | None:
        """In how many seconds it goes back, None when nothing waits for a confirmation."""
        return self._confirmation.left(time.monotonic())

    def go_back_in_time(self) -> None:
        """Go back to the config before when nobody has confirmed the new one in time."""
        before = self._confirmation.due(time.monotonic())
        if before is None:
            return
        log.warning("nobody has confirmed the reload: going back to the config before; the files are still the new one")
        unconfirmed = self._gateway.desired
        try:
            self._go_over_to(before)
        except WgdError as error:
            log.error("cannot go back, and will try again: %s", error)
            self._confirmation.retry(time.monotonic())
        else:
            self._confirmation.end()
            self._reloaded(before, unconfirmed, "went back")

    def _go_over_to(self, desired: Desired) -> None:
        before = self._gateway.desired
        logging_before = before.config.logging if before is not None else None
        self._recordings.follow(logging_before, desired.config, lambda: self._gateway.reload(desired))
