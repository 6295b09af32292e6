"""Who an address belongs to and which rule covers a packet, made for many questions.

policy/decide.py asks it for `policy.tests`, and the event log for what a line says beyond the packet's bytes: the
daemon makes one Names for each policy it loads and hands it to the recorder as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

from wgd.model import ICMP, ICMPV6, AllowRule, Network, Peer, PublicKey, ServerConfig
from wgd.policy.remembered import remembered

Value = TypeVar("Value")

MOST_BLOCKS = 1024
"""How many lists of rules are kept as destinations for the next reload."""


class Prefix(NamedTuple):
    """A network as numbers: the bits of its family's addresses (32 or 128), its first address, its prefix length."""

    bits: int
    first: int
    length: int

    @property
    def is_host(self) -> bool:
        """Whether this is a single address."""
        return self.length == self.bits


class Destination(NamedTuple):
    """What one allow rule covers. `protocol` None is every protocol; `ports` (first, last) empty is every port."""

    prefix: Prefix
    protocol: int | None
    ports: tuple[tuple[int, int], ...]

    def covers(self, protocol: int | None, port: int | None) -> bool:
        """Tell whether a packet to an address of the prefix is covered; None is what the packet does not show."""
        if self.protocol is None:
            return True
        if self.protocol != protocol:
            return False
        return not self.ports or (port is not None and any(first <= port <= last for first, last in self.ports))


class NamedRule(NamedTuple):
    """A list of a policy rule: its entry N is called `LABEL[N]`; `destinations` is an index into Names.destinations.

    `until` is when it ends, in POSIX seconds, None for never.
    """

    label: str
    destinations: int
    until: int | None = None


class Client(NamedTuple):
    """A peer: its public key in base64, its name, an index into Names.policies, its AllowedIPs."""

    public_key: str
    name: str
    policy: int
    allowed_ips: tuple[Prefix, ...]


@dataclass(frozen=True)
class Names:
    """The names of one policy, as plain numbers and text, each distinct list held once.

    `destinations` are the allow and allow_from lists. `policies` are the allow lists (indexes into `rules`) that
    clients have in common, `incoming` the same clients' allow_from lists; () when no rule has any.
    """

    digest: str
    interface: str
    clients: tuple[Client, ...] = ()
    policies: tuple[tuple[int, ...], ...] = ()
    rules: tuple[NamedRule, ...] = ()
    destinations: tuple[tuple[Destination, ...], ...] = ()
    incoming: tuple[tuple[int, ...], ...] = ()

    def client(self, address: bytes) -> Client | None:
        """Return the client whose AllowedIPs hold the address (4 or 16 bytes), the longest prefix first."""
        return self._clients.longest(address)

    def rule(
        self,
        client: Client,
        other_end: bytes,
        protocol: int | None,
        port: int | None,
        *,
        to_gateway: bool = False,
        incoming: bool = False,
        now: float | None = None,
    ) -> str | None:
        """Return the label of the client's first allow rule, in the config's order, that covers a packet.

        `other_end` is the destination, with 4 or 16 bytes; `protocol` and the destination's `port` are None where the
        packet shows none. `to_gateway`: the packet is delivered to the gateway itself, which only a rule that names
        one host opens. `incoming`: the packet goes to the client, `other_end` is its source, and it is the
        allow_from rules that are asked. What has ended by `now`, in POSIX seconds, covers nothing; None: nothing has.
        """
        lists = self.incoming if incoming else self.policies
        for number in lists[client.policy] if lists else ():
            label, block, until = self.rules[number]
            if until is not None and now is not None and until <= now:
                continue
            covering = (
                index
                for index, allowed in self._blocks[block].holding(other_end)
                if allowed.covers(protocol, port) and (allowed.prefix.is_host or not to_gateway)
            )
            first = min(covering, default=None)
            if first is not None:
                return f"{label}[{first}]"
        return None

    def next_end(self, now: float) -> int | None:
        """Return when, after `now`, the next rule ends, in POSIX seconds; None when none does."""
        return min((rule.until for rule in self.rules if rule.until is not None and rule.until > now), default=None)

    def to_json(self) -> bytes:
        """Return the JSON that `from_json` takes."""
        lists = (self.policies, self.rules, self.destinations, self.incoming)
        fields = (self.digest, self.interface, self.clients, *lists)
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Names:
        """Return the Names that `to_json` wrote."""
        digest, interface, clients, policies, rules, destinations, incoming = json.loads(data)
        return cls(
            digest,
            interface,
            tuple(Client(key, name, policy, _prefixes(prefixes)) for key, name, policy, prefixes in clients),
            tuple(tuple(policy) for policy in policies),
            tuple(NamedRule(*rule) for rule in rules),
            tuple(tuple(map(_destination, block)) for block in destinations),
            tuple(tuple(numbers) for numbers in incoming),
        )

    @cached_property
    def _clients(self) -> _PrefixTable[Client]:
        return _PrefixTable((prefix, client) for client in self.clients for prefix in client.allowed_ips)

    @cached_property
    def _blocks(self) -> tuple[_PrefixTable[tuple[int, Destination]], ...]:
        return tuple(
            _PrefixTable((destination.prefix, (index, destination)) for index, destination in enumerate(block))
            for block in self.destinations
        )


class _PrefixTable(Generic[Value]):
    """Values by network: one dictionary for each prefix length that occurs, probed from the longest down."""

    def __init__(self, entries: Iterable[tuple[Prefix, Value]]) -> None:
        tables: dict[int, dict[int, dict[int, list[Value]]]] = {}
        for prefix, value in entries:
            shift = prefix.bits - prefix.length
            table = tables.setdefault(prefix.bits, {}).setdefault(shift, {})
            table.setdefault(prefix.first >> shift, []).append(value)
        self._tables = {bits: sorted(by_shift.items()) for bits, by_shift in tables.items()}

    def longest(self, address: bytes) -> Value | None:
        number = int.from_bytes(address, "big")
        for shift, table in self._tables.get(8 * len(address), ()):
            values = table.get(number >> shift)
            if values is not None:
                return values[0]
        return None

    def holding(self, address: bytes) -> Iterable[Value]:
        number = int.from_bytes(address, "big")
        for shift, table in self._tables.get(8 * len(address), ()):
            yield from table.get(number >> shift, ())


def names(config: ServerConfig, digest: str) -> Names:
    """Return the names of a config's peers and rules; `digest` is what its ruleset writes into log prefixes."""
    blocks: dict[tuple[AllowRule, ...], int] = {}
    rules: list[NamedRule] = []
    rules_of: dict[PublicKey, tuple[list[int], list[int]]] = {}
    for rule in config.policy.rules:
        for direction, (entries, label) in enumerate(((rule.allow, rule.label), (rule.allow_from, rule.label_from))):
            if not entries:
                continue
            for key in dict.fromkeys(rule.clients):
                rules_of.setdefault(key, ([], []))[direction].append(len(rules))
            # A label ends in [INDEX] whether the rule has a name or not.
            block = blocks.setdefault(entries, len(blocks))
            rules.append(NamedRule(label(0).removesuffix("[0]"), block, rule.until))
    policies: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    clients = []
    for peer, (public_key, prefixes) in zip(config.peers, _who(config.peers), strict=True):
        outgoing, incoming = rules_of.get(peer.public_key, ((), ()))
        policy = policies.setdefault((tuple(outgoing), tuple(incoming)), len(policies))
        clients.append(Client(public_key, peer.name, policy, prefixes))
    return Names(
        digest,
        config.interface.name,
        tuple(clients),
        tuple(outgoing for outgoing, _ in policies),
        tuple(rules),
        tuple(map(_destinations, blocks)),
        tuple(incoming for _, incoming in policies) if any(incoming for _, incoming in policies) else (),
    )


@remembered
def _who(peers: tuple[Peer, ...]) -> tuple[tuple[str, tuple[Prefix, ...]], ...]:
    """Return the public key and the AllowedIPs of each peer."""
    return tuple((str(peer.public_key), tuple(map(_prefix, peer.allowed_ips))) for peer in peers)


@lru_cache(MOST_BLOCKS)
def _destinations(block: tuple[AllowRule, ...]) -> tuple[Destination, ...]:
    return tuple(map(_allowed, block))


def _prefix(network: Network) -> Prefix:
    return Prefix(network.max_prefixlen, int(network.network_address), network.prefixlen)


def _allowed(rule: AllowRule) -> Destination:
    protocol = ICMPV6 if rule.proto == ICMP and rule.to.version == 6 else rule.proto  # noqa: PLR2004 IP version
    return Destination(_prefix(rule.to), protocol, tuple((ports.first, ports.last) for ports in rule.ports))


def _prefixes(values: Iterable[Any]) -> tuple[Prefix, ...]:
    return tuple(Prefix(*value) for value in values)


def _destination(value: Any) -> Destination:
    prefix, protocol, ports = value
    return Destination(Prefix(*prefix), protocol, tuple((first, last) for first, last in ports))
