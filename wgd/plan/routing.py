"""Addresses, routes and routing rules: the second lock.

nftables marks what is authorised; here the routing refuses what is not marked, so that a client's packet goes
nowhere when the ruleset is gone. The rules of a family, at `priority` and the three after it:

    priority    iif INTERFACE fwmark 0/MARK  prohibit      enforce only: what a client sends and nobody marked
    +1          to C fwmark MARK/MARK        lookup T      T: the clients' networks, by our interface
    +2          to C iif lo                  lookup T      the gateway's own packets
    +3          to C, enforce: lookup T+1, the same networks as prohibit, else traffic to clients would leave
                by the default route; observe: lookup T, so that even without a ruleset everything is forwarded

C are a few prefixes that cover the clients' networks, and the interface's own; a rule for each. They decide nothing,
since T and T+1 hold the clients' networks and no more: they spare the packets to everywhere else the look into both
(90 ns in IPv4, 190 in IPv6).
What is marked and not for a client falls through to the host's own rules. Addresses carry noprefixroute: no route
to a client stands outside T.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPV4LENGTH, IPV6LENGTH, IPv4Network, IPv6Network, collapse_addresses
from itertools import chain, pairwise
from typing import Any, Generic, TypeVar

from wgd.errors import ConflictError
from wgd.model import AuthzMode, Network, ServerConfig
from wgd.plan.state import PROTOCOL, DeviceAddress, Route, RoutingRule

RULES_A_FAMILY = 4
PREFIXES_AT_MOST = 4
"""A rule that does not match costs a packet 3 ns."""
FAMILIES = (4, 6)
Value = TypeVar("Value")


@dataclass(frozen=True)
class SetChange(Generic[Value]):
    """What to add and then what to remove; False when there is nothing to do."""

    add: tuple[Value, ...]
    remove: tuple[Value, ...]

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)


def change(desired: Iterable[Value], actual: Iterable[Value]) -> SetChange[Value]:
    """Return what leads from `actual` to `desired`, in the order of each."""
    wanted, found = dict.fromkeys(desired), dict.fromkeys(actual)
    return SetChange(
        tuple(value for value in wanted if value not in found),
        tuple(value for value in found if value not in wanted),
    )


def desired_addresses(config: ServerConfig) -> tuple[DeviceAddress, ...]:
    """Return the addresses of the gateway's interface."""
    return tuple(DeviceAddress(address, noprefixroute=True) for address in config.interface.address)


def desired_routes(config: ServerConfig) -> tuple[Route, ...]:
    """Return the clients' routes in T and the prohibit routes of the same networks in T+1."""
    table = config.routing.table
    routes = [
        Route(network, table, device=config.interface.name) for peer in config.peers for network in peer.allowed_ips
    ]
    return (*routes, *(replace(route, table=table + 1, kind="prohibit", device=None) for route in routes))


def desired_rules(config: ServerConfig) -> tuple[RoutingRule, ...]:
    """Return the routing rules of both families."""
    return tuple(rule for family in FAMILIES for rule in _rules_of(family, config))


def _rules_of(family: int, config: ServerConfig) -> tuple[RoutingRule, ...]:
    first, table, mark = config.routing.priority, config.routing.table, config.routing.mark
    enforce = config.authz_mode is AuthzMode.ENFORCE
    refuse = RoutingRule(family, first, "prohibit", mask=mark, incoming=config.interface.name)
    to_clients = (
        RoutingRule(family, first + 1, "lookup", table, mark, mark),
        RoutingRule(family, first + 2, "lookup", table, incoming="lo"),
        RoutingRule(family, first + 3, "lookup", table + 1 if enforce else table),
    )
    cover = tuple(None if network.prefixlen == 0 else network for network in covering(family, config))
    return (*((refuse,) if enforce else ()), *(replace(rule, to=to) for rule in to_clients for to in cover))


def covering(family: int, config: ServerConfig) -> tuple[Network, ...]:
    """Return prefixes that cover every client's network, and the interface's own; PREFIXES_AT_MOST, without overlap.

    They are cut where neighbours have least in common.
    """
    network, bits = (IPv4Network, IPV4LENGTH) if family == FAMILIES[0] else (IPv6Network, IPV6LENGTH)
    own = (address.network for address in config.interface.address if address.version == family)
    claimed: list[tuple[int, int]] = []
    for first, last in sorted(
        chain(
            ((int(found.network_address), int(found.broadcast_address)) for found in own),
            (interval for peer in config.peers for (interval,) in peer.elements_of(family)),
        ),
        key=lambda interval: (interval[0], -interval[1]),
    ):
        # A client lies in the interface's network, or beside it.
        if not claimed or first > claimed[-1][1]:
            claimed.append((first, last))
    differing = [(before[1] ^ after[0]).bit_length() for before, after in pairwise(claimed)]
    cuts = sorted(sorted(range(len(differing)), key=differing.__getitem__, reverse=True)[: PREFIXES_AT_MOST - 1])
    groups = [claimed[first:last] for first, last in pairwise((0, *(cut + 1 for cut in cuts), len(claimed)))]
    found: list[Any] = []
    for group in filter(None, groups):
        (first, _), (_, last) = group[0], group[-1]
        length = bits - (first ^ last).bit_length()
        found.append(network((first, length), strict=False))
    return tuple(collapse_addresses(found))


def refuse_collisions(config: ServerConfig, rules: Iterable[RoutingRule], routes: Iterable[Route]) -> None:
    """Raise ConflictError when the host already uses our priorities, tables or mark bit for something else."""
    first, table, mark = config.routing.priority, config.routing.table, config.routing.mark
    for rule in rules:
        if rule.protocol == PROTOCOL:
            continue
        if first <= rule.priority < first + RULES_A_FAMILY:
            raise ConflictError(
                f"routing rule {rule.priority} (IPv{rule.family})",
                f"is not ours, and wgd needs priorities {first} to {first + RULES_A_FAMILY - 1}:"
                " choose another routing.priority",
            )
        if rule.mask & mark and rule.mark & mark:
            raise ConflictError(
                f"routing rule {rule.priority} (IPv{rule.family})",
                f"matches fwmark 0x{rule.mark:x}/0x{rule.mask:x}, which has our bit 0x{mark:x}:"
                " choose another routing.mark",
            )
    for route in routes:
        if route.protocol != PROTOCOL and route.table in (table, table + 1):
            raise ConflictError(
                f"routing table {route.table}",
                f"already holds a route to {route.destination} that is not ours: choose another routing.table",
            )
