"""How often a client's denials are logged: a flood of them fills no disk, and hides those of no other client.

Each client has a limit of its own for what it sends and another for what is sent to it, and spoofed packets have one
for the address that they claim: none of them can use up another's. The kernel keeps the limits in sets that it fills by
itself, from the clients' addresses alone: one key for each of the allowed_ips, of whatever length, so that a client
with a whole network has one limit and not one an address. Before a set could be full, tens of thousands of clients must
be denied something in one minute; those that find no place are logged without a limit, never left out.

A denied TCP connection is seven packets in two minutes, so that PER_SECOND and BURST leave people and programs alone,
and show what a scan is after. A client that floods for a whole day makes some 200 MB of log.

What is over the limit is only counted, and the event log says how many those were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network

from wgd.model import Peer, ServerConfig
from wgd.policy.remembered import remembered
from wgd.policy.ruleset import LIMIT_SETS, LIMITED, Element, KeySet

PER_SECOND, BURST = 10, 100
SET_SIZE = 1 << 17
FORGET_SECONDS = 60
"""After so long without a denial a client's limit is forgotten; it has been full again since ten seconds."""
FAMILIES = {4: ("ip", "ipv4_addr", 32), 6: ("ip6", "ipv6_addr", 128)}
"""nft's word for a family, the type of its addresses, and how many bits one has."""


def limit_sets() -> dict[str, str]:
    """Return the definitions of the sets in which the kernel keeps the limits, by name."""
    rest = f"size {SET_SIZE}; flags dynamic,timeout; timeout {FORGET_SECONDS}s;"
    return {name: f"type {FAMILIES[int(name[-1])][1]}; {rest}" for name in LIMIT_SETS}


def wide_sets(config: ServerConfig) -> dict[str, KeySet]:
    """Return the sets of those allowed_ips that are more than one address, by family and length of the prefix."""
    return {
        _wide_set(family, length): KeySet((FAMILIES[family][1],), elements)
        for (family, length), elements in _wide(config.peers).items()
    }


def limit_rules(config: ServerConfig) -> dict[str, tuple[str, ...]]:
    """Return the rules at the beginning of the chains that log denials: they leave them with what is over a limit."""
    interface = f'"{config.interface.name}"'
    lengths = {family: sorted(length for each, length in _wide(config.peers) if each == family) for family in FAMILIES}
    return {
        "log_deny": (
            *_rules(lengths, f"iifname {interface} ", "saddr", "from"),
            *_rules(lengths, f"iifname != {interface} ", "daddr", "to"),
        ),
        "log_spoof": tuple(_rules(lengths, "", "saddr", "spoof")),
    }


def _rules(lengths: Mapping[int, Sequence[int]], condition: str, end: str, direction: str) -> Iterator[str]:
    over = f'limit rate over {PER_SECOND}/second burst {BURST} packets }} counter name "{LIMITED}" return'
    for family, (word, _, _) in FAMILIES.items():
        field, limits = f"{word} {end}", f"limit_{direction}{family}"
        for length in lengths[family]:
            wide = f"{condition}{field} @{_wide_set(family, length)}"
            yield f"{wide} update @{limits} {{ {field} & {_mask(family, length)} {over}"
        single = "".join(f"{field} != @{_wide_set(family, length)} " for length in lengths[family])
        yield f"{condition}{single}update @{limits} {{ {field} {over}"


@remembered
def _wide(peers: tuple[Peer, ...]) -> dict[tuple[int, int], frozenset[Element]]:
    """Return the allowed_ips that are more than one address, by family and length of the prefix.

    Those that lie in another of the same peer are left out.
    """
    found: dict[tuple[int, int], set[Element]] = {}
    for family, (_, _, bits) in FAMILIES.items():
        for peer in peers:
            for element in peer.elements_of(family):
                ((first, last),) = element
                if first != last:
                    found.setdefault((family, bits - (last - first).bit_length()), set()).add(element)
    return {key: frozenset(elements) for key, elements in found.items()}


def _wide_set(family: int, length: int) -> str:
    return f"wide{family}_{length}"


def _mask(family: int, length: int) -> str:
    network = IPv4Network((0, length)) if family == 4 else IPv6Network((0, length))  # noqa: PLR2004 - the IP version
    return str(network.netmask)
