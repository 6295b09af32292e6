"""Conntrack messages as the kernel would send them."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from nflog_messages import NOW, attribute

BEGAN = NOW - 2_500_000_000
ENDED = NOW - 500_001_000
FORWARDED, DELIVERED = 0x40000000, 0x80000000


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(0x8000 | kind, b"".join(attributes))


def a_tuple(kind: int, ends: tuple[str, str], protocol: int, ports: tuple[int, int], icmp_type: int) -> bytes:
    """Return CTA_TUPLE_ORIG or CTA_TUPLE_REPLY."""
    one, other = map(ip_address, ends)
    first = 1 if one.version == 4 else 3
    parts = [attribute(1, bytes([protocol]))]
    if protocol in (6, 17, 132):
        parts += [attribute(2, struct.pack("!H", ports[0])), attribute(3, struct.pack("!H", ports[1]))]
    if protocol in (1, 58):
        base = 4 if protocol == 1 else 7
        parts += [attribute(base, b"\0\7"), attribute(base + 1, bytes([icmp_type])), attribute(base + 2, b"\0")]
    addresses = nested(1, attribute(first, one.packed), attribute(first + 1, other.packed))
    return nested(kind, addresses, nested(2, *parts))


def flow(
    source: str = "10.80.0.2",
    destination: str = "10.20.0.10",
    protocol: int = 6,
    ports: tuple[int, int] = (40000, 443),
    *,
    asked: tuple[str, int] | None = None,
    answered: tuple[str, int] | None = None,
    icmp_type: int = 8,
    mark: int = FORWARDED | 0x05000000,
    sent: tuple[int, int] | None = (10, 1500),
    received: tuple[int, int] | None = (8, 90_000),
    times: tuple[int | None, int | None] = (BEGAN, ENDED),
    kind: int = 0x0102,
) -> bytes:
    """One message with its attributes in the kernel's order.

    `asked` is what the one who began took for the destination, before DNAT; `answered` to whom the answers go, after
    SNAT.
    """
    to, to_port = asked or (destination, ports[1])
    back, back_port = answered or (source, ports[0])
    body = struct.pack("!BBH", 10 if ":" in source else 2, 0, 0)
    body += a_tuple(1, (source, to), protocol, (ports[0], to_port), icmp_type)
    body += a_tuple(2, (destination, back), protocol, (ports[1], back_port), 0 if icmp_type == 8 else 129)
    body += attribute(12, b"\1\2\3\4") + attribute(3, struct.pack("!I", 0x20E)) + attribute(7, bytes(4))
    for way, counts in ((9, sent), (10, received)):
        if counts is not None:
            body += nested(way, *(attribute(1 + which, struct.pack("!Q", count)) for which, count in enumerate(counts)))
    if times != (None, None):
        stamps = (attribute(1 + which, struct.pack("!Q", time)) for which, time in enumerate(times) if time is not None)
        body += nested(20, *stamps)
    if protocol == 6:
        body += nested(4, nested(1, attribute(1, b"\7")))
    if mark:
        body += attribute(8, struct.pack("!I", mark))
    body += attribute(27, struct.pack("!Q", ENDED))
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body
