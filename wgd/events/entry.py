"""A line of the event log -> what it says, one at a time and the obvious way: the measure of every faster one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

from wgd.model import Network, PortRange

Entry = Mapping[str, object]


def parse(line: bytes) -> dict[str, object] | None:
    """Return the JSON object that a line is, None when it is none. Of a key given twice the last counts."""
    try:
        found = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def instant(entry: Entry) -> datetime | None:
    """Return when an entry was written; None when its `ts` is no time or says no offset from UTC."""
    text = entry.get("ts")
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
        return None if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class Filter:
    """What is wanted: every condition that is given must hold, and of its values any one.

    `clients` are names or public keys. `networks` and `ports` are of the destination. `since` and `until` have a time
    zone, and belong to the span.
    """

    clients: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()
    verdicts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    ports: tuple[PortRange, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    @property
    def has_span(self) -> bool:
        """Whether the time matters."""
        return self.since is not None or self.until is not None

    def accepts(self, line: bytes) -> bool:
        """Return whether a line, without its line end, is wanted. What is no JSON object is wanted by no condition."""
        if self == NO_FILTER:
            return True
        entry = parse(line)
        return (
            entry is not None
            and self.accepts_kind(entry)
            and self.accepts_destination(entry)
            and (not self.has_span or self.accepts_time(instant(entry)))
        )

    def accepts_kind(self, entry: Entry) -> bool:
        """Return whether event, verdict and client are wanted."""
        return (
            (not self.events or _is_one_of(self.events, entry.get("event")))
            and (not self.verdicts or _is_one_of(self.verdicts, entry.get("verdict")))
            and (
                not self.clients
                or _is_one_of(self.clients, entry.get("client"))
                or _is_one_of(self.clients, entry.get("client_id"))
            )
        )

    def accepts_destination(self, entry: Entry) -> bool:
        """Return whether destination address and port are wanted."""
        return (not self.networks or self._is_within(entry.get("dst_ip"))) and (
            not self.ports or self._is_port(entry.get("dst_port"))
        )

    def accepts_time(self, time: datetime | None) -> bool:
        """Return whether a time is in the span; None is not."""
        return (
            time is not None
            and (self.since is None or self.since <= time)
            and (self.until is None or time <= self.until)
        )

    def _is_within(self, address: object) -> bool:
        if not isinstance(address, str):
            return False
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self.networks)

    def _is_port(self, port: object) -> bool:
        return type(port) is int and any(ports.first <= port <= ports.last for ports in self.ports)


NO_FILTER = Filter()


def _is_one_of(wanted: frozenset[str], value: object) -> bool:
    return isinstance(value, str) and value in wanted
