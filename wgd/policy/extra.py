"""What is asked for beside the plain grants: those with an end, what the network may begin, and whose a flow is.

Rules with `until` have sets of their own whose elements the kernel drops at that time, daemon or not; `allow_from`
asks the same questions with the ends exchanged. Neither is ever decided for a whole flow at once: each packet is
asked about. The layout is that of policy/compile.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product

from wgd.model import AllowRule, Peer, PublicKey, ServerConfig
from wgd.policy.compile import (
    ADDRESS_FIELD,
    ADDRESS_TYPE,
    FAMILIES,
    FROM_CLIENT,
    QUESTIONS,
    SET_FIELDS,
    Compiled,
    addresses_of,
    is_host,
    sets_of,
)
from wgd.policy.remembered import remembered
from wgd.policy.ruleset import Chain, Element, KeySet, VerdictMap, digest

Questions = Mapping[str, Mapping[str, str]]

FROM_NETWORK: Questions = {
    "from_in": {
        "any": "{ip} saddr",
        "proto": "meta l4proto . {ip} saddr",
        "port": "th dport . meta l4proto . {ip} saddr",
    },
    "from_out": {
        "any": "{ip} daddr",
        "proto": "meta l4proto . {ip} daddr",
        "port": "th sport . meta l4proto . {ip} daddr",
    },
    "from_related": {"any": "ct original {ip} saddr", "host": "ct original protocol . ct original {ip} saddr"},
}
"""What `allow_from` is asked: a packet to the client, the client's reply, an ICMP error about such a flow."""
UNTIL: Questions = {f"until_{name}": QUESTIONS[name] for name in QUESTIONS if not name.startswith("own")}
UNTIL_OWN: Questions = {f"until_{name}": QUESTIONS[name] for name in QUESTIONS if name.startswith("own")}
"""What a rule with an end is asked: what every rule is asked, for the gateway's own addresses apart."""
ALL_QUESTIONS: Questions = {**FROM_NETWORK, **UNTIL, **UNTIL_OWN}

Grants = frozenset[tuple[bool, int | None, AllowRule]]
"""Whether it is the network that begins, when it ends, and what is granted."""


def compile_extra(config: ServerConfig) -> Compiled:
    """Return the sets, chains and verdict maps of `allow_from`, and of the rules with `until`."""
    chains: dict[str, Chain] = {}
    sets: dict[str, KeySet] = {}
    elements: dict[str, dict[Element, str]] = {f"{asked}{family}": {} for asked in ALL_QUESTIONS for family in FAMILIES}
    granted = _grants_by_client(config)
    names: dict[Grants, str] = {}
    for peer in config.peers:
        grants = granted.get(peer.public_key)
        if grants is None:
            continue
        if grants not in names:
            names[grants] = _name(grants)
            _add(names[grants], grants, chains, sets)
        for family in FAMILIES:
            for addresses in addresses_of(peer, family):
                for asked in ALL_QUESTIONS:
                    chain = f"{asked}_{names[grants]}"
                    if chain in chains:
                        elements[f"{asked}{family}"][(addresses,)] = chain
    maps = {name: VerdictMap((ADDRESS_TYPE[int(name[-1])],), found) for name, found in elements.items()}
    return Compiled(chains, {**sets, **_pairs(config.peers)}, maps)


@remembered
def _pairs(peers: tuple[Peer, ...]) -> Mapping[str, KeySet]:
    """Return the sets of every two addresses, or one twice, that belong to one and the same client, one a family."""
    return {
        f"pairs{family}": KeySet(
            (ADDRESS_TYPE[family],) * 2,
            frozenset(pair for peer in peers for pair in product(addresses_of(peer, family), repeat=2)),
        )
        for family in FAMILIES
    }


def _grants_by_client(config: ServerConfig) -> dict[PublicKey, Grants]:
    granted: dict[PublicKey, set[tuple[bool, int | None, AllowRule]]] = defaultdict(set)
    for rule in config.policy.rules:
        found = {(True, rule.until, entry) for entry in rule.allow_from}
        if rule.until is not None:
            found |= {(False, rule.until, entry) for entry in rule.allow}
        for client in rule.clients if found else ():
            granted[client] |= found
    return {client: frozenset(found) for client, found in granted.items()}


def _name(grants: Grants) -> str:
    """Return the name that equal grants share."""
    return digest(
        "\n".join(
            sorted(
                f"{incoming} {until} {entry.to} {entry.proto} {','.join(map(str, entry.ports))}"
                for incoming, until, entry in grants
            )
        )
    )


def _add(name: str, grants: Grants, chains: dict[str, Chain], sets: dict[str, KeySet]) -> None:
    """Add the chains and sets of one client's grants: sets apart for each end, so that each runs out as a whole."""
    bodies: dict[str, list[str]] = {asked: [] for asked in ALL_QUESTIONS}
    by_end: dict[tuple[bool, int | None], list[AllowRule]] = defaultdict(list)
    for incoming, until, entry in grants:
        by_end[incoming, until].append(entry)
    for (incoming, until), rules in sorted(by_end.items(), key=str):
        label = f"{name}_{until}" if until is not None else name
        for asked_here, prefix, entries, kinds in _groups(incoming, rules):
            for found, (kind, family, key_set) in sets_of(f"{prefix}_{label}", tuple(entries), kinds).items():
                sets[found] = replace(key_set, until=until)
                for asked, question in asked_here.items():
                    if kind in question:
                        fields = question[kind].format(ip=ADDRESS_FIELD[family])
                        bodies[asked].append(f"{fields} @{found} goto allow_packet")
    chains |= {f"{asked}_{name}": Chain.of(*body) for asked, body in bodies.items() if body}


def _groups(incoming: bool, rules: list[AllowRule]) -> Iterator[tuple[Questions, str, list[AllowRule], Iterable[str]]]:  # noqa: FBT001 - one of a pair of fields
    """Yield which questions are asked of which rules, with the prefix and the kinds of their sets."""
    if incoming:
        yield FROM_NETWORK, "from", rules, SET_FIELDS
        return
    yield UNTIL, "until", rules, SET_FIELDS
    # As in policy/compile.py: only a rule that names just that host opens an address of the gateway.
    yield UNTIL_OWN, "until_own", [entry for entry in rules if is_host(entry.to)], FROM_CLIENT
