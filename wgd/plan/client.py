"""What the client wants of the kernel: one peer, addresses, and a route for each of its AllowedIPs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network

from wgd.errors import ConflictError
from wgd.model import Address, ClientConfig, Endpoint, Network, SecretKey
from wgd.plan import peers, routing
from wgd.plan.state import CLIENT_PROTOCOL, Device, DeviceAddress, DevicePeer, Link, Route

IP6_RT_PRIO_USER = 1024
"""linux/ipv6_route.h"""


@dataclass(frozen=True)
class Desired:
    """What the kernel must hold for a config."""

    config: ClientConfig
    device: Device
    addresses: tuple[DeviceAddress, ...]
    routes: tuple[Route, ...]

    def with_endpoint(self, endpoint: Endpoint) -> Desired:
        """Return the same with another endpoint of the server, a literal one."""
        server = replace(self.device.peers[0], endpoint=endpoint)
        return replace(self, device=replace(self.device, peers=(server,)))


@dataclass(frozen=True)
class Actual:
    """What the kernel holds; `routes` are those of every table, the host's too."""

    link: Link | None
    device: Device | None
    addresses: tuple[DeviceAddress, ...]
    routes: tuple[Route, ...]


def desired(config: ClientConfig, private_key: SecretKey, preshared_key: SecretKey | None) -> Desired:
    """Return what the kernel must hold; a first endpoint that is a name is left for the resolver."""
    device = desired_device(config, private_key, preshared_key)
    addresses = tuple(DeviceAddress(address) for address in config.interface.address)
    return Desired(config, device, addresses, desired_routes(config))


def desired_device(config: ClientConfig, private_key: SecretKey, preshared_key: SecretKey | None) -> Device:
    """Return the client's WireGuard device with the server as its one peer."""
    first = config.server.endpoints[0]
    endpoint = first if first.address is not None else None
    server = DevicePeer(
        config.server.public_key,
        frozenset(config.server.allowed_ips),
        preshared_key,
        endpoint,
        config.server.persistent_keepalive or 0,
    )
    return Device(config.interface.name, private_key.clamped(), config.interface.listen_port, (server,))


def desired_routes(config: ClientConfig) -> tuple[Route, ...]:
    """Return a route for each of the server's AllowedIPs."""
    return tuple(
        Route(
            network,
            config.routes.table,
            device=config.interface.name,
            metric=_as_read_back(config.routes.metric, network),
            protocol=CLIENT_PROTOCOL,
        )
        for network in config.server.allowed_ips
    )


def _as_read_back(metric: int, network: Network) -> int:
    """Return the metric that a route shows: IPv6 cannot tell its default from none, and kernel/links.py gives 0."""
    return 0 if isinstance(network, IPv6Network) and metric == IP6_RT_PRIO_USER else metric


def missing(wanted: Desired, actual: Actual) -> Iterator[str]:
    """Yield in words what the kernel does not hold."""
    name = wanted.device.name
    if actual.link is None or actual.device is None:
        yield f"interface {name} is gone"
        return
    if not actual.link.up:
        yield f"interface {name} is down"
    mtu = wanted.config.interface.mtu
    if mtu is not None and actual.link.mtu != mtu:
        yield f"interface {name} has MTU {actual.link.mtu} instead of {mtu}"
    if peers.change(wanted.device, actual.device, wanted.device):
        yield f"the keys, the listen port or the server peer of {name} differ"
    for address in routing.change(wanted.addresses, actual.addresses).add:
        yield f"address {address.address} is gone"
    for route in routing.change(wanted.routes, actual.routes).add:
        yield f"route to {route.destination} is gone"


def refuse_conflicts(config: ClientConfig, routes: Iterable[Route]) -> None:
    """Raise ConflictError for a route that is there with another device or gateway, naming it."""
    wanted = set(config.server.allowed_ips)
    for route in routes:
        if route.table == config.routes.table and route.destination in wanted and not _is_ours(route, config):
            raise ConflictError(
                f"route to {route.destination}",
                f"exists already ({describe(route)}): remove it, or take {route.destination} out of server.allowed_ips",
            )


def refuse_loop(config: ClientConfig, address: Address) -> None:
    """Raise ConflictError for an endpoint inside AllowedIPs: the tunnel's own packets would go into the tunnel."""
    for network in config.server.allowed_ips:
        if address.version == network.version and address in network:
            raise ConflictError(
                f"server.endpoint {address}",
                f"lies in server.allowed_ips {network}: the tunnel's own packets would go into the tunnel",
            )


def bypasses(config: ClientConfig, routes: Iterable[Route]) -> Iterator[str]:
    """Yield, in words, each route of the host that takes a part of AllowedIPs around the tunnel."""
    for route in routes:
        if route.table != config.routes.table or _is_ours(route, config):
            continue
        for network in config.server.allowed_ips:
            if _inside(route.destination, network):
                yield f"{route.destination} goes around the tunnel, by a route of the host ({describe(route)})"


def describe(route: Route) -> str:
    """Return a route the way `ip route` writes it, without its destination."""
    words = [] if route.kind == "unicast" else [route.kind]
    words += [f"via {route.gateway}"] if route.gateway else []
    words += [f"dev {route.device}"] if route.device else []
    words += [f"metric {route.metric}"] if route.metric else []
    return " ".join(words)


def _is_ours(route: Route, config: ClientConfig) -> bool:
    return route.device == config.interface.name and route.gateway is None


def _inside(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner != outer and inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner != outer and inner.subnet_of(outer)
    return False


def our_routes(interface: str, routes: Iterable[Route]) -> tuple[Route, ...]:
    """Return those routes that the client of an interface added."""
    return tuple(route for route in routes if route.protocol == CLIENT_PROTOCOL and route.device == interface)
