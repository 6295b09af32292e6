"""What conntrack must be told so that the end of a flow says what the event log writes of it.

Each of these settings counts for the flows that begin after it was written (net/netfilter/nf_conntrack_core.c,
init_conntrack), so they stand before the ruleset records one. An nftables rule with `ct bytes` would write the first of
them too, and nobody would put it back.
"""

from __future__ import annotations

from collections.abc import Mapping

from wgd.model import ServerConfig

ON, OFF = "1", "0"
COUNTS, TIMES, EVENTS = (f"netfilter/nf_conntrack_{name}" for name in ("acct", "timestamp", "events"))
"""Packets and bytes of both directions; when a flow began and ended; that the kernel tells of it at all."""


def desired_settings(config: ServerConfig, settings: Mapping[str, str]) -> dict[str, str]:
    """Return what must be written, or left, so that flows are accounted; what the host does not have is left out.

    Events are on by default for whoever listens (2): then they are left alone.
    """
    if not config.logging.flows:
        return {}
    wanted = {COUNTS: ON, TIMES: ON} | ({EVENTS: ON} if settings.get(EVENTS) == OFF else {})
    return {name: value for name, value in wanted.items() if settings.get(name) not in (value, None)}


def no_longer_wanted(config: ServerConfig, originals: Mapping[str, str]) -> dict[str, str]:
    """Return what to put back; `originals` is what each sysctl was that wgd has written."""
    if config.logging.flows:
        return {}
    return {name: value for name, value in originals.items() if name in (COUNTS, TIMES, EVENTS)}
