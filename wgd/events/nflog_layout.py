"""Where the parts of an NFLOG message lie, learned from one message and then checked exactly for each further one.

The kernel writes the same attributes in the same order for all packets that one rule logs (__build_packet_message
in net/netfilter/nfnetlink_log.c). A message is cut like this:

    head     from the message's length up to PREFIX, IFINDEX_INDEV and IFINDEX_OUTDEV: the same bytes for every packet
             that one rule logs between two interfaces, so that whoever knows these bytes knows what they mean
    middle   the attributes in between, SEQ, the header of PAYLOAD, and the IP header before the protocol
    rest     protocol, addresses and the first four bytes behind a header of the plain length

A message has a known layout when its head is known and its middle agrees in every bit that says where things are:
attribute headers, IP version, header length, and the fragment bits. Anything else is for the plain walk.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from wgd.events.nflog_message import (
    ATTRIBUTE_HEADER,
    IFINDEX_INDEV,
    IFINDEX_OUTDEV,
    PACKET_HDR,
    PAYLOAD,
    PREFIX,
    SEQ,
    TIMESTAMP,
    align,
    attributes,
)

MAX_FORMS = 256
HEAD_ATTRIBUTES = frozenset({PACKET_HDR, PREFIX, IFINDEX_INDEV, IFINDEX_OUTDEV})


class _Family(NamedTuple):
    """How the plain header of one IP version is read; positions are in bytes from its beginning.

    `fixed` and `plain`: the header's bits before the protocol that a plain one has, and what they are.
    """

    fixed: bytes
    plain: bytes
    length_end: int
    length_added: int
    rest: str
    shortest: int

    @property
    def bytes_before_protocol(self) -> int:
        return len(self.fixed)

    def is_plain(self, payload: bytes) -> bool:
        header = payload[: self.bytes_before_protocol]
        return len(payload) >= self.shortest and all(
            byte & bits == wanted for byte, bits, wanted in zip(header, self.fixed, self.plain, strict=True)
        )


# Version 4 without options, no fragment: length at 2, flags and offset at 6, protocol at 9, addresses at 12.
_IPV4 = _Family(bytes.fromhex("ff00 0000 0000 3fff 00"), bytes.fromhex("4500 0000 0000 0000 00"), 4, 0, "B2x8sHH", 24)
# Version 6: payload length at 4, next header at 6, addresses at 8.
_IPV6 = _Family(bytes.fromhex("f000 0000 0000"), bytes.fromhex("6000 0000 0000"), 6, 40, "Bx32sHH", 44)


Unpack = Callable[[bytes | bytearray, int], tuple[bytes, bytes, int, bytes, int, int]]
"""Struct.unpack_from of a layout: head, middle, protocol, addresses, two 16-bit words of the transport header."""


class Shifts(NamedTuple):
    """By how many bits the middle, read as one big-endian number, is shifted to have a value in its low bits.

    `timestamp` is None where the kernel sent no time. `length_added` is what the length in the IP header leaves out.
    """

    sequence: int
    timestamp: int | None
    length: int
    length_added: int


class Layout(NamedTuple):
    """Where things are. `mask` and `expected`: the middle's bits that must agree. Equal for equal layouts."""

    unpack: Unpack
    mask: int
    expected: int
    shifts: Shifts


def head_of(message: bytes) -> bytes:
    """Return the head of a well-formed message."""
    return message[: _head_end(message)]


def learn(message: bytes) -> Layout | None:
    """Return the layout of a message that the plain walk has read, or None when it is not one of the usual ones."""
    head_end = _head_end(message)
    between = [entry for entry in attributes(message) if entry[1] > head_end]
    kinds = [kind for kind, _, _ in between]
    if not between or kinds[-1] != PAYLOAD or SEQ not in kinds:
        return None
    if HEAD_ATTRIBUTES.intersection(kinds):
        return None
    payload_start, payload_end = between[-1][1:]
    payload = message[payload_start:payload_end]
    family = next((family for family in (_IPV4, _IPV6) if family.is_plain(payload)), None)
    if family is None:
        return None
    values = {kind: (start, end) for kind, start, end in between}
    middle_end = payload_start + family.bytes_before_protocol
    mask = _mask(between, head_end, family)
    return Layout(
        _unpack(f"!{head_end}s{middle_end - head_end}s{family.rest}"),
        mask,
        int.from_bytes(message[head_end:middle_end], "big") & mask,
        Shifts(
            8 * (middle_end - values[SEQ][1]),
            8 * (middle_end - values[TIMESTAMP][1]) if TIMESTAMP in values else None,
            8 * (family.bytes_before_protocol - family.length_end),
            family.length_added,
        ),
    )


@lru_cache(MAX_FORMS)
def _unpack(form: str) -> Unpack:
    return struct.Struct(form).unpack_from


def _head_end(message: bytes) -> int:
    end = 0
    for kind, _, value_end in attributes(message):
        if kind not in HEAD_ATTRIBUTES:
            break
        end = align(value_end)
    return end


def _mask(between: list[tuple[int, int, int]], head_end: int, family: _Family) -> int:
    """Return the bits of the middle that say where things are: attribute headers and the IP header's own."""
    payload_start = between[-1][1]
    mask = bytearray(payload_start - head_end)
    for _, start, _ in between:
        header = start - ATTRIBUTE_HEADER.size - head_end
        mask[header : header + ATTRIBUTE_HEADER.size] = b"\xff" * ATTRIBUTE_HEADER.size
    return int.from_bytes(mask + family.fixed, "big")
