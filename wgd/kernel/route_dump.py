"""The routes of this network namespace, by one dump a family: tens of thousands in a fraction of a second.

Messages as in linux/rtnetlink.h. A library that gives every attribute its name and place takes many times as long,
and the routes of a gateway are read back again and again.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address

from wgd.errors import KernelError
from wgd.kernel.netlink import (
    DONE,
    DUMP,
    DUMP_INTERRUPTED,
    ERROR,
    HEADER,
    REQUEST,
    attributes,
    messages,
)
from wgd.model import Address, Network
from wgd.plan.state import Route

RECEIVE_BYTES = 1 << 20
_ATTEMPTS = 5
_RTM_GETROUTE, _RTM_NEWROUTE = 26, 24
_CLONED = 0x200
_ROUTE = struct.Struct("=BBBBBBBBI")
_HOP = struct.Struct("=HBBi")
_NUMBER = struct.Struct("=I")
_DST, _OIF, _GATEWAY, _PRIORITY, _MULTIPATH, _TABLE = 1, 4, 5, 6, 9, 15
MOST_NETWORKS = 1 << 16
"""How many destinations are kept as values: a client's stands in two tables."""
FAMILIES = (socket.AF_INET, socket.AF_INET6)
ROUTE_KINDS = {
    1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast",
    6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw", 10: "nat",
}  # fmt: skip
"""rtnetlink(7), RTN_*."""
IP6_RT_PRIO_USER = 1024
"""The metric that the kernel gives an IPv6 route which was added without one (include/uapi/linux/ipv6_route.h)."""


class RouteReader:
    """Reads the routes of this network namespace again and again; what has not changed is the very same object.

    Tens of thousands of routes are told from those of the last time by their bytes, not by their values.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Route, ...]] = {}
        self._names: dict[int, str] = {}
        self._last: tuple[Route, ...] = ()

    def read(self, names: Mapping[int, str]) -> tuple[Route, ...]:
        """Return the routes of every table and both families, multipath ones once for each next hop.

        `names` are the links by index. What the kernel has only learned of a path (RTM_F_CLONED) is no route. A dump
        that a change interrupts is begun anew. Raise KernelError in the kernel's own words.
        """
        if names != self._names:
            self._known, self._names = {}, dict(names)
        try:
            with _open() as netlink:
                found = [message for family in FAMILIES for message in _dump(netlink, family)]
        except OSError as error:
            raise KernelError("routes", error.strerror or str(error)) from error
        known = self._known
        self._known = {message: known.get(message) or tuple(_routes(message, names)) for message in found}
        routes = tuple(route for message in found for route in self._known[message])
        if len(routes) != len(self._last) or any(a is not b for a, b in zip(routes, self._last, strict=True)):
            self._last = routes
        return self._last


def _open() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    made.bind((0, 0))
    return made


def _dump(netlink: socket.socket, family: int) -> list[bytes]:
    """Return the bodies of the messages of one dump."""
    found: list[bytes] = []
    for sequence in range(_ATTEMPTS):
        request = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        netlink.send(HEADER.pack(HEADER.size + len(request), _RTM_GETROUTE, REQUEST | DUMP, sequence, 0) + request)
        found, whole = _answer(netlink)
        if whole:
            break
    return found


def _answer(netlink: socket.socket) -> tuple[list[bytes], bool]:
    """Return the bodies of one dump's messages, and whether nobody changed the routes meanwhile."""
    found: list[bytes] = []
    whole = True
    while True:
        for message in messages(netlink.recv(RECEIVE_BYTES)):
            whole = whole and not message.flags & DUMP_INTERRUPTED
            if message.kind == DONE:
                return found, whole
            if message.kind == ERROR:
                # The kernel has none of this family.
                if message.code in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                    return [], True
                raise OSError(message.code, os.strerror(message.code))
            if message.kind == _RTM_NEWROUTE:
                found.append(bytes(message.body))


def _routes(body: bytes, names: Mapping[int, str]) -> Iterator[Route]:
    """Yield the routes of a message, one for each next hop."""
    family, length, _, _, table, protocol, _, type_, flags = _ROUTE.unpack_from(body)
    if flags & _CLONED:
        return
    values = dict(attributes(memoryview(body)[_ROUTE.size :]))
    version = 4 if family == socket.AF_INET else 6
    kind = ROUTE_KINDS.get(type_, str(type_))
    metric = _number(values.get(_PRIORITY))
    if version == 6 and metric == IP6_RT_PRIO_USER:  # noqa: PLR2004 - the IP version
        metric = 0
    destination = _destination(bytes(values.get(_DST, b"")), length, version)
    table = _number(values.get(_TABLE)) or table
    for index, gateway in _hops(values):
        # A prohibit route of IPv6 reads back with the loopback device, which nobody asked for.
        device = names.get(index, f"#{index}") if index and kind == "unicast" else None
        yield Route(destination, table, kind, device, gateway, metric, protocol)


def _hops(values: Mapping[int, memoryview]) -> Iterator[tuple[int, Address | None]]:
    """Yield the link and the gateway of each next hop; a route without RTA_MULTIPATH has one."""
    hops = values.get(_MULTIPATH)
    if hops is None:
        yield _number(values.get(_OIF)), _address(values.get(_GATEWAY))
        return
    offset = 0
    while offset + _HOP.size <= len(hops):
        length, _, _, index = _HOP.unpack_from(hops, offset)
        yield index, _address(dict(attributes(hops[offset + _HOP.size : offset + length])).get(_GATEWAY))
        offset += (max(length, _HOP.size) + 3) & ~3


def _number(value: memoryview | None) -> int:
    return 0 if value is None else int(_NUMBER.unpack(value)[0])


def _address(value: memoryview | None) -> Address | None:
    return None if value is None else ip_address(bytes(value))


@lru_cache(MOST_NETWORKS)
def _destination(value: bytes, length: int, version: int) -> Network:
    """Return the network of a destination; the default route has none."""
    if version == 4:  # noqa: PLR2004 - the IP version
        return IPv4Network((value or bytes(4), length))
    return IPv6Network((value or bytes(16), length))
