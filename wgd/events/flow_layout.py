"""Where the parts of a conntrack message lie, learned from one message and then checked exactly for each further one.

The kernel writes the same attributes in the same order for all flows of one protocol, family and kind. A message has
a known layout when it has its length and agrees in every bit that says where and what things are: the message's type
and family, the attributes' headers, and the protocol.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from wgd.events.flow_message import (
    COUNTERS_ORIG,
    COUNTERS_REPLY,
    FIRST,
    IP_SOURCE,
    MARK,
    PROTO_NUM,
    PROTO_SRC_PORT,
    SECOND,
    TIMESTAMP,
    TUPLE_IP,
    TUPLE_ORIG,
    TUPLE_PROTO,
    TUPLE_REPLY,
    Place,
    icmp_type_attribute,
    places,
)
from wgd.events.nflog_message import ATTRIBUTE_HEADER
from wgd.model import PORT_PROTOCOLS

MAX_FORMS = 64
_TYPE_AND_FAMILY = (4, 5, 16)
"""The bytes of the message's type (struct nlmsghdr) and its family (struct nfgenmsg)."""
_NONE = "0s"
_U16, _U32, _U64 = "H", "I", "Q"


class FlowLayout(NamedTuple):
    """Where things are. `mask` and `expected`: the message's bits that must agree, as one big-endian number.

    `unpack` gives source, source port or ICMP type (b"" for neither), destination, destination port (b"" for none),
    packets and bytes from the source, packets and bytes to it, start, stop and mark.
    """

    unpack: Callable[[bytes | bytearray, int], tuple[Any, ...]]
    mask: int
    expected: int
    protocol: int
    has_ports: bool


def learn(message: bytes) -> FlowLayout | None:
    """Return the layout of a message that the plain walk has read, or None when it is not one of the usual ones."""
    found = places(message)
    protocol_place = found[TUPLE_ORIG, TUPLE_PROTO, PROTO_NUM]
    protocol = message[protocol_place[0]]
    has_ports = protocol in PORT_PROTOCOLS
    try:
        form = _form(found, _wanted(found, protocol, has_ports=has_ports))
    except KeyError:
        return None
    if form is None:
        return None
    mask = bytearray(len(message))
    for start, end in (*_headers(found), protocol_place, *((place, place + 1) for place in _TYPE_AND_FAMILY)):
        mask[start:end] = b"\xff" * (end - start)
    bits = int.from_bytes(mask, "big")
    return FlowLayout(_unpack(form), bits, int.from_bytes(message, "big") & bits, protocol, has_ports)


def _wanted(
    found: dict[tuple[int, ...], Place], protocol: int, *, has_ports: bool
) -> tuple[tuple[tuple[int, ...] | None, str], ...]:
    """Return the paths of the values in the order in which `unpack` gives them, with their forms."""
    kind = next(kind for kind in IP_SOURCE if (TUPLE_ORIG, TUPLE_IP, kind) in found)
    start, end = found[TUPLE_ORIG, TUPLE_IP, kind]
    address = f"{end - start}s"
    icmp_type = icmp_type_attribute(protocol)
    first: tuple[tuple[int, ...] | None, str] = (None, _NONE)
    if icmp_type is not None:
        first = ((TUPLE_ORIG, TUPLE_PROTO, icmp_type), "B")
    if has_ports:
        first = ((TUPLE_ORIG, TUPLE_PROTO, PROTO_SRC_PORT), _U16)
    return (
        ((TUPLE_ORIG, TUPLE_IP, kind), address),
        first,
        ((TUPLE_REPLY, TUPLE_IP, kind), address),
        ((TUPLE_REPLY, TUPLE_PROTO, PROTO_SRC_PORT), _U16) if has_ports else (None, _NONE),
        *(((way, count), _U64) for way in (COUNTERS_ORIG, COUNTERS_REPLY) for count in (FIRST, SECOND)),
        ((TIMESTAMP, FIRST), _U64),
        ((TIMESTAMP, SECOND), _U64),
        ((MARK,), _U32),
    )


def _form(found: dict[tuple[int, ...], Place], wanted: tuple[tuple[tuple[int, ...] | None, str], ...]) -> str | None:
    """Return the form that unpacks the wanted values; None where they lie in another order or have another size."""
    form, offset = "!", 0
    for path, kind in wanted:
        if path is not None:
            start, end = found[path]
            if start < offset or end - start != struct.calcsize(f"!{kind}"):
                return None
            form += f"{start - offset}x"
            offset = end
        form += kind
    return form


def _headers(found: dict[tuple[int, ...], Place]) -> list[Place]:
    return [(start - ATTRIBUTE_HEADER.size, start) for start, _ in found.values()]


@lru_cache(MAX_FORMS)
def _unpack(form: str) -> Callable[[bytes | bytearray, int], tuple[Any, ...]]:
    return struct.Struct(form).unpack_from
