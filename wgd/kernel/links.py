"""The door to links, addresses, routes and routing rules: rtnetlink, through pyroute2.

Every method says what it did not find or could not do as KernelError with the kernel's own word.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_interface, ip_network
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wgd.errors import KernelError
from wgd.kernel.route_dump import ROUTE_KINDS, RouteReader
from wgd.kernel.routes import add_routes, remove_routes
from wgd.kernel.wireguard import no_kernel_wireguard
from wgd.model import Address
from wgd.plan.state import DeviceAddress, Link, Route, RoutingRule, Way

IFF_UP = 1
IFA_F_NOPREFIXROUTE = 0x200
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
FR_ACT_TO_TBL, FR_ACT_PROHIBIT = 1, 8
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Links:
    """rtnetlink of the network namespace in which this object is made."""

    def __init__(self) -> None:
        self._netlink = IPRoute()
        self._routes = RouteReader()

    def close(self) -> None:
        """Close the netlink socket."""
        self._netlink.close()

    def find(self, name: str) -> Link | None:
        """Return the link of that name, or None."""
        return next((link for link in self.links() if link.name == name), None)

    def links(self) -> tuple[Link, ...]:
        """Return every link."""
        with _words_of("links"):
            return tuple(_link(message) for message in self._netlink.get_links())

    def create_wireguard(self, name: str) -> Link:
        """Create a WireGuard link, down; raise UnsupportedError where the kernel has no WireGuard."""
        try:
            with _words_of(name):
                self._netlink.link("add", ifname=name, kind="wireguard")
        except KernelError as error:
            if isinstance(error.__cause__, NetlinkError) and error.__cause__.code == errno.EOPNOTSUPP:
                raise no_kernel_wireguard(name) from error
            raise
        found = self.find(name)
        if found is None:
            raise KernelError(name, "vanished as soon as it was created")
        return found

    def delete(self, link: Link) -> None:
        """Delete a link."""
        with _words_of(link.name):
            self._netlink.link("del", index=link.index)

    def set_up(self, link: Link, *, up: bool) -> None:
        """Set a link up or down."""
        with _words_of(link.name):
            self._netlink.link("set", index=link.index, state="up" if up else "down")

    def set_mtu(self, link: Link, mtu: int) -> None:
        """Set a link's MTU, in bytes."""
        with _words_of(link.name):
            self._netlink.link("set", index=link.index, mtu=mtu)

    def addresses(self, link: Link) -> tuple[DeviceAddress, ...]:
        """Return the addresses of a link, without the link-local ones that the kernel gives itself."""
        with _words_of(link.name):
            messages = self._netlink.get_addr(index=link.index)
        found = (_address(message) for message in messages if message["index"] == link.index)
        return tuple(address for address in found if not address.address.ip.is_link_local)

    def add_address(self, link: Link, address: DeviceAddress) -> None:
        """Add an address; there already is success."""
        flags = IFA_F_NOPREFIXROUTE if address.noprefixroute else 0
        self._address("replace", link, address, flags=flags)

    def remove_address(self, link: Link, address: DeviceAddress) -> None:
        """Remove an address."""
        self._address("del", link, address)

    def _address(self, command: str, link: Link, address: DeviceAddress, **more: int) -> None:
        with _words_of(f"{link.name} {address.address}"):
            self._netlink.addr(
                command,
                index=link.index,
                family=FAMILIES[address.address.version],
                address=str(address.address.ip),
                prefixlen=address.address.network.prefixlen,
                **more,
            )

    def routes(self) -> tuple[Route, ...]:
        """Return the routes of every table and both families, multipath ones once for each next hop."""
        return self._routes.read({link.index: link.name for link in self.links()})

    def add_route(self, route: Route) -> None:
        """Add a route; there already is success, another route to the same destination is KernelError."""
        self._route("add", route)

    def remove_route(self, route: Route) -> None:
        """Remove a route."""
        self._route("del", route)

    def add_routes(self, routes: Iterable[Route]) -> None:
        """Add many routes; raise KernelError at the first that is refused, with those before it added."""
        add_routes(routes)

    def remove_routes(self, routes: Iterable[Route]) -> None:
        """Remove many routes; raise KernelError at the first that is refused, with those before it removed."""
        remove_routes(routes)

    def _route(self, command: str, route: Route) -> None:
        fields: dict[str, Any] = {"scope": RT_SCOPE_UNIVERSE}
        if route.device is not None:
            fields = {"scope": RT_SCOPE_LINK, "oif": _index(route.device)}
        if route.gateway is not None:
            fields |= {"gateway": str(route.gateway), "scope": RT_SCOPE_UNIVERSE}
        if route.metric:
            fields["priority"] = route.metric
        with _words_of(f"route to {route.destination} in table {route.table}"):
            self._netlink.route(
                command,
                family=FAMILIES[route.destination.version],
                dst=str(route.destination),
                table=route.table,
                proto=route.protocol,
                type=route.kind,
                **fields,
            )

    def way(self, source: Address, destination: Address, incoming: str, mark: int) -> Way:
        """Return where a packet with this mark goes that comes in by a link; the kernel asks its rules and tables."""
        bits = destination.max_prefixlen
        try:
            (message,) = self._netlink.route(
                "get",
                family=FAMILIES[destination.version],
                src=str(source), src_len=bits, dst=str(destination), dst_len=bits, iif=_index(incoming), mark=mark,
            )  # fmt: skip
        except NetlinkError as error:
            return Way(None, os.strerror(error.code))
        return Way(ROUTE_KINDS.get(message["type"], str(message["type"])))

    def rules(self) -> tuple[RoutingRule, ...]:
        """Return the routing rules of both families, in the kernel's order."""
        with _words_of("routing rules"):
            return tuple(
                _rule(message, version)
                for version, family in FAMILIES.items()
                for message in self._netlink.get_rules(family=family)
            )

    def add_rule(self, rule: RoutingRule) -> None:
        """Add a routing rule."""
        self._rule("add", rule)

    def remove_rule(self, rule: RoutingRule) -> None:
        """Remove a routing rule."""
        self._rule("del", rule)

    def _rule(self, command: str, rule: RoutingRule) -> None:
        fields: dict[str, Any] = {"action": FR_ACT_TO_TBL if rule.action == "lookup" else FR_ACT_PROHIBIT}
        if rule.table:
            fields["table"] = rule.table
        if rule.mask:
            fields |= {"fwmark": rule.mark, "fwmask": rule.mask}
        if rule.incoming is not None:
            fields["iifname"] = rule.incoming
        if rule.to is not None:
            fields |= {"dst": str(rule.to.network_address), "dst_len": rule.to.prefixlen}
        with _words_of(f"routing rule {rule.priority} (IPv{rule.family})"):
            self._netlink.rule(
                command,
                family=FAMILIES[rule.family],
                priority=rule.priority,
                FRA_PROTOCOL=rule.protocol,
                **fields,
            )


@contextmanager
def _words_of(subject: str) -> Iterator[None]:
    """Turn pyroute2's exceptions into ours, in the kernel's words."""
    try:
        yield
    except NetlinkError as error:
        raise KernelError(subject, os.strerror(error.code)) from error


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise KernelError(name, "no such interface") from error


def _link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info is not None else None
    return Link(
        message["index"],
        message.get_attr("IFLA_IFNAME"),
        kind or "",
        message.get_attr("IFLA_MTU"),
        bool(message["flags"] & IFF_UP),
    )


def _address(message: Any) -> DeviceAddress:
    local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    flags = message.get_attr("IFA_FLAGS") or 0
    return DeviceAddress(ip_interface(f"{local}/{message['prefixlen']}"), bool(flags & IFA_F_NOPREFIXROUTE))


def _rule(message: Any, version: int) -> RoutingRule:
    action = {FR_ACT_TO_TBL: "lookup", FR_ACT_PROHIBIT: "prohibit"}.get(message["action"], str(message["action"]))
    table = (message.get_attr("FRA_TABLE") or message["table"]) if action == "lookup" else 0
    to = message.get_attr("FRA_DST")
    return RoutingRule(
        version,
        message.get_attr("FRA_PRIORITY") or 0,
        action,
        table,
        message.get_attr("FRA_FWMARK") or 0,
        message.get_attr("FRA_FWMASK") or 0,
        message.get_attr("FRA_IIFNAME"),
        message.get_attr("FRA_PROTOCOL") or 0,
        ip_network((to, message["dst_len"])) if to is not None else None,
    )
