"""Everything the gateway wants of the kernel, and in what it differs from what the kernel holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from wgd.model import PublicKey, SecretKey, ServerConfig
from wgd.plan import forwarding, peers, routing, ruleset
from wgd.plan.state import PROTOCOL, Device, DeviceAddress, DevicePeer, Link, Route, RoutingRule
from wgd.policy.ruleset import Ruleset
from wgd.policy.table import desired_ruleset


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


def desired(config: ServerConfig, keys: Keys, held: frozenset[int]) -> Desired:
    """Return what the kernel must hold; `held` are the families whose forwarding switch wgd turns on."""
    device = Device(
        config.interface.name,
        keys.private,
        config.interface.listen_port,
        tuple(
            DevicePeer(
                peer.public_key,
                frozenset(peer.allowed_ips),
                keys.preshared.get(peer.public_key),
                peer.endpoint,
                peer.persistent_keepalive or 0,
            )
            for peer in config.peers
        ),
    )
    return Desired(
        config,
        device,
        routing.desired_addresses(config),
        routing.desired_routes(config),
        routing.desired_rules(config),
        desired_ruleset(config, held),
    )


def our_routes(values: tuple[Route, ...]) -> tuple[Route, ...]:
    """Return those routes that wgd added."""
    return tuple(value for value in values if value.protocol == PROTOCOL)


def our_rules(values: tuple[RoutingRule, ...]) -> tuple[RoutingRule, ...]:
    """Return those routing rules that wgd added."""
    return tuple(value for value in values if value.protocol == PROTOCOL)


def differences(
    wanted: Desired, actual: Actual, originals: Mapping[str, str], now: float = 0.0
) -> tuple[Difference, ...]:
    """Return in what `actual`, read at `now` (POSIX seconds), is not `wanted`, the lock first.

    `originals` are the sysctls that wgd has changed.
    """
    return tuple(_differences(wanted, actual, originals, now))


def _differences(wanted: Desired, actual: Actual, originals: Mapping[str, str], now: float) -> Iterator[Difference]:
    for name in ruleset.differences(wanted.ruleset, actual.ruleset, now):
        yield Difference("table" if name == "table" else "set", name)
    for rule in wanted.rules:
        if rule not in actual.rules:
            yield Difference("rule", f"routing rule {rule.priority} (IPv{rule.family}) is missing")
    yield from _route_differences(wanted, actual)
    yield from _device_differences(wanted, actual)
    for name in forwarding.desired_settings(wanted.config, actual.settings, originals):
        yield Difference("forwarding", name)


def _route_differences(wanted: Desired, actual: Actual) -> Iterator[Difference]:
    change = routing.change(wanted.routes, actual.routes)
    for routes, what in ((change.add, "is missing"), (change.remove, "is left over")):
        for route in routes:
            yield Difference("route", f"{route.kind} {route.destination} in table {route.table} {what}")


def _device_differences(wanted: Desired, actual: Actual) -> Iterator[Difference]:
    name, mtu = wanted.device.name, wanted.config.interface.mtu
    if actual.link is None or actual.device is None:
        yield Difference("link", f"{name} is missing")
        return
    if not actual.link.up:
        yield Difference("link", f"{name} is down")
    if mtu is not None and actual.link.mtu != mtu:
        yield Difference("link", f"{name} has MTU {actual.link.mtu} instead of {mtu}")
    device = peers.change(wanted.device, actual.device, wanted.device)
    if device.private_key is not None or device.listen_port is not None:
        yield Difference("link", f"{name} has another private key or listen port")
    for peer in device.peers:
        yield Difference("peer", str(peer.public_key))
    for address in wanted.addresses:
        if address not in actual.addresses:
            yield Difference("address", f"{address.address} is missing")
