"""A conntrack message -> the flow that it tells of, by a plain walk over its attributes.

Layout: linux/netfilter/nfnetlink_conntrack.h; what the kernel fills in and when: ctnetlink_conntrack_event and
ctnetlink_fill_info in net/netfilter/nf_conntrack_netlink.c. All values have the network's byte order.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from wgd.events.nflog_message import MESSAGE_HEADER, attributes
from wgd.model import ICMP, ICMPV6, PORT_PROTOCOLS

FLOW_MESSAGES = frozenset((0x0100, 0x0102))
"""NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW, of a dump, and IPCTNL_MSG_CT_DELETE, of a flow that has ended."""
TUPLE_ORIG, TUPLE_REPLY, MARK, COUNTERS_ORIG, COUNTERS_REPLY, TIMESTAMP = 1, 2, 8, 9, 10, 20
"""CTA_…"""
TUPLE_IP, TUPLE_PROTO = 1, 2
IP_SOURCE = (1, 3)
"""CTA_IP_V4_SRC, CTA_IP_V6_SRC."""
PROTO_NUM, PROTO_SRC_PORT, PROTO_ICMP_TYPE, PROTO_ICMPV6_TYPE = 1, 2, 5, 8
FIRST, SECOND = 1, 2
"""CTA_COUNTERS_PACKETS and CTA_COUNTERS_BYTES; CTA_TIMESTAMP_START and CTA_TIMESTAMP_STOP."""
NESTED: frozenset[tuple[int, ...]] = frozenset(
    (
        *((kind,) for kind in (TUPLE_ORIG, TUPLE_REPLY, COUNTERS_ORIG, COUNTERS_REPLY, TIMESTAMP)),
        *((way, part) for way in (TUPLE_ORIG, TUPLE_REPLY) for part in (TUPLE_IP, TUPLE_PROTO)),
    )
)
"""The attributes that hold attributes which are looked at, by their path."""

Place = tuple[int, int]
"""Where a value begins and ends."""


class EndedFlow(NamedTuple):
    """A flow as the gateway's forward chain saw its first packet: after DNAT, before SNAT. None is what is not told.

    Addresses are 4 or 16 bytes. `sent` and `received` are packets and bytes from and to the source, with IP headers.
    `start` and `stop` are in nanoseconds since the epoch; a flow that is still there has no `stop`. `mark` is its
    conntrack mark.
    """

    source: bytes
    destination: bytes
    protocol: int
    source_port: int | None
    destination_port: int | None
    icmp_type: int | None
    mark: int
    sent: tuple[int, int] | None
    received: tuple[int, int] | None
    start: int | None
    stop: int | None


def places(
    message: bytes, start: int | None = None, end: int | None = None, at: tuple[int, ...] = ()
) -> dict[tuple[int, ...], Place]:
    """Return where the value of each attribute is, by its path; raise ValueError when one is cut or there twice."""
    found: dict[tuple[int, ...], Place] = {}
    for kind, first, last in attributes(message, start, end):
        path = (*at, kind)
        if path in found:
            raise ValueError("an attribute is there twice")
        found[path] = (first, last)
        if path in NESTED:
            found |= places(message, first, last, path)
    return found


def walk(message: bytes) -> EndedFlow | None:
    """Read one whole message; None when it is malformed or tells of no flow."""
    if MESSAGE_HEADER.unpack_from(message)[1] not in FLOW_MESSAGES:
        return None
    try:
        found = {path: message[start:end] for path, (start, end) in places(message).items()}
        protocol = found[TUPLE_ORIG, TUPLE_PROTO, PROTO_NUM][0]
        has_ports = protocol in PORT_PROTOCOLS
        flow = EndedFlow(
            source_address(found, TUPLE_ORIG),
            source_address(found, TUPLE_REPLY),
            protocol,
            _number(2, found[TUPLE_ORIG, TUPLE_PROTO, PROTO_SRC_PORT]) if has_ports else None,
            _number(2, found[TUPLE_REPLY, TUPLE_PROTO, PROTO_SRC_PORT]) if has_ports else None,
            _icmp_type(protocol, found),
            _number(4, found.get((MARK,))) or 0,
            _counters(found, COUNTERS_ORIG),
            _counters(found, COUNTERS_REPLY),
            _number(8, found.get((TIMESTAMP, FIRST))),
            _number(8, found.get((TIMESTAMP, SECOND))),
        )
    except (KeyError, IndexError, ValueError, struct.error):
        return None
    return flow if len(flow.source) == len(flow.destination) in (4, 16) else None


def source_address(found: dict[tuple[int, ...], bytes], way: int) -> bytes:
    """Return the source address of one direction's tuple; raise KeyError when it has none."""
    kind = next((kind for kind in IP_SOURCE if (way, TUPLE_IP, kind) in found), IP_SOURCE[0])
    return found[way, TUPLE_IP, kind]


def icmp_type_attribute(protocol: int) -> int | None:
    """Return which attribute of a tuple holds the ICMP type, None for a protocol that has none."""
    return {ICMP: PROTO_ICMP_TYPE, ICMPV6: PROTO_ICMPV6_TYPE}.get(protocol)


def _icmp_type(protocol: int, found: dict[tuple[int, ...], bytes]) -> int | None:
    kind = icmp_type_attribute(protocol)
    return None if kind is None else _number(1, found.get((TUPLE_ORIG, TUPLE_PROTO, kind)))


def _counters(found: dict[tuple[int, ...], bytes], way: int) -> tuple[int, int] | None:
    packets, volume = (_number(8, found.get((way, kind))) for kind in (FIRST, SECOND))
    return None if packets is None or volume is None else (packets, volume)


def _number(size: int, value: bytes | None) -> int | None:
    if value is not None and len(value) != size:
        raise ValueError("a number has another size")
    return None if value is None else int.from_bytes(value, "big")
