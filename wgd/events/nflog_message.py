"""Bytes of an NFLOG socket -> logged packets, by a plain walk over every attribute.

Layout: linux/netfilter/nfnetlink_log.h, nfnetlink.h and netlink.h; what the kernel fills in and when:
__build_packet_message in net/netfilter/nfnetlink_log.c. Headers have the machine's byte order, values the network's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MESSAGE_HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port id."""
FAMILY_HEADER_LENGTH = 4
"""struct nfgenmsg: family, version, group."""
ATTRIBUTE_HEADER = struct.Struct("=HH")
"""struct nlattr: length with this header and without padding, type."""

NLMSG_NOOP, NLMSG_DONE = 1, 3
PACKET_MESSAGE = 0x0400
"""NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET."""
TYPE_MASK = 0x3FFF
"""NLA_TYPE_MASK: without the nested and byte order flags."""

PACKET_HDR, TIMESTAMP, IFINDEX_INDEV, IFINDEX_OUTDEV, PAYLOAD, PREFIX, SEQ = 1, 3, 4, 5, 9, 10, 12
"""NFULA_… of linux/netfilter/nfnetlink_log.h."""

_U32 = struct.Struct("!I")
_TIMESTAMP = struct.Struct("!QQ")


class LoggedPacket(NamedTuple):
    """One NFLOG message; None where the kernel left an attribute out. `timestamp` is in nanoseconds since the epoch.

    `prefix` has no NUL. `payload` begins at the IP header.
    """

    prefix: bytes | None
    indev: int | None
    outdev: int | None
    timestamp: int | None
    sequence: int | None
    payload: bytes | None


class Attribute(NamedTuple):
    """An attribute's type, and where in its message its value begins and ends."""

    kind: int
    start: int
    end: int


def align(length: int) -> int:
    """Round up to the 4 bytes to which netlink aligns messages and attributes."""
    return (length + 3) & ~3


def attributes(message: bytes, start: int | None = None, end: int | None = None) -> Iterator[Attribute]:
    """Yield the attributes of one whole message, or between two places in it.

    Raise ValueError when one is cut.
    """
    offset = MESSAGE_HEADER.size + FAMILY_HEADER_LENGTH if start is None else start
    limit = len(message) if end is None else end
    while offset + ATTRIBUTE_HEADER.size <= limit:
        length, kind = ATTRIBUTE_HEADER.unpack_from(message, offset)
        if length < ATTRIBUTE_HEADER.size or offset + length > limit:
            raise ValueError("an attribute is longer than its message")
        yield Attribute(kind & TYPE_MASK, offset + ATTRIBUTE_HEADER.size, offset + length)
        offset += align(length)


def walk(message: bytes) -> LoggedPacket | None:
    """Read one whole NFLOG packet message; None when it is malformed."""
    try:
        values = {kind: message[start:end] for kind, start, end in attributes(message)}
        timestamp = values.get(TIMESTAMP)
        prefix = values.get(PREFIX)
        return LoggedPacket(
            None if prefix is None else prefix.partition(b"\0")[0],
            _u32(values.get(IFINDEX_INDEV)),
            _u32(values.get(IFINDEX_OUTDEV)),
            None if timestamp is None else _nanoseconds(timestamp),
            _u32(values.get(SEQ)),
            values.get(PAYLOAD),
        )
    except (ValueError, struct.error):
        return None


def _u32(value: bytes | None) -> int | None:
    if value is None:
        return None
    (number,) = _U32.unpack(value)
    return int(number)


def _nanoseconds(value: bytes) -> int:
    seconds, microseconds = _TIMESTAMP.unpack(value)
    return int(seconds) * 1_000_000_000 + int(microseconds) * 1000
