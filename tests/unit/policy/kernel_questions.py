"""What the kernel would answer from a compiled ruleset: the verdict maps, policy chains and sets, read literally.

It knows nothing of the policy: a packet is its header fields, a chain the text of its rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from tests.unit.policy.policy_examples import OWN, TUNNEL
from wgd.model import ICMP, ICMPV6, Address
from wgd.policy.ruleset import Element, Ruleset

RULE = re.compile(r"(?P<fields>[^@]+) @(?P<set>\w+) goto allow(_packet)?")
OURS = {*OWN, *map(ip_address, TUNNEL)}
SHARED = set(map(ip_address, ("10.80.0.255", "fd80::", "fd81::")))
"""The tunnel's broadcast address, and for anycast in IPv6 the first address of its network and of a client's."""


@dataclass(frozen=True)
class Packet:
    """A packet's fields. Where the protocol has no ports, they are the bytes that stand in that place."""

    source: Address
    destination: Address
    proto: int
    source_port: int
    destination_port: int

    def reply(self) -> Packet:
        return Packet(self.destination, self.source, self.proto, self.destination_port, self.source_port)

    def field(self, name: str) -> int | None:
        """Return a field by nft's name, None where it has none; `ct reply` and `ct original` are this packet's way."""
        name = name.removeprefix("ct reply ").removeprefix("ct original ")
        family = {"ip": 4, "ip6": 6}.get(name.split()[0])
        if family not in (None, self.destination.version):
            return None
        return {
            "daddr": int(self.destination),
            "saddr": int(self.source),
            "l4proto": self.proto,
            "protocol": self.proto,
            "dport": self.destination_port,
            "sport": self.source_port,
        }[name.split()[-1]]


def holds(element: Element, values: list[int]) -> bool:
    return len(element) == len(values) and all(
        first <= value <= last for (first, last), value in zip(element, values, strict=True)
    )


def matches(ruleset: Ruleset, rule: str, packet: Packet) -> bool:
    found = RULE.fullmatch(rule)
    assert found, f"a policy chain holds set look-ups only: {rule}"
    # Where a rule names both directions of a flow, the packet is a reply.
    names = found["fields"].split(" . ")
    both = "ct original" in rule and "ct reply" in rule
    asked = [packet.reply() if both and name.startswith("ct original ") else packet for name in names]
    values = [one.field(name.removeprefix("ct original ")) for one, name in zip(asked, names, strict=True)]
    if None in values:
        return False
    return any(holds(element, values) for element in ruleset.sets[found["set"]].elements)


def asks(ruleset: Ruleset, question: str, client: Address, packet: Packet) -> bool:
    """Tell whether a policy chain to which `question` sends this client address allows the packet.

    A question about what a client may begin is asked of the rules with an end, too.
    """
    return any(
        _asks(ruleset, f"{name}{client.version}", client, packet)
        for name in (question, f"until_{question}")
        if f"{name}{client.version}" in ruleset.maps
    )


def _asks(ruleset: Ruleset, name: str, client: Address, packet: Packet) -> bool:
    targets = ruleset.maps[name].elements
    chains = [chain for element, chain in targets.items() if holds(element, [int(client)])]
    assert len(chains) <= 1, "no two elements overlap"
    return any(matches(ruleset, rule, packet) for chain in chains for rule in ruleset.chains[chain].rules)


def is_delivered_here(address: Address) -> bool:
    """Tell whether `fib daddr type` says local, broadcast, anycast or multicast."""
    return address in OURS | SHARED or address.is_multicast or address.is_loopback or str(address) == "255.255.255.255"


def passes(ruleset: Ruleset, packet: Packet) -> bool:
    """Tell whether a client's first packet passes the chain from_client."""
    if not is_delivered_here(packet.destination):
        return asks(ruleset, "out", packet.source, packet)
    if str(packet.destination) in TUNNEL and packet.proto in (ICMP, ICMPV6):
        return True
    return asks(ruleset, "own_out", packet.source, packet)
