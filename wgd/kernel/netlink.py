"""Netlink's own bytes: messages and their attributes (netlink(7), linux/netlink.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
REQUEST, ACKNOWLEDGE, DUMP, CREATE = 1, 4, 0x300, 0x400
"""NLM_F_REQUEST, _ACK, _DUMP and _CREATE."""
DUMP_INTERRUPTED = 0x10
"""NLM_F_DUMP_INTR."""
ERROR, DONE = 2, 3
"""NLMSG_ERROR and NLMSG_DONE: their bodies begin with a negative error number, or 0."""
CODE = struct.Struct("=i")
NESTED = 0x8000
TYPE_MASK = 0x3FFF


class Message(NamedTuple):
    """One message of a datagram. `body` is what follows the header."""

    kind: int
    flags: int
    sequence: int
    body: memoryview

    @property
    def code(self) -> int:
        """The error number in the body of ERROR and DONE, 0 for none."""
        return -int(CODE.unpack_from(self.body)[0])


def messages(datagram: bytes) -> Iterator[Message]:
    """Yield the messages of a datagram, up to one that is broken."""
    view, offset = memoryview(datagram), 0
    while offset + HEADER.size <= len(view):
        length, kind, flags, sequence, _ = HEADER.unpack_from(view, offset)
        if length < HEADER.size:
            return
        yield Message(kind, flags, sequence, view[offset + HEADER.size : offset + length])
        offset += (length + 3) & ~3


def attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield type, without its flags, and value of each attribute, up to one that is broken."""
    offset = 0
    while offset + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < ATTRIBUTE.size:
            return
        yield kind & TYPE_MASK, data[offset + ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute, filled up to a multiple of four bytes."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *values: bytes) -> bytes:
    """Return an attribute that holds others."""
    return attribute(kind | NESTED, b"".join(values))


def text(kind: int, value: str) -> bytes:
    """Return an attribute with a text, which ends in a zero byte."""
    return attribute(kind, value.encode() + b"\0")


def text_of(value: memoryview | None) -> str:
    """Return the text of an attribute's value, '' where there is none."""
    return "" if value is None else bytes(value).partition(b"\0")[0].decode("utf-8", "replace")
