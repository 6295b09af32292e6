"""Policy to sets and verdict maps: client address -> chain of its policy -> set of what the policy grants.

Clients with equal grants share one policy, named by the digest of what it grants: a changed policy is a new
one beside the old, and the switch is one element of a verdict map. The port stands first in a set's key
because the kernel's concatenated sets narrow by the first field first (measured: the other order costs 60 times more).

Clients whose grants nobody shares go into shards: a chain and its sets for many clients, the client's address first in
every key. A chain for each of 10,000 such clients does not load in minutes, and one set for all of them is slow. Which
shard is the client's own for ever, so that a change of one client changes elements of one shard.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from wgd.model import AllowRule, Network, Peer, PublicKey, ServerConfig
from wgd.policy.disjoint import disjoint, joined, merge, outermost
from wgd.policy.remembered import remembered
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
CLIENT = {
    "out": "{ip} saddr",
    "in": "{ip} daddr",
    "related": "ct original {ip} saddr",
    "own_out": "{ip} saddr",
    "own_in": "{ip} daddr",
}
"""Where the client's address stands in what each question asks about: the first field of a shard's keys."""
SHARDS = 128
"""A fixed number, so that no client ever changes its shard: 78 clients in each when 10,000 have grants of their own."""
SHARD_DIGITS = 6
VERDICTS = {"related": "allow_packet"}
"""An ICMP error belongs to its flow's conntrack entry, and is asked about less: it must not vouch for the flow."""


Kind = tuple[str, int]
"""The kind of a set and its family."""
FoundSet = tuple[str, int, KeySet]
"""A set with its kind and family."""


@dataclass(frozen=True)
class Compiled:
    """The part of the ruleset that the policy decides; the other part is the same for every policy."""

    chains: Mapping[str, Chain] = field(default_factory=dict)
    sets: Mapping[str, KeySet] = field(default_factory=dict)
    maps: Mapping[str, VerdictMap] = field(default_factory=dict)


def grants_by_client(config: ServerConfig) -> dict[PublicKey, frozenset[AllowRule]]:
    """Return what each client that any rule names is granted, wherever it was written."""
    rules_of: dict[PublicKey, list[int]] = defaultdict(list)
    for index, rule in enumerate(config.policy.rules):
        # Rules with an end are asked for apart: policy/extra.py.
        for client in rule.clients if rule.until is None else ():
            rules_of[client].append(index)
    # Many clients have few lists of rules, and those who are granted the same get one object.
    by_rules: dict[tuple[int, ...], frozenset[AllowRule]] = {}
    shared: dict[frozenset[AllowRule], frozenset[AllowRule]] = {}
    result = {}
    for client, indexes in rules_of.items():
        key = tuple(indexes)
        if key not in by_rules:
            grants = frozenset(allowed for index in key for allowed in config.policy.rules[index].allow)
            by_rules[key] = shared.setdefault(grants, grants)
        result[client] = by_rules[key]
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
    holders: dict[int, list[Peer]] = defaultdict(list)
    policies: dict[int, frozenset[AllowRule]] = {}
    for peer in config.peers:
        rules = granted.get(peer.public_key)
        if rules:
            # Equal grants are one object, and its identity hashes faster than its content.
            policies[id(rules)] = rules
            holders[id(rules)].append(peer)
    for policy, peers in holders.items():
        if len(peers) > 1:
            name = policy_name(policies[policy])
            add_policy(name, policies[policy], chains, sets)
            send(peers, name, chains, elements)
    sharded: dict[int, list[tuple[Peer, frozenset[AllowRule]]]] = defaultdict(list)
    for policy, peers in holders.items():
        if len(peers) == 1:
            sharded[shard_of(peers[0])].append((peers[0], policies[policy]))
    for shard, members in sharded.items():
        name = add_shard(shard, members, chains, sets)
        send([peer for peer, _ in members], name, chains, elements)
    sets |= clients(config.peers)
    maps = {name: VerdictMap((ADDRESS_TYPE[int(name[-1])],), found) for name, found in elements.items()}
    return Compiled(chains, sets, maps)


def send(peers: list[Peer], name: str, chains: Mapping[str, Chain], elements: Mapping[str, dict[Element, str]]) -> None:
    """Send the addresses of `peers` to those chains of a policy or shard that there are."""
    for family in FAMILIES:
        keys = [key for peer in peers for key in peer.elements_of(family)]
        for purpose in QUESTIONS:
            chain = f"{purpose}_{name}"
            if chain in chains:
                elements[f"{purpose}{family}"].update(dict.fromkeys(keys, chain))


@remembered
def clients(peers: tuple[Peer, ...]) -> Mapping[str, KeySet]:
    """Return the sets of every client address, with or without a grant, one a family."""
    return {
        f"clients{family}": KeySet(
            (ADDRESS_TYPE[family],), frozenset(key for peer in peers for key in peer.elements_of(family))
        )
        for family in FAMILIES
    }


def addresses_of(peer: Peer, family: int) -> tuple[Interval, ...]:
    """Return a peer's addresses of `family`. Its AllowedIPs may be nested, elements may not."""
    return tuple(addresses for (addresses,) in peer.elements_of(family))


def policy_name(rules: Iterable[AllowRule]) -> str:
    """Return the name that equal grants share."""
    return digest("\n".join(sorted(f"{rule.to} {rule.proto} {','.join(map(str, rule.ports))}" for rule in rules)))


def shard_of(peer: Peer) -> int:
    """Return the number of a client's shard: public keys are as good as random."""
    return peer.public_key.raw[0] % SHARDS


def shard_name(shard: int) -> str:
    """Return the name that a shard's sets carry, and with which the name of its chains begins."""
    return f"shard{shard:02x}"


def add_policy(name: str, rules: Iterable[AllowRule], chains: dict[str, Chain], sets: dict[str, KeySet]) -> None:
    """Add the chains and sets of one policy. A rule opens an address of the gateway only if it names just that host."""
    everything = tuple(rules)
    forwarded = sets_of(f"policy_{name}", everything, SET_FIELDS)
    own = sets_of(f"own_{name}", named_hosts(everything), FROM_CLIENT)
    add_chains(name, forwarded, own, chains, sets)


def add_shard(
    shard: int,
    members: Iterable[tuple[Peer, frozenset[AllowRule]]],
    chains: dict[str, Chain],
    sets: dict[str, KeySet],
) -> str:
    """Add the chains and sets of a shard: those of its clients' policies, with the client's address in every key.

    Return what its chains are called after: which sets it has. Where that changes there are new chains beside the old,
    to which all of its clients are sent at once: a chain that is rewritten would be a moment too early or too late.
    """
    name = shard_name(shard)
    forwarded: dict[Kind, list[Element]] = defaultdict(list)
    own: dict[Kind, list[Element]] = defaultdict(list)
    for peer, rules in members:
        everything = tuple(rules)
        named = named_hosts(everything)
        granted = kinds_of(everything, SET_FIELDS)
        add_keys(peer, granted, forwarded)
        add_keys(peer, granted if len(named) == len(everything) else kinds_of(named, FROM_CLIENT), own)
    for kind in [kind for kind in own if kind[0] not in FROM_CLIENT]:
        del own[kind]
    of_forwarded, of_own = shard_sets(f"policy_{name}", forwarded), shard_sets(f"own_{name}", own)
    named_after = f"{name}_{digest(' '.join((*of_forwarded, *of_own)), SHARD_DIGITS)}"
    add_chains(named_after, of_forwarded, of_own, chains, sets, client=CLIENT)
    return named_after


def add_keys(peer: Peer, granted: Mapping[Kind, list[Element]], found: dict[Kind, list[Element]]) -> None:
    """Add what a client is granted to the elements of its shard."""
    for (kind, family), elements in granted.items():
        for addresses in addresses_of(peer, family):
            found[kind, family] += [(addresses, *element) for element in elements]


def shard_sets(prefix: str, found: Mapping[Kind, list[Element]]) -> dict[str, FoundSet]:
    """Return a shard's sets, with kind and family; none is empty."""
    return {
        f"{prefix}_{kind}{family}": (
            kind,
            family,
            KeySet((ADDRESS_TYPE[family], *SET_FIELDS[kind], ADDRESS_TYPE[family]), frozenset(elements)),
        )
        for (kind, family), elements in sorted(found.items())
        if elements
    }


def add_chains(
    name: str,
    forwarded: Mapping[str, FoundSet],
    own: Mapping[str, FoundSet],
    chains: dict[str, Chain],
    sets: dict[str, KeySet],
    *,
    client: Mapping[str, str] | None = None,
) -> None:
    """Add sets, and the chain of each question that looks them up; `client` is what stands first in their keys."""
    sets |= {found: key_set for found, (_, _, key_set) in (*forwarded.items(), *own.items())}
    for purpose, question in QUESTIONS.items():
        asked = own if purpose.startswith("own") else forwarded
        first = f"{client[purpose]} . " if client is not None else ""
        body = [
            f"{(first + question[kind]).format(ip=ADDRESS_FIELD[family])} @{found}"
            f" goto {VERDICTS.get(purpose, 'allow')}"
            for found, (kind, family, _) in asked.items()
            if kind in question
        ]
        if body:
            chains[f"{purpose}_{name}"] = Chain.of(*body)


def named_hosts(rules: tuple[AllowRule, ...]) -> tuple[AllowRule, ...]:
    """Return those rules that name a single address."""
    return tuple(rule for rule in rules if is_host(rule.to))


def sets_of(prefix: str, rules: tuple[AllowRule, ...], kinds: Iterable[str]) -> dict[str, FoundSet]:
    """Return the sets of the `kinds` asked for, with kind and family, that hold what `rules` grant; none is empty."""
    return {
        f"{prefix}_{kind}{family}": (
            kind,
            family,
            KeySet((*SET_FIELDS[kind], ADDRESS_TYPE[family]), frozenset(elements)),
        )
        for (kind, family), elements in kinds_of(rules, kinds).items()
    }


def kinds_of(rules: tuple[AllowRule, ...], kinds: Iterable[str]) -> dict[Kind, list[Element]]:
    """Return the disjoint elements that grant what `rules` do, for the `kinds` of set asked for; none is empty."""
    found = {}
    for family in FAMILIES:
        in_family = [rule for rule in rules if rule.to.version == family]
        if in_family:
            by_kind = elements_of(in_family)
            found.update({(kind, family): by_kind[kind] for kind in kinds if by_kind[kind]})
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
        "any": [(addresses,) for addresses in merge(outermost(everything))],
        "proto": protocol_elements(whole),
        "port": [
            (ports, (proto, proto), addresses)
            for proto, granted in by_port.items()
            for addresses, ports in joined(disjoint(granted))
        ],
        "host": protocol_elements(hosts),
    }


def protocol_elements(networks: Mapping[int, list[Network]]) -> list[Element]:
    """Return (protocol, addresses) elements for networks by protocol."""
    return [((proto, proto), addresses) for proto, found in networks.items() for addresses in merge(outermost(found))]
