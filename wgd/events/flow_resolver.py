"""What the end of a flow means: its client, and the rule that let it begin, as its `open` named them.

What was worked out once is kept, within bounds, so that the next flow of the same kind costs a lookup.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from wgd.events import lines
from wgd.events.lines import FlowParts
from wgd.events.names_book import NamesBook
from wgd.events.packet import Packet
from wgd.policy.names import Client, Names
from wgd.policy.ruleset import RECORDED_DELIVERED

MAX_PARTS = 1 << 15
"""How many flows' parts are kept: beyond it, as after a port scan, all are forgotten at once."""
NEVER = 1 << 64
NANOSECONDS = 1_000_000_000

FlowKey = tuple[int, tuple[bytes, bytes, int, int, int | None, int | None]]
"""Begin of the era; source, destination, RECORDED_… of the mark, protocol, destination port, ICMP type."""


class Era(NamedTuple):
    """A time, in ns of the epoch from `begin` until before `end`, in which the same rules of one policy were in force.

    `names` are those of that policy first, and then those of others that may know what these do not.
    """

    begin: int
    end: int
    names: list[Names]


class FlowResolver:
    """Resolves against a NamesBook."""

    def __init__(self, book: NamesBook) -> None:
        self.known_parts: dict[FlowKey, FlowParts] = {}
        self._book = book
        self._generation = -1
        self._changes: list[int] = []
        self._eras: dict[int, Era] = {}

    def refresh(self) -> None:
        """Forget what has changed with the book."""
        if self._generation != self._book.generation:
            self._generation = self._book.generation
            self._changes = self._book.changes()
            self._eras.clear()
            self.known_parts.clear()

    def era(self, start: int) -> Era:
        """Return the era in which a flow began, given in ns of the epoch."""
        place = bisect_right(self._changes, start)
        era = self._eras.get(place)
        if era is None:
            begin = self._changes[place - 1] if place else 0
            end = self._changes[place] if place < len(self._changes) else NEVER
            era = self._eras[place] = Era(begin, end, self._book.in_force(begin))
        return era

    def parts(self, era: Era, key: FlowKey) -> FlowParts:
        """Return the parts of the line of a flow that began in `era`, and keep them in `known_parts`."""
        _, (source, destination, recorded, protocol, port, icmp_type) = key
        packet = Packet(source, destination, protocol, None, port, icmp_type, 0)
        delivered = recorded == RECORDED_DELIVERED
        found = [_resolved(names, packet, era.begin / NANOSECONDS, delivered=delivered) for names in era.names]
        # Names are handed over just before their ruleset: what began in between is known to the names before.
        best = next((one for one in found if one.rule is not None), found[0] if found else _UNKNOWN)
        leading = lines.verdict_text("close", "allow")
        if best.client is not None:
            leading += lines.client_text(best.client.public_key, best.client.name)
        parts = lines.flow_parts(leading, packet, best.rule, client_began=best.client_began)
        if len(self.known_parts) >= MAX_PARTS:
            self.known_parts.clear()
        self.known_parts[key] = parts
        return parts


class _Resolved(NamedTuple):
    client: Client | None
    rule: str | None
    client_began: bool


_UNKNOWN = _Resolved(None, None, client_began=True)


def _resolved(names: Names, packet: Packet, now: float, *, delivered: bool) -> _Resolved:
    client_began, other_end = True, packet.destination
    client = names.client(packet.source)
    if client is None:
        client_began, other_end = False, packet.source
        client = names.client(packet.destination)
    if client is None:
        return _UNKNOWN
    rule = names.rule(
        client,
        other_end,
        packet.protocol,
        packet.destination_port,
        to_gateway=delivered,
        incoming=not client_began,
        now=now,
    )
    return _Resolved(client, rule, client_began)
