"""Changes of elements -> nfnetlink messages: linux/netfilter/nf_tables.h and linux/netfilter/nfnetlink.h in bytes.

libnftables takes 400 MB for the elements of a large table and reads every set of it before it adds one element to
one of them; here an element costs its own bytes. What is small, chains and rules, stays text.

A set with one field holds an interval as two elements, its first value and the value after its last one, which is
flagged as an end (net/netfilter/nft_set_rbtree.c). A set with several fields holds it as one element with two keys
(net/netfilter/nft_set_pipapo.c).
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from wgd.kernel.netlink import ACKNOWLEDGE, ATTRIBUTE, CREATE, HEADER, NESTED, REQUEST, attribute, nested, text
from wgd.plan.state import Action, ElementChange
from wgd.policy.ruleset import TABLE_NAME, Element

NFPROTO_INET = 1
SUBSYSTEM = 10
"""NFNL_SUBSYS_NFTABLES."""
BATCH_BEGIN, BATCH_END = 16, 17
"""NFNL_MSG_BATCH_BEGIN and _END."""
NEW_ELEMENTS, DELETE_ELEMENTS = SUBSYSTEM << 8 | 12, SUBSYSTEM << 8 | 14
"""NFT_MSG_NEWSETELEM and NFT_MSG_DELSETELEM."""
LARGEST_LIST = 65000
"""Bytes of elements in one message: the length of an attribute has 16 bits."""

LIST_TABLE, LIST_SET, LIST_ELEMENTS = 1, 2, 3
"""NFTA_SET_ELEM_LIST_TABLE, _SET and _ELEMENTS."""
LIST_ELEMENT = 1
"""NFTA_LIST_ELEM."""
KEY, DATA, FLAGS, TIMEOUT, EXPIRATION, KEY_END = 1, 2, 3, 4, 5, 10
"""NFTA_SET_ELEM_…"""
DATA_VALUE, DATA_VERDICT = 1, 2
VERDICT_CODE, VERDICT_CHAIN = 1, 2
JUMP = -3
"""NFT_JUMP."""
INTERVAL_END = 1
"""NFT_SET_ELEM_INTERVAL_END."""

FAMILY_HEADER = struct.Struct("!BBH")
NUMBER = struct.Struct("!I")
VERDICT = struct.Struct("!i")
LONG_NUMBER = struct.Struct("!Q")


class Field(NamedTuple):
    """How a value of an nft type stands in a key: `size` bytes, filled up to a multiple of four.

    `number` is nft's own for the type: six bits of what a set says of its key (struct datatype in nft's datatype.h).
    """

    number: int
    size: int
    order: Literal["big", "little"] = "big"

    @property
    def width(self) -> int:
        """The bytes in a key of several fields."""
        return (self.size + 3) & ~3

    def number_of(self, key: bytes) -> int:
        """Return the value in a key, which may be filled up."""
        return int.from_bytes(key[: self.size], self.order)


FIELDS = {
    "ipv4_addr": Field(7, 4),
    "ipv6_addr": Field(8, 16),
    "inet_proto": Field(12, 1),
    "inet_service": Field(13, 2),
    "mark": Field(19, 4, sys.byteorder),
}
"""The types of our sets' keys. A mark stands in the host's own order of bytes."""


def message(
    kind: int, flags: int, body: bytes = b"", *, family: int = NFPROTO_INET, resource: int = 0, sequence: int = 0
) -> bytes:
    """Return a request to nfnetlink."""
    header = HEADER.pack(HEADER.size + FAMILY_HEADER.size + len(body), kind, REQUEST | flags, sequence, 0)
    return header + FAMILY_HEADER.pack(family, 0, resource) + body


def batch(changes: tuple[ElementChange, ...]) -> bytes:
    """Return changes as one transaction; the sequence number of a message is the place, from 1, of its change.

    The last message asks for an answer; what the kernel refuses it says at any message.
    """
    sent = [(*parts, place) for place, change in enumerate(changes, 1) for parts in _messages(change)]
    *others, (kind, flags, body, place) = sent
    return b"".join(
        (
            message(BATCH_BEGIN, 0, family=0, resource=SUBSYSTEM),
            *(message(kind, flags, body, sequence=place) for kind, flags, body, place in others),
            message(kind, flags | ACKNOWLEDGE, body, sequence=place),
            message(BATCH_END, 0, family=0, resource=SUBSYSTEM),
        )
    )


def _messages(change: ElementChange) -> Iterator[tuple[int, int, bytes]]:
    """Yield type, flags and body of the messages that make a change."""
    where = text(LIST_TABLE, TABLE_NAME) + text(LIST_SET, change.name)
    if change.action is Action.FLUSH:
        yield DELETE_ELEMENTS, 0, where
        return
    kind, flags = (NEW_ELEMENTS, CREATE) if change.action is Action.ADD else (DELETE_ELEMENTS, 0)
    for listed in _lists(_elements(change)):
        yield kind, flags, where + nested(LIST_ELEMENTS, listed)


def _lists(elements: Iterable[bytes]) -> Iterator[bytes]:
    """Join elements to lists that fit a message."""
    waiting: list[bytes] = []
    size = 0
    for element in elements:
        if size + len(element) > LARGEST_LIST:
            yield b"".join(waiting)
            waiting, size = [], 0
        waiting.append(element)
        size += len(element)
    if waiting:
        yield b"".join(waiting)


def _elements(change: ElementChange) -> Iterator[bytes]:
    """Yield each element of a change as the list of a message has it."""
    encode = _concatenation if len(change.fields) > 1 else _interval if change.interval else _single
    fields = [FIELDS[name] for name in change.fields]
    timeout = b""
    if change.timeout is not None:
        timeout = attribute(TIMEOUT, LONG_NUMBER.pack(max(1, int(change.timeout * 1000))))
    if not isinstance(change.elements, Mapping) or change.action is Action.DELETE:
        yield from map(encode(fields, timeout), change.elements)
        return
    by_chain: dict[str, Callable[[Element], bytes]] = {}
    for element, chain in change.elements.items():
        encoded = by_chain.get(chain)
        if encoded is None:
            encoded = by_chain[chain] = encode(fields, timeout + _jump(chain))
        yield encoded(element)


def _jump(chain: str) -> bytes:
    """Return the data of a verdict map's element."""
    code, target = attribute(VERDICT_CODE, VERDICT.pack(JUMP)), text(VERDICT_CHAIN, chain)
    return nested(DATA, nested(DATA_VERDICT, code, target))


def _around(keys: tuple[int, ...], fields: list[Field], rest: bytes) -> list[bytes]:
    """Return what stands before, between and after the keys of an element; `rest` are its other attributes."""
    width = sum(field.width for field in fields)
    size = width if len(fields) > 1 else fields[0].size
    value = ATTRIBUTE.pack(ATTRIBUTE.size + size, DATA_VALUE)
    begun = [ATTRIBUTE.pack(ATTRIBUTE.size + len(value) + width, key | NESTED) + value for key in keys]
    length = ATTRIBUTE.size + sum(len(key) + width for key in begun) + len(rest)
    begun[0] = ATTRIBUTE.pack(length, LIST_ELEMENT | NESTED) + begun[0]
    return [*begun, rest]


def _value(field: Field, value: int) -> bytes:
    """Return a value as a key has it."""
    return value.to_bytes(field.size, field.order) + bytes(field.width - field.size)


def _concatenation(fields: list[Field], rest: bytes) -> Callable[[Element], bytes]:
    """Return what encodes an element of a set with several fields."""
    before, between, after = _around((KEY, KEY_END), fields, rest)

    def encode(element: Element) -> bytes:
        pairs = tuple(zip(fields, element, strict=True))
        first = b"".join([_value(field, interval[0]) for field, interval in pairs])
        last = b"".join([_value(field, interval[1]) for field, interval in pairs])
        return before + first + between + last + after

    return encode


def _interval(fields: list[Field], rest: bytes) -> Callable[[Element], bytes]:
    """Return what encodes an element of a set with one field: two elements, one where it holds the last value."""
    (field,) = fields
    before, after = _around((KEY,), fields, rest)
    before_end, after_end = _around((KEY,), fields, attribute(FLAGS, NUMBER.pack(INTERVAL_END)))
    largest = (1 << 8 * field.size) - 1

    def encode(element: Element) -> bytes:
        ((first, last),) = element
        begun = before + _value(field, first) + after
        return begun if last == largest else begun + before_end + _value(field, last + 1) + after_end

    return encode


def _single(fields: list[Field], rest: bytes) -> Callable[[Element], bytes]:
    """Return what encodes an element of a set with one field and without intervals."""
    before, after = _around((KEY,), fields, rest)
    return lambda element: before + _value(fields[0], element[0][0]) + after
