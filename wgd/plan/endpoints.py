"""Which of a server's endpoints a client tries next.

WireGuard does not say that a server cannot be reached: it goes on sending handshake initiations, which show as
bytes sent with no handshake. A tunnel that has nothing to send is silent and healthy.
"""

from __future__ import annotations

from dataclasses import dataclass

from wgd.model import Endpoint
from wgd.plan.state import DevicePeer

SESSION_SECONDS = 180
"""REJECT_AFTER_TIME: a session is dead this long after its handshake (WireGuard whitepaper, 6.1)."""
PATIENCE_SECONDS = 15
"""Three initiations: REKEY_TIMEOUT is 5 seconds (the same)."""


@dataclass(frozen=True)
class Attempt:
    """The endpoint in use: `since` is on the caller's clock in seconds, `sent` the peer's byte count at that time."""

    endpoint: Endpoint
    since: float
    sent: int


def is_failing(attempt: Attempt, peer: DevicePeer, now: float, wall_clock: float) -> bool:
    """Tell whether the server should have answered by now.

    `now` is on the clock of `since`, `wall_clock` in seconds since 1970.
    """
    if wall_clock - peer.last_handshake < SESSION_SECONDS:
        return False
    return now - attempt.since >= PATIENCE_SECONDS and peer.tx_bytes > attempt.sent


def following(candidates: tuple[Endpoint, ...], current: Endpoint) -> Endpoint:
    """Return the candidate after `current`, the first one after the last or when `current` is none of them any more."""
    if current not in candidates:
        return candidates[0]
    return candidates[(candidates.index(current) + 1) % len(candidates)]
