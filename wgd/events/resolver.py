"""What the ruleset's log prefix, the interfaces and the addresses of a packet mean: event, verdict, client, rule.

What was worked out once is kept, within bounds, so that the next packet of the same kind costs a lookup.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wgd.events import lines
from wgd.events.lines import PacketParts
from wgd.events.names_book import NamesBook
from wgd.events.packet import Packet
from wgd.policy.names import Client, Names

VERDICTS = {
    b"open allow": ("open", "allow"),
    b"open would_deny": ("open", "would_deny"),
    b"deny deny": ("deny", "deny"),
    b"deny spoof": ("deny", "deny"),
    b"packet allow": ("packet", "allow"),
    b"packet would_deny": ("packet", "would_deny"),
}
"""Event and verdict by how a log prefix of the ruleset begins (policy/skeleton.py); the policy's digest follows."""
SPOOF = b"deny spoof"

MAX_PARTS = 1 << 15
"""How many lines' parts are kept, about 20 MB: beyond it, as in a port scan, all are forgotten at once."""
MAX_CONTEXTS = 1 << 10
NANOSECONDS = 1_000_000_000
INTERFACE_NANOSECONDS = 5 * NANOSECONDS
"""For how long an interface's name is believed; it may be renamed."""


@dataclass(frozen=True, eq=False, slots=True)
class Context:
    """What all packets that one rule logs between two interfaces have in common. Compared by identity.

    `names` is None where no client is looked for: a spoofed source, or a policy whose names are not known, which
    `resolved` False says.
    """

    leading: str
    interfaces: str
    names: Names | None
    resolved: bool
    allowed: bool
    from_client: bool
    to_gateway: bool


PartsKey = tuple[Context, int | None, bytes, int | None, int | None]
"""Context, protocol, source and destination address joined, destination port, ICMP type."""


class Resolver:
    """Resolves against a NamesBook. `interface_name` gives the name of an index, None for one that is gone."""

    def __init__(self, book: NamesBook, interface_name: Callable[[int], str | None]) -> None:
        self.known_parts: dict[PartsKey, PacketParts] = {}
        self._book = book
        self._generation = book.generation
        self._interface_name = interface_name
        self._interface_names: dict[int, str | None] = {}
        self._asked = 0
        self._seconds = 0.0
        self._next_end = 0.0
        self._contexts: dict[tuple[bytes, str | None, str | None], Context] = {}

    def refresh(self, now: int) -> bool:
        """Forget what may have changed at `now` (nanoseconds); True when contexts given out before are void."""
        void = False
        self._seconds = now / NANOSECONDS
        if self._generation != self._book.generation or self._seconds >= self._next_end:
            self._generation = self._book.generation
            self._next_end = self._book.next_end(self._seconds)
            self._contexts.clear()
            self.known_parts.clear()
            void = True
        if not 0 <= now - self._asked < INTERFACE_NANOSECONDS:
            self._asked = now
            self._interface_names.clear()
            void = True
        return void

    def context(self, prefix: bytes | None, indev: int | None, outdev: int | None) -> Context | None:
        """Return what a log prefix and two interface indexes mean; None for a prefix that is not the ruleset's."""
        incoming, outgoing = self._name(indev), self._name(outdev)
        key = (prefix or b"", incoming, outgoing)
        context = self._contexts.get(key)
        if context is None:
            context = self._new_context(*key)
            if context is not None:
                if len(self._contexts) >= MAX_CONTEXTS:
                    self._contexts.clear()
                self._contexts[key] = context
        return context

    def parts(self, key: PartsKey) -> PacketParts:
        """Return the parts of a packet's line, and keep them in `known_parts`."""
        parts = self._render(*key)
        if len(self.known_parts) >= MAX_PARTS:
            self.known_parts.clear()
        self.known_parts[key] = parts
        return parts

    def _new_context(self, prefix: bytes, incoming: str | None, outgoing: str | None) -> Context | None:
        start, _, digest = prefix.rpartition(b" ")
        if start not in VERDICTS:
            return None
        event, verdict = VERDICTS[start]
        names = self._book.get(digest.decode("ascii", "replace"))
        return Context(
            leading=lines.verdict_text(event, verdict),
            interfaces=lines.interfaces_text(incoming, outgoing),
            names=None if start == SPOOF else names,
            resolved=names is not None,
            allowed=verdict == "allow",
            from_client=names is not None and incoming == names.interface,
            to_gateway=outgoing is None,
        )

    def _render(
        self, context: Context, protocol: int | None, addresses: bytes, port: int | None, icmp_type: int | None
    ) -> PacketParts:
        half = len(addresses) // 2
        packet = Packet(addresses[:half], addresses[half:], protocol, None, port, icmp_type, 0)
        client, rule = _client_and_rule(context, packet, self._seconds)
        return lines.packet_parts(
            context.leading if client is None else context.leading + lines.client_text(client.public_key, client.name),
            packet,
            rule,
            context.interfaces,
        )

    def _name(self, index: int | None) -> str | None:
        if index is None:
            return None
        if index not in self._interface_names:
            if len(self._interface_names) >= MAX_CONTEXTS:
                self._interface_names.clear()
            self._interface_names[index] = self._interface_name(index)
        return self._interface_names[index]


def _client_and_rule(context: Context, packet: Packet, now: float) -> tuple[Client | None, str | None]:
    names = context.names
    if names is None:
        return None, None
    client = names.client(packet.source if context.from_client else packet.destination)
    if client is None or not context.allowed:
        return client, None
    return client, names.rule(
        client,
        packet.destination if context.from_client else packet.source,
        packet.protocol,
        packet.destination_port,
        to_gateway=context.to_gateway,
        incoming=not context.from_client,
        now=now,
    )
