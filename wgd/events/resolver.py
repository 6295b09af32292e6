"""What the ruleset's log prefix, the interfaces and the addresses of a packet mean: event, verdict, client, rule.

What was worked out once is kept, within bounds, and by pieces: in a scan no packet is like another, but its client,
its interfaces and its rule are those of the packets before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_ntop
from typing import NamedTuple, TypeVar

from wgd.events import lines
from wgd.events.lines import Parts
from wgd.events.names_book import NamesBook
from wgd.model import ICMP, ICMPV6
from wgd.policy.names import Names
from wgd.policy.rule_index import RuleIndex

Key = TypeVar("Key")
Value = TypeVar("Value")

VERDICTS = {
    b"open allow": ("open", "allow"),
    b"open would_deny": ("open", "would_deny"),
    b"deny deny": ("deny", "deny"),
    b"deny spoof": ("deny", "deny"),
    b"packet allow": ("packet", "allow"),
    b"packet reply": ("packet", "allow"),
    b"packet would_deny": ("packet", "would_deny"),
}
"""Event and verdict by how a log prefix of the ruleset begins (policy/skeleton.py); the policy's digest follows."""
SPOOF = b"deny spoof"
ANSWER = b"packet reply"
"""What passes by the rule for a flow that the other end began."""

MAX_CONTEXTS = 1 << 10
MAX_INDEXES = 1 << 12
"""How many of each are kept: beyond it all are forgotten at once."""
IPV4_BYTES = 4
ICMP_PROTOCOLS = frozenset({ICMP, ICMPV6})
NANOSECONDS = 1_000_000_000
INTERFACE_NANOSECONDS = 5 * NANOSECONDS
"""For how long an interface's name is believed; it may be renamed."""


@dataclass(frozen=True, eq=False, slots=True)
class Context:
    """What all packets that one rule logs between two interfaces have in common. Compared by identity.

    `names` is None where no client is looked for: a spoofed source, or a policy whose names are not known, which
    `resolved` False says. `from_client`: the source is the client's end. `incoming`: it was the other end that began.
    `answers`: not the source began.
    """

    leading: str
    interfaces: str
    names: Names | None
    resolved: bool
    allowed: bool
    from_client: bool
    incoming: bool
    answers: bool
    to_gateway: bool


class _End(NamedTuple):
    """What is known of an address on the client's side; `rules` is None where no rule is looked for.

    `leading` are the first members of its lines, `before` is all that stands before the source port of its packets.
    """

    leading: str
    before: str
    address: str
    rules: RuleIndex | None


class Form:
    """Renders the parts of lines whose packets have context, IP version and protocol in common.

    `known` are the parts that were asked for, by addresses and place. `has_ports` and `has_type` say what the place is:
    the destination port, or the ICMP type. `answers`: it is the source port, that of the end that did not begin, and
    between the parts goes the destination port. `half` is the length of an address.
    """

    __slots__ = (
        *("_context", "_ends", "_family", "_half", "_protocol", "_resolver", "_tails"),
        *("answers", "has_ports", "has_type", "known"),
    )

    def __init__(
        self, resolver: Resolver, context: Context, protocol: int | None, half: int, *, has_ports: bool
    ) -> None:
        self.known: dict[tuple[bytes, int | None], Parts] = {}
        self.has_ports = has_ports and not context.answers
        self.answers = has_ports and context.answers
        self.has_type = protocol in ICMP_PROTOCOLS
        self._resolver = resolver
        self._context = context
        self._protocol = protocol
        self._half = half
        self._family = AF_INET if half == IPV4_BYTES else AF_INET6
        self._ends: dict[bytes, _End] = {}
        self._tails: dict[str | None, str] = {}

    def parts(self, addresses: bytes, place: int | None) -> Parts:
        """Return the parts of a packet's line.

        `addresses` are source and destination joined. `place` is what the class says, None where the packet does not
        show it.
        """
        port = place if self.has_ports or self.answers else None
        source, destination = addresses[: self._half], addresses[self._half :]
        if self._context.from_client:
            leading, before, source_text, rules = self._ends.get(source) or self._new_end(source)
            rule = None if rules is None else rules.rule(destination, port)
            destination_text = inet_ntop(self._family, destination)
        else:
            leading, _, destination_text, rules = self._ends.get(destination) or self._new_end(destination)
            rule = None if rules is None else rules.rule(source, port)
            source_text = inet_ntop(self._family, source)
            before = lines.before_source_port(leading, source_text, has_ports=self.has_ports)
        tail = self._new_tail(rule, place) if self.has_type else self._tails.get(rule) or self._new_tail(rule, None)
        if self.answers:
            return lines.before_destination_port(leading, source_text, port, destination_text), tail
        return before, lines.after_source_port(destination_text, port, tail)

    def _new_end(self, address: bytes) -> _End:
        leading, rules = self._context.leading, None
        names = self._context.names
        client = names.client(address) if names is not None else None
        if names is not None and client is not None:
            leading += lines.client_text(client.public_key, client.name)
            if self._context.allowed:
                rules = self._resolver.rules(self._context, names, client.policy, 8 * self._half, self._protocol)
        text = inet_ntop(self._family, address)
        before = lines.before_source_port(leading, text, has_ports=self.has_ports)
        end = self._ends[address] = _End(leading, before, text, rules)
        return end

    def _new_tail(self, rule: str | None, icmp_type: int | None) -> str:
        transport = lines.transport_text(self._protocol, icmp_type, rule)
        tail = f'{transport}{self._context.interfaces},"length":'
        if icmp_type is None:
            self._tails[rule] = tail
        return tail


class Resolver:
    """Resolves against a NamesBook. `interface_name` gives the name of an index, None for one that is gone."""

    def __init__(self, book: NamesBook, interface_name: Callable[[int], str | None]) -> None:
        self._book = book
        self._generation = book.generation
        self._interface_name = interface_name
        self._interface_names: dict[int, str | None] = {}
        self._asked = 0
        self._seconds = 0.0
        self._next_end = 0.0
        self._contexts: dict[tuple[bytes, str | None, str | None], Context] = {}
        self._indexes: dict[_RulesKey, RuleIndex] = {}

    def refresh(self, now: int) -> bool:
        """Forget what may have changed at `now` (nanoseconds); True when contexts given out before are void."""
        void = False
        self._seconds = now / NANOSECONDS
        if self._generation != self._book.generation or self._seconds >= self._next_end:
            self._generation = self._book.generation
            self._next_end = self._book.next_end(self._seconds)
            for kept in (self._contexts, self._indexes):
                kept.clear()
            void = True
        if not 0 <= now - self._asked < INTERFACE_NANOSECONDS:
            self._asked = now
            names = {index: self._interface_name(index) for index in self._interface_names}
            void = void or names != self._interface_names
            self._interface_names = names
        return void

    def context(self, prefix: bytes | None, indev: int | None, outdev: int | None) -> Context | None:
        """Return what a log prefix and two interface indexes mean; None for a prefix that is not the ruleset's."""
        incoming, outgoing = self._name(indev), self._name(outdev)
        key = (prefix or b"", incoming, outgoing)
        context = self._contexts.get(key)
        if context is None:
            context = self._new_context(*key)
            if context is not None:
                _keep(self._contexts, key, context, MAX_CONTEXTS)
        return context

    def rules(self, context: Context, names: Names, policy: int, bits: int, protocol: int | None) -> RuleIndex:
        """Return the rules of a policy's clients for packets of a context, with addresses of `bits` bits."""
        key = (context.to_gateway, context.incoming, names.digest, policy, bits, protocol)
        index = self._indexes.get(key)
        if index is None:
            index = RuleIndex(
                names,
                policy,
                bits,
                protocol,
                now=self._seconds,
                to_gateway=context.to_gateway,
                incoming=context.incoming,
            )
            _keep(self._indexes, key, index, MAX_INDEXES)
        return index

    def _new_context(self, prefix: bytes, incoming: str | None, outgoing: str | None) -> Context | None:
        start, _, digest = prefix.rpartition(b" ")
        if start not in VERDICTS:
            return None
        event, verdict = VERDICTS[start]
        names = self._book.get(digest.decode("ascii", "replace"))
        from_client = names is not None and incoming == names.interface
        answers = start == ANSWER
        if answers and outgoing == incoming:
            # Between two clients the one who began is the client.
            from_client = False
        return Context(
            leading=lines.verdict_text(event, verdict),
            interfaces=lines.interfaces_text(incoming, outgoing),
            names=None if start == SPOOF else names,
            resolved=names is not None,
            allowed=verdict == "allow",
            from_client=from_client,
            incoming=from_client if answers else not from_client,
            answers=answers,
            to_gateway=(incoming if answers else outgoing) is None,
        )

    def _name(self, index: int | None) -> str | None:
        if index is None:
            return None
        if index not in self._interface_names:
            _keep(self._interface_names, index, self._interface_name(index), MAX_CONTEXTS)
        return self._interface_names[index]


_RulesKey = tuple[bool, bool, str, int, int, int | None]


def _keep(kept: dict[Key, Value], key: Key, value: Value, limit: int) -> Value:
    """Keep a value, at most `limit` of its kind; return it."""
    if len(kept) >= limit:
        kept.clear()
    kept[key] = value
    return value
