"""The policy question asked of a ruleset as the kernel holds it: verdict maps, policy chains and sets, read literally.

It knows nothing of the config: a packet is its header fields, a chain the text of its rules. The kernel lists rules in
a form of its own, so the text is that of the wish, and only where the chain carries the wish's mark.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from wgd.errors import WgdError
from wgd.model import Address
from wgd.policy.ruleset import Element, Ruleset

RULE = re.compile(r"(?P<fields>[^@]+) @(?P<set>\w+) goto allow(_packet)?")
FAMILY_FIELDS = {"ip": 4, "ip6": 6}


class NotReadableError(WgdError):
    """The loaded ruleset is not what wgd loads; what it answers is not known."""


@dataclass(frozen=True)
class Packet:
    """A packet's fields, as numbers; None is what nobody says: every protocol, every port.

    Where a protocol has no ports, the ports are the bytes that stand in that place, or None.
    """

    source: Address
    destination: Address
    proto: int | None
    source_port: int | None
    destination_port: int | None

    def reply(self) -> Packet:
        """Return the packet that answers this one."""
        return Packet(self.destination, self.source, self.proto, self.destination_port, self.source_port)

    def field(self, name: str) -> int | None:
        """Return a field by nft's name, None where it has none; `ct reply` and `ct original` are this packet's way."""
        name = name.removeprefix("ct reply ").removeprefix("ct original ")
        words = name.split()
        if FAMILY_FIELDS.get(words[0], self.destination.version) != self.destination.version:
            return None
        return {
            "daddr": int(self.destination),
            "saddr": int(self.source),
            "l4proto": self.proto,
            "protocol": self.proto,
            "dport": self.destination_port,
            "sport": self.source_port,
        }[words[-1]]


def readable(loaded: Ruleset, desired: Ruleset) -> Ruleset:
    """Return `loaded` with the text of those chains that `desired` has in the same form; the others are left out."""
    chains = {name: chain for name, chain in desired.chains.items() if loaded.chains.get(name) == chain}
    return replace(loaded, chains=chains)


def changed_chains(loaded: Ruleset, desired: Ruleset) -> tuple[str, ...]:
    """Return the names of the chains on every packet's way that are not as desired.

    Chains that only log decide nothing, and those of a policy are read when it is asked.
    """
    policies = {
        chain for verdicts in (*desired.maps.values(), *loaded.maps.values()) for chain in verdicts.elements.values()
    }
    wanted = {name for name in desired.chains if name not in policies and not name.startswith("log_")}
    added = {name for name, chain in loaded.chains.items() if name not in desired.chains and chain.hook is not None}
    return tuple(sorted(added | {name for name in wanted if loaded.chains.get(name) != desired.chains[name]}))


def asks(ruleset: Ruleset, question: str, client: Address, packet: Packet) -> bool:
    """Tell whether a policy chain to which `question` sends this client address allows the packet.

    A question about what a client may begin is asked of the rules with an end, too. Raise NotReadableError.
    """
    names = (f"{asked}{client.version}" for asked in (question, f"until_{question}"))
    return any(_asks(ruleset, name, client, packet) for name in names if name in ruleset.maps)


def passes(ruleset: Ruleset, packet: Packet, *, delivered: bool, free: bool) -> bool:
    """Tell whether a client's first packet passes the chain from_client; raise NotReadableError.

    `delivered`: the kernel delivers it to the gateway itself. `free`: it is an echo request to the tunnel address.
    """
    return (delivered and free) or asks(ruleset, "own_out" if delivered else "out", packet.source, packet)


def passes_to_client(ruleset: Ruleset, packet: Packet) -> bool:
    """Tell whether the network's first packet passes the chain to_client; raise NotReadableError."""
    name, source = f"clients{packet.source.version}", (int(packet.source),)
    if name not in ruleset.sets:
        raise NotReadableError(f"set {name} is gone")
    forged = any(_holds(element, source) for element in ruleset.sets[name].elements)
    return not forged and asks(ruleset, "from_in", packet.destination, packet)


def _asks(ruleset: Ruleset, name: str, client: Address, packet: Packet) -> bool:
    elements = ruleset.maps[name].elements
    chains = [chain for element, chain in elements.items() if _holds(element, (int(client),))]
    return any(_matches(ruleset, rule, packet) for chain in chains for rule in _rules(ruleset, chain))


def _rules(ruleset: Ruleset, chain: str) -> tuple[str, ...]:
    if chain not in ruleset.chains:
        raise NotReadableError(f"chain {chain} is not as wgd loaded it")
    return ruleset.chains[chain].rules


def _matches(ruleset: Ruleset, rule: str, packet: Packet) -> bool:
    found = RULE.fullmatch(rule)
    if found is None or found["set"] not in ruleset.sets:
        raise NotReadableError(f"a rule is no look-up in a set of ours: {rule}")
    # Where a rule names both directions of a flow, the packet is a reply.
    names = found["fields"].split(" . ")
    both = "ct original" in rule and "ct reply" in rule
    values = tuple(
        (packet.reply() if both and name.startswith("ct original ") else packet).field(name) for name in names
    )
    return any(_holds(element, values) for element in ruleset.sets[found["set"]].elements)


def _holds(element: Element, values: tuple[int | None, ...]) -> bool:
    return len(element) == len(values) and all(
        value is not None and first <= value <= last for (first, last), value in zip(element, values, strict=True)
    )
