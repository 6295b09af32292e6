"""Policy to sets and verdict maps: client address -> chain of its policy -> set of what the policy grants.

Clients with equal grants share one policy, named by the digest of what it grants: a changed policy is a new
one beside the old, and the switch is one element of a verdict map. The port stands first in a set's key
because the kernel's concatenated sets narrow by the first field first (measured: the other order costs 60 times more).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from wgd.model import AllowRule, Network, Peer, PublicKey, ServerConfig
from wgd.policy.disjoint import disjoint, outermost
from wgd.policy.ruleset import Chain, Element, Interval, KeySet, VerdictMap, digest

ADDRESS_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
ADDRESS_FIELD = {4: "ip", 6: "ip6"}
FAMILIES = (4, 6)
SET_FIELDS: Mapping[str, tuple[str, ...]] = {
    "any": (),
    "proto": ("inet_proto",),
    "port": ("inet_service", "inet_proto"),
    "host": ("inet_proto",),
}
"""The kinds of set a policy has, by what stands before the address: every protocol; one protocol with every port;
one protocol with ports; one protocol with its ports forgotten, for ICMP errors (nft 1.0.6 refuses `ct` ports there)."""
FROM_CLIENT = {
    "any": "{ip} daddr",
    "proto": "meta l4proto . {ip} daddr",
    "port": "th dport . meta l4proto . {ip} daddr",
}
REPLY = {"any": "{ip} saddr", "proto": "meta l4proto . {ip} saddr", "port": "th sport . meta l4proto . {ip} saddr"}
ICMP_ERROR = {"any": "ct reply {ip} saddr", "host": "ct reply protocol . ct reply {ip} saddr"}
QUESTIONS: Mapping[str, Mapping[str, str]] = {
    "out": FROM_CLIENT,
    "in": REPLY,
    "related": ICMP_ERROR,
    "own_out": FROM_CLIENT,
    "own_in": REPLY,
}
"""What a policy is asked, with a verdict map and a chain for each question: a packet from the client, a reply to the
client, an ICMP error about the client's flow, and the first two again for the gateway's own addresses."""
VERDICTS = {"related": "allow_packet"}
"""An ICMP error belongs to its flow's conntrack entry, and is asked about less: it must not vouch for the flow."""


@dataclass(frozen=True)
class Compiled:
    """The part of the ruleset that the policy decides; the other part is the same for every policy."""

    chains: Mapping[str, Chain] = field(default_factory=dict)
    sets: Mapping[str, KeySet] = field(default_factory=dict)
    maps: Mapping[str, VerdictMap] = field(default_factory=dict)


def grants_by_client(config: ServerConfig) -> dict[PublicKey, frozenset[AllowRule]]:
    """Return what each client that any rule names is granted, wherever it was written."""
    granted: dict[PublicKey, set[AllowRule]] = defaultdict(set)
    shared: dict[frozenset[AllowRule], frozenset[AllowRule]] = {}
    for rule in config.policy.rules:
        for client in rule.clients:
            granted[client].update(rule.allow)
    result = {}
    for client, rules in granted.items():
        frozen = frozenset(rules)
        result[client] = shared.setdefault(frozen, frozen)
    return result


def is_host(network: Network) -> bool:
    """Tell whether `network` names a single address."""
    return network.prefixlen == network.max_prefixlen


def compile_policy(config: ServerConfig) -> Compiled:
    """Return the sets, chains and verdict maps that say what `config`'s policy says."""
    chains: dict[str, Chain] = {}
    sets: dict[str, KeySet] = {}
    elements: dict[str, dict[Element, str]] = {f"{purpose}{family}": {} for purpose in QUESTIONS for family in FAMILIES}
    granted = grants_by_client(config)
    names: dict[frozenset[AllowRule], str] = {}
    for peer in config.peers:
        rules = granted.get(peer.public_key)
        if not rules:
            continue
        if rules not in names:
            names[rules] = policy_name(rules)
            add_policy(names[rules], rules, chains, sets)
        for family in FAMILIES:
            for addresses in addresses_of(peer, family):
                for purpose in QUESTIONS:
                    chain = f"{purpose}_{names[rules]}"
                    if chain in chains:
                        elements[f"{purpose}{family}"][(addresses,)] = chain
    sets |= {f"clients{family}": clients(config, family) for family in FAMILIES}
    maps = {name: VerdictMap((ADDRESS_TYPE[int(name[-1])],), found) for name, found in elements.items()}
    return Compiled(chains, sets, maps)


def clients(config: ServerConfig, family: int) -> KeySet:
    """Return the set of every client address of `family`, with or without a grant."""
    found = (addresses for peer in config.peers for addresses in addresses_of(peer, family))
    return KeySet((ADDRESS_TYPE[family],), frozenset((addresses,) for addresses in found))


def addresses_of(peer: Peer, family: int) -> Iterator[Interval]:
    """Yield a peer's addresses of `family`. Its AllowedIPs may be nested (WireGuard takes that), elements may not."""
    return outermost(network for network in peer.allowed_ips if network.version == family)


def policy_name(rules: Iterable[AllowRule]) -> str:
    """Return the name that equal grants share."""
    return digest("\n".join(sorted(f"{rule.to} {rule.proto} {','.join(map(str, rule.ports))}" for rule in rules)))


def add_policy(name: str, rules: Iterable[AllowRule], chains: dict[str, Chain], sets: dict[str, KeySet]) -> None:
    """Add the chains and sets of one policy. A rule opens an address of the gateway only if it names just that host."""
    everything = tuple(rules)
    named = tuple(rule for rule in everything if is_host(rule.to))
    forwarded = sets_of(f"policy_{name}", everything, SET_FIELDS)
    own = sets_of(f"own_{name}", named, FROM_CLIENT)
    sets |= {found: key_set for found, (_, _, key_set) in (forwarded | own).items()}
    for purpose, question in QUESTIONS.items():
        asked = own if purpose.startswith("own") else forwarded
        body = [
            f"{question[kind].format(ip=ADDRESS_FIELD[family])} @{found} goto {VERDICTS.get(purpose, 'allow')}"
            for found, (kind, family, _) in asked.items()
            if kind in question
        ]
        if body:
            chains[f"{purpose}_{name}"] = Chain.of(*body)


def sets_of(prefix: str, rules: tuple[AllowRule, ...], kinds: Iterable[str]) -> dict[str, tuple[str, int, KeySet]]:
    """Return the sets of the `kinds` asked for, with kind and family, that hold what `rules` grant; none is empty."""
    found = {}
    for family in FAMILIES:
        in_family = [rule for rule in rules if rule.to.version == family]
        for kind, elements in elements_of(in_family).items():
            if elements and kind in kinds:
                fields = (*SET_FIELDS[kind], ADDRESS_TYPE[family])
                found[f"{prefix}_{kind}{family}"] = (kind, family, KeySet(fields, frozenset(elements)))
    return found


def elements_of(rules: list[AllowRule]) -> dict[str, list[Element]]:
    """Return the disjoint elements of each kind of set for `rules`, all of one family."""
    everything = [rule.to for rule in rules if rule.proto is None]
    whole: dict[int, list[Network]] = defaultdict(list)
    by_port: dict[int, list[tuple[Network, Interval]]] = defaultdict(list)
    hosts: dict[int, list[Network]] = defaultdict(list)
    for rule in rules:
        if rule.proto is None:
            continue
        hosts[rule.proto].append(rule.to)
        if rule.ports:
            by_port[rule.proto].extend((rule.to, (ports.first, ports.last)) for ports in rule.ports)
        else:
            whole[rule.proto].append(rule.to)
    return {
        "any": [(addresses,) for addresses in outermost(everything)],
        "proto": protocol_elements(whole),
        "port": [
            (ports, (proto, proto), addresses)
            for proto, granted in by_port.items()
            for addresses, ports in disjoint(granted)
        ],
        "host": protocol_elements(hosts),
    }


def protocol_elements(networks: Mapping[int, list[Network]]) -> list[Element]:
    """Return (protocol, addresses) elements for networks by protocol."""
    return [((proto, proto), addresses) for proto, found in networks.items() for addresses in outermost(found)]
