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
from ipaddress import IPv4Network, IPv6Network, ip_address

from wgd.errors import KernelError
from wgd.model import Address, Network
from wgd.plan.state import Route

RECEIVE_BYTES = 1 << 20
_ATTEMPTS = 5
_RTM_GETROUTE, _RTM_NEWROUTE = 26, 24
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP = 0x301
_DUMP_INTERRUPTED = 0x10
_CLONED = 0x200
_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_HOP = struct.Struct("=HBBi")
_NUMBER = struct.Struct("=I")
_ERROR = struct.Struct("=i")
_DST, _OIF, _GATEWAY, _PRIORITY, _MULTIPATH, _TABLE = 1, 4, 5, 6, 9, 15
_ATTRIBUTE_TYPE = 0x3FFF
ROUTE_KINDS = {
    1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast",
    6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw", 10: "nat",
}  # fmt: skip
"""rtnetlink(7), RTN_*."""
IP6_RT_PRIO_USER = 1024
"""The metric that the kernel gives an IPv6 route which was added without one (include/uapi/linux/ipv6_route.h)."""


def dump_routes(names: Mapping[int, str]) -> tuple[Route, ...]:
    """Return the routes of every table and both families, multipath ones once for each next hop.

    `names` are the links by index. What the kernel has only learned of a path (RTM_F_CLONED) is no route. A dump that
    a change interrupts is begun anew. Raise KernelError in the kernel's own words.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
            netlink.bind((0, 0))
            return tuple(
                route for family in (socket.AF_INET, socket.AF_INET6) for route in _dump(netlink, family, names)
            )
    except OSError as error:
        raise KernelError("routes", error.strerror or str(error)) from error


def _dump(netlink: socket.socket, family: int, names: Mapping[int, str]) -> list[Route]:
    found: list[Route] = []
    for sequence in range(_ATTEMPTS):
        request = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        netlink.send(_HEADER.pack(_HEADER.size + len(request), _RTM_GETROUTE, _REQUEST_DUMP, sequence, 0) + request)
        found, whole = _answer(netlink, names)
        if whole:
            break
    return found


def _answer(netlink: socket.socket, names: Mapping[int, str]) -> tuple[list[Route], bool]:
    """Return the routes of one dump, and whether nobody changed them meanwhile."""
    found: list[Route] = []
    whole = True
    while True:
        datagram = netlink.recv(RECEIVE_BYTES)
        offset = 0
        while offset + _HEADER.size <= len(datagram):
            length, kind, flags, _, _ = _HEADER.unpack_from(datagram, offset)
            whole = whole and not flags & _DUMP_INTERRUPTED
            if kind == _NLMSG_DONE:
                return found, whole
            if kind == _NLMSG_ERROR:
                code = -_ERROR.unpack_from(datagram, offset + _HEADER.size)[0]
                # The kernel has none of this family.
                if code in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                    return [], True
                raise OSError(code, os.strerror(code))
            if kind == _RTM_NEWROUTE:
                found += _routes(datagram, offset + _HEADER.size, offset + length, names)
            offset += (length + 3) & ~3


def _routes(datagram: bytes, start: int, end: int, names: Mapping[int, str]) -> Iterator[Route]:
    family, length, _, _, table, protocol, _, type_, flags = _ROUTE.unpack_from(datagram, start)
    if flags & _CLONED:
        return
    values = dict(_attributes(datagram, start + _ROUTE.size, end))
    version = 4 if family == socket.AF_INET else 6
    kind = ROUTE_KINDS.get(type_, str(type_))
    metric = _number(values.get(_PRIORITY))
    if version == 6 and metric == IP6_RT_PRIO_USER:  # noqa: PLR2004 - the IP version
        metric = 0
    destination = _destination(values.get(_DST), length, version)
    table = _number(values.get(_TABLE)) or table
    for index, gateway in _hops(values):
        # A prohibit route of IPv6 reads back with the loopback device, which nobody asked for.
        device = names.get(index, f"#{index}") if index and kind == "unicast" else None
        yield Route(destination, table, kind, device, gateway, metric, protocol)


def _hops(values: Mapping[int, bytes]) -> Iterator[tuple[int, Address | None]]:
    """Yield the link and the gateway of each next hop; a route without RTA_MULTIPATH has one."""
    hops = values.get(_MULTIPATH)
    if hops is None:
        yield _number(values.get(_OIF)), _address(values.get(_GATEWAY))
        return
    offset = 0
    while offset + _HOP.size <= len(hops):
        length, _, _, index = _HOP.unpack_from(hops, offset)
        yield index, _address(dict(_attributes(hops, offset + _HOP.size, offset + length)).get(_GATEWAY))
        offset += (max(length, _HOP.size) + 3) & ~3


def _attributes(data: bytes, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
    while offset + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _ATTRIBUTE_TYPE, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def _number(value: bytes | None) -> int:
    return 0 if value is None else int(_NUMBER.unpack(value)[0])


def _address(value: bytes | None) -> Address | None:
    return None if value is None else ip_address(value)


def _destination(value: bytes | None, length: int, version: int) -> Network:
    """Return the network of a destination; the default route has none."""
    if version == 4:  # noqa: PLR2004 - the IP version
        return IPv4Network((value or bytes(4), length))
    return IPv6Network((value or bytes(16), length))
