"""Many routes at once: rtnetlink messages written here, because 20,000 of them through a library take minutes.

Formats are those of rtnetlink(7) and include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from itertools import islice

from wgd.errors import KernelError
from wgd.plan.state import Route

NETLINK_ROUTE = 0
RTM_NEWROUTE, RTM_DELROUTE = 24, 25
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 1, 4, 0x200, 0x400
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_TABLE = 1, 4, 5, 6, 15
RT_TABLE_UNSPEC = 0
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
TYPES = {"unicast": 1, "blackhole": 6, "unreachable": 7, "prohibit": 8, "throw": 9}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
AT_ONCE = 128
"""Requests in one send: the answers to all must fit the socket's receive buffer."""
RECEIVE_BYTES = 1 << 18
_HEADER, _ROUTE = struct.Struct("=LHHLL"), struct.Struct("=BBBBBBBBL")
_ATTRIBUTE, _NUMBER, _ERROR = struct.Struct("=HH"), struct.Struct("=L"), struct.Struct("=l")


def add_routes(routes: Iterable[Route]) -> None:
    """Add routes; raise KernelError at the first that the kernel refuses, with those before it added."""
    _send(routes, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL)


def remove_routes(routes: Iterable[Route]) -> None:
    """Remove routes; raise KernelError at the first that the kernel refuses, with those before it removed."""
    _send(routes, RTM_DELROUTE, 0)


def _send(routes: Iterable[Route], kind: int, flags: int) -> None:
    indexes = dict[str, int]()
    waiting = iter(routes)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        while batch := tuple(islice(waiting, AT_ONCE)):
            netlink.send(b"".join(_message(route, kind, flags, indexes) for route in batch))
            for route, code in zip(batch, _answers(netlink), strict=False):
                if code:
                    raise KernelError(f"route to {route.destination} in table {route.table}", os.strerror(code))


def _message(route: Route, kind: int, flags: int, indexes: dict[str, int]) -> bytes:
    destination = route.destination
    attributes = [
        _attribute(RTA_DST, destination.network_address.packed),
        _attribute(RTA_TABLE, _NUMBER.pack(route.table)),
    ]
    if route.device is not None:
        if route.device not in indexes:
            indexes[route.device] = _index(route.device)
        attributes.append(_attribute(RTA_OIF, _NUMBER.pack(indexes[route.device])))
    if route.gateway is not None:
        attributes.append(_attribute(RTA_GATEWAY, route.gateway.packed))
    if route.metric:
        attributes.append(_attribute(RTA_PRIORITY, _NUMBER.pack(route.metric)))
    scope = RT_SCOPE_LINK if route.device is not None and route.gateway is None else RT_SCOPE_UNIVERSE
    fixed = _ROUTE.pack(
        FAMILIES[destination.version],
        *(destination.prefixlen, 0, 0, RT_TABLE_UNSPEC, route.protocol, scope, TYPES[route.kind], 0),
    )
    body = b"".join((fixed, *attributes))
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, 0, 0) + body


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise KernelError(name, "no such interface") from error


def _attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute; values here have four bytes or sixteen and need no padding."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value


def _answers(netlink: socket.socket) -> Iterator[int]:
    """Yield the error number of each answer, 0 for success."""
    while True:
        data = netlink.recv(RECEIVE_BYTES)
        offset = 0
        while offset < len(data):
            (length,) = _NUMBER.unpack_from(data, offset)
            yield -_ERROR.unpack_from(data, offset + _HEADER.size)[0]
            offset += length + 3 & ~3
