"""What the kernel would answer from a compiled ruleset, by policy/loaded.py, on a gateway with known addresses."""

from __future__ import annotations

from ipaddress import ip_address

from tests.unit.policy.policy_examples import OWN, TUNNEL
from wgd.model import Address
from wgd.policy import loaded
from wgd.policy.decide import ECHO
from wgd.policy.loaded import Packet
from wgd.policy.ruleset import Ruleset

OURS = {*OWN, *map(ip_address, TUNNEL)}
SHARED = set(map(ip_address, ("10.80.0.255", "fd80::", "fd81::")))
"""The tunnel's broadcast address, and for anycast in IPv6 the first address of its network and of a client's."""


def asks(ruleset: Ruleset, question: str, client: Address, packet: Packet) -> bool:
    """Tell whether a policy chain to which `question` sends this client address allows the packet."""
    for name in (question, f"until_{question}"):
        verdicts = ruleset.maps.get(f"{name}{client.version}")
        elements = verdicts.elements if verdicts is not None else ()
        assert sum(first <= int(client) <= last for ((first, last),) in elements) <= 1, "no two elements overlap"
    return loaded.asks(ruleset, question, client, packet)


def is_delivered_here(address: Address) -> bool:
    """Tell whether `fib daddr type` says local, broadcast, anycast or multicast."""
    return address in OURS | SHARED or address.is_multicast or address.is_loopback or str(address) == "255.255.255.255"


def passes(ruleset: Ruleset, packet: Packet) -> bool:
    """Tell whether a client's first packet passes the chain from_client."""
    free = str(packet.destination) in TUNNEL and packet.proto == ECHO[packet.destination.version]
    return loaded.passes(ruleset, packet, delivered=is_delivered_here(packet.destination), free=free)
