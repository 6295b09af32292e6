"""The state of a connection, for people: aligned, and in colour on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from wgd.cli.shown import BOLD, GREEN, RED, YELLOW, Painter, interface_state, rows
from wgd.events.words import amount, duration


def status(found: Mapping[str, Any], *, colour: bool) -> str:
    """Return the lines for what Status answers."""
    return rows(list(_summary(found, Painter(colour=colour), time.time())))


def _summary(found: Mapping[str, Any], paint: Painter, now: float) -> Iterator[tuple[str, str]]:
    gateway = found["gateway"]
    connected = gateway is not None and gateway["live"]
    state = paint("connected", GREEN) if connected else paint("not connected", RED)
    yield "connection", f"{paint(found['name'], BOLD)} {state}"
    yield "interface", interface_state(found["interface"], paint)
    yield "addresses", ", ".join(found["interface"]["addresses"]) or "none"
    yield "running", f"for {duration(now - found['started'])}, version {found['version']}"
    if gateway is None:
        yield "gateway", paint("is no peer of the interface", RED)
    else:
        yield "gateway", gateway["public_key"]
        yield "endpoint", _endpoint(gateway)
        yield "handshake", f"{duration(now - gateway['last_handshake'])} ago" if gateway["last_handshake"] else "never"
        yield "traffic", f"{amount(gateway['rx_bytes'])} from the gateway, {amount(gateway['tx_bytes'])} to it"
        yield "routes", ", ".join(gateway["allowed_ips"]) or "none"
    if found["trouble"] is not None and not connected:
        yield "trouble", paint(found["trouble"], YELLOW)
    if found["failing"] is not None:
        yield "failing", paint(found["failing"], RED)


def _endpoint(gateway: Mapping[str, Any]) -> str:
    """Return the address in use, and what the config names where that is something else."""
    in_use, named = gateway["endpoint"], ", ".join(gateway["endpoints"])
    if in_use is None:
        return f"none yet of {named}"
    return in_use if in_use == named else f"{in_use} (of {named})"
