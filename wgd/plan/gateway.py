"""Everything the gateway wants of the kernel, and in what it differs from what the kernel holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from wgd.model import PublicKey, SecretKey, ServerConfig
from wgd.plan import forwarding, peers, routing, ruleset
from wgd.plan.state import PROTOCOL, Device, DeviceAddress, DevicePeer, Link, Route, RoutingRule
from wgd.policy.remembered import remembered
from wgd.policy.ruleset import NOTHING, Ruleset
from wgd.policy.table import desired_ruleset


class Part(Enum):
    """A part of what the kernel holds that is read and compared apart from the others.

    LINK has the addresses too; DEVICE is what WireGuard holds: keys, listen port and peers.
    """

    RULESET = auto()
    RULES = auto()
    ROUTES = auto()
    LINK = auto()
    DEVICE = auto()
    FORWARDING = auto()


ALL_PARTS = frozenset(Part)


@dataclass(frozen=True)
class Keys:
    """The secrets that a config names by file."""

    private: SecretKey
    preshared: Mapping[PublicKey, SecretKey]


@dataclass(frozen=True)
class Desired:
    """What the kernel must hold for a config."""

    config: ServerConfig
    device: Device
    addresses: tuple[DeviceAddress, ...]
    routes: tuple[Route, ...]
    rules: tuple[RoutingRule, ...]
    ruleset: Ruleset


@dataclass(frozen=True)
class Actual:
    """What the kernel holds. `routes` and `rules` are ours alone; `settings` are sysctls by path."""

    link: Link | None
    device: Device | None
    addresses: tuple[DeviceAddress, ...]
    routes: tuple[Route, ...]
    rules: tuple[RoutingRule, ...]
    ruleset: Ruleset | None
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it should be. `object` is a word of the event schema, `detail` says which one."""

    object: str
    detail: str


def desired(config: ServerConfig, keys: Keys, held: frozenset[int], before: Desired | None = None) -> Desired:
    """Return what the kernel must hold; `held` are the families whose forwarding switch wgd turns on.

    What has not changed since `before` is taken from there: most of it, where one rule of ten thousand peers has.
    """
    device = Device(
        config.interface.name, keys.private, config.interface.listen_port, _device_peers(config, keys, before)
    )
    unchanged = before if before is not None and _same_routes(config, before.config) else None
    return Desired(
        config,
        device,
        routing.desired_addresses(config),
        unchanged.routes if unchanged is not None else routing.desired_routes(config),
        unchanged.rules
        if unchanged is not None and config.authz_mode is unchanged.config.authz_mode
        else routing.desired_rules(config),
        desired_ruleset(config, held, NOTHING if before is None else before.ruleset),
    )


def _device_peers(config: ServerConfig, keys: Keys, before: Desired | None) -> tuple[DevicePeer, ...]:
    if before is not None and config.peers is before.config.peers:
        known = before.device.peers
        if all(peer.preshared_key == keys.preshared.get(peer.public_key) for peer in known):
            return known
    return tuple(
        DevicePeer(
            peer.public_key,
            frozenset(peer.allowed_ips),
            keys.preshared.get(peer.public_key),
            peer.endpoint,
            peer.persistent_keepalive or 0,
        )
        for peer in config.peers
    )


def _same_routes(config: ServerConfig, before: ServerConfig) -> bool:
    """Tell whether two configs want the same routes."""
    return (config.interface.name, config.interface.address, config.routing, config.peers) == (
        before.interface.name,
        before.interface.address,
        before.routing,
        before.peers,
    )


def changed_parts(wanted: Desired, before: Desired | None) -> frozenset[Part]:
    """Return what has to be set, and read back, to go from `before` to `wanted`: what is large only if it differs."""
    if before is None:
        return ALL_PARTS
    unchanged = {
        part
        for part, same in ((Part.ROUTES, wanted.routes is before.routes), (Part.DEVICE, wanted.device == before.device))
        if same
    }
    return ALL_PARTS - unchanged


def our_routes(values: tuple[Route, ...]) -> tuple[Route, ...]:
    """Return those routes that wgd added."""
    return tuple(value for value in values if value.protocol == PROTOCOL)


def routes_in_charge(values: tuple[Route, ...], config: ServerConfig) -> tuple[Route, ...]:
    """Return those routes that wgd added, and those that somebody put into its tables."""
    return _in_charge(values, config.routing.table)


@remembered
def _in_charge(values: tuple[Route, ...], table: int) -> tuple[Route, ...]:
    tables = (table, table + 1)
    return tuple(value for value in values if value.protocol == PROTOCOL or value.table in tables)


def our_rules(values: tuple[RoutingRule, ...]) -> tuple[RoutingRule, ...]:
    """Return those routing rules that wgd added."""
    return tuple(value for value in values if value.protocol == PROTOCOL)


def differences(
    wanted: Desired,
    actual: Actual,
    originals: Mapping[str, str],
    now: float,
    parts: frozenset[Part] = ALL_PARTS,
) -> tuple[Difference, ...]:
    """Return in what `actual`, read at `now` (POSIX seconds), is not `wanted`, the lock first.

    `originals` are the sysctls that wgd has changed. Only `parts` are looked at, and the link.
    """
    compared: dict[Part, Callable[[], Iterator[Difference]]] = {
        Part.RULESET: lambda: _ruleset_differences(wanted, actual, now),
        Part.RULES: lambda: _rule_differences(wanted, actual),
        Part.ROUTES: lambda: _route_differences(wanted, actual),
        Part.LINK: lambda: _link_differences(wanted, actual),
        Part.DEVICE: lambda: _device_differences(wanted, actual),
        Part.FORWARDING: lambda: (
            Difference("forwarding", name)
            for name in forwarding.desired_settings(wanted.config, actual.settings, originals)
        ),
    }
    return tuple(difference for part, compare in compared.items() if part in parts for difference in compare())


def _ruleset_differences(wanted: Desired, actual: Actual, now: float) -> Iterator[Difference]:
    for name in ruleset.differences(wanted.ruleset, actual.ruleset, now):
        kind = name.partition(" ")[0]
        yield Difference({"table": "table", "chain": "rule"}.get(kind, "set"), name)


def _rule_differences(wanted: Desired, actual: Actual) -> Iterator[Difference]:
    change = routing.change(wanted.rules, actual.rules)
    for rules, what in ((change.add, "is missing"), (change.remove, "is left over")):
        for rule in rules:
            yield Difference("rule", f"routing rule {rule.priority} (IPv{rule.family}) {what}")


def _route_differences(wanted: Desired, actual: Actual) -> Iterator[Difference]:
    """Compare the routes, without those that go with their link: a link that is down or gone has none."""
    has_routes = actual.link is not None and actual.link.up
    change = _route_change(wanted.routes, actual.routes)
    for routes, what in ((change.add, "is missing"), (change.remove, "does not belong there")):
        for route in routes:
            if has_routes or route.device is None:
                yield Difference("route", f"{route.kind} {route.destination} in table {route.table} {what}")


@remembered
def _route_change(desired: tuple[Route, ...], actual: tuple[Route, ...]) -> routing.SetChange[Route]:
    return routing.change(desired, actual)


def _link_differences(wanted: Desired, actual: Actual) -> Iterator[Difference]:
    name, mtu = wanted.device.name, wanted.config.interface.mtu
    if actual.link is None:
        yield Difference("link", f"{name} is missing")
        return
    if mtu is not None and actual.link.mtu != mtu:
        yield Difference("link", f"{name} has MTU {actual.link.mtu} instead of {mtu}")
    if not actual.link.up:
        # With the link go its IPv6 addresses (addrconf_ifdown in net/ipv6/addrconf.c).
        yield Difference("link", f"{name} is down")
        return
    for address in wanted.addresses:
        if address not in actual.addresses:
            yield Difference("address", f"{address.address} is missing")


def _device_differences(wanted: Desired, actual: Actual) -> Iterator[Difference]:
    if actual.device is None:
        return
    device = peers.change(wanted.device, actual.device, wanted.device)
    if device.private_key is not None or device.listen_port is not None:
        yield Difference("link", f"{wanted.device.name} has another private key or listen port")
    for peer in device.peers:
        yield Difference("peer", str(peer.public_key))
