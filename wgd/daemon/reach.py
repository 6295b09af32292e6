"""Which endpoint of the server the client talks to: names looked up, a list tried in order, a dead one left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from wgd.errors import HostError, WgdError
from wgd.host.resolve import Resolver
from wgd.model import Endpoint
from wgd.plan import endpoints
from wgd.plan.state import DevicePeer

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKUPS = 15.0


class Reach:
    """Looks after the endpoint; `use` is called with each literal endpoint that is to be tried."""

    def __init__(self, use: Callable[[Endpoint], None]) -> None:
        self.resolver = Resolver()
        self._use = use
        self._wanted: tuple[Endpoint, ...] = ()
        self._attempt: endpoints.Attempt | None = None
        self._asked = 0.0
        self._sent = 0
        self.handshake_done = False
        self.trouble = ""

    def close(self) -> None:
        """Stop listening to the resolver."""
        self.resolver.close()

    def begin(self, wanted: tuple[Endpoint, ...]) -> None:
        """Start over with the endpoints of a config; the first of them is in use already if it is a literal one."""
        if wanted == self._wanted:
            return
        self._wanted, self._asked, self.trouble = wanted, 0.0, ""
        self._attempt = None
        if wanted[0].address is not None:
            self._attempt = endpoints.Attempt(wanted[0], time.monotonic(), self._sent)
        else:
            self._ask()

    def in_use(self, wanted: tuple[Endpoint, ...]) -> Endpoint | None:
        """Return the literal endpoint to stay with when a config with the endpoints `wanted` is loaded."""
        return self._attempt.endpoint if self._attempt is not None and wanted == self._wanted else None

    def look_after(self, server: DevicePeer) -> None:
        """Look at the kernel's report of the server peer and try another endpoint when this one is dead."""
        self._sent = server.tx_bytes
        done = time.time() - server.last_handshake < endpoints.SESSION_SECONDS
        if done and not self.handshake_done:
            log.info("handshake done with %s", server.endpoint)
            self.trouble = ""
        self.handshake_done = done
        if self._attempt is None or endpoints.is_failing(self._attempt, server, time.monotonic(), time.time()):
            self._ask()

    def resolved(self) -> None:
        """Take the resolver's answer; call it when the resolver is readable."""
        answer = self.resolver.answer()
        if self.resolver.asked != self._wanted:
            # A reload has changed the endpoints since: this answer is about those of the old config.
            if self._attempt is None:
                self.resolver.ask(self._wanted)
        elif isinstance(answer, HostError):
            self._say(f"{answer}; trying again")
        elif answer:
            self._try(answer)

    def _ask(self) -> None:
        now = time.monotonic()
        if not self._asked or now - self._asked >= SECONDS_BETWEEN_LOOKUPS:
            self._asked = now
            self.resolver.ask(self._wanted)

    def _try(self, candidates: tuple[Endpoint, ...]) -> None:
        current = self._attempt.endpoint if self._attempt is not None else None
        chosen = candidates[0] if current is None else endpoints.following(candidates, current)
        self._attempt = endpoints.Attempt(chosen, time.monotonic(), self._sent)
        if chosen == current:
            self._say(f"no answer from {chosen}")
            return
        try:
            self._use(chosen)
        except WgdError as error:
            self._say(str(error))
        else:
            self._say(f"trying {chosen}" if current is None else f"no answer from {current}, trying {chosen}")

    def _say(self, trouble: str) -> None:
        """Log something once, not every time it is found again."""
        if trouble != self.trouble:
            log.info("%s", trouble)
        self.trouble = trouble
