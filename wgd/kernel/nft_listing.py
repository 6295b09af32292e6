"""nftables' own lists -> values: what NFT_MSG_GETCHAIN, GETRULE, GETSET and GETSETELEM are answered with.

As linux/netfilter/nf_tables.h says. Somebody may put anything into our table, and it must still be read, to be put
right: what is of no kind that wgd writes becomes a value that differs from every wish.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple

from wgd.kernel.netlink import ATTRIBUTE, attributes, text_of
from wgd.kernel.nft_messages import (
    DATA,
    DATA_VERDICT,
    EXPIRATION,
    FIELDS,
    FLAGS,
    INTERVAL_END,
    JUMP,
    KEY_END,
    LIST_ELEMENTS,
    LONG_NUMBER,
    NUMBER,
    VERDICT,
    VERDICT_CHAIN,
    VERDICT_CODE,
    Field,
)
from wgd.policy.ruleset import (
    DIGEST_DIGITS,
    GENERATION_MASK,
    GENERATION_SHIFT,
    Chain,
    Element,
    Interval,
    KeySet,
    VerdictMap,
)

CHAIN_TABLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 1, 3, 4, 5, 7
HOOK_NUMBER, HOOK_PRIORITY = 1, 2
RULE_CHAIN, RULE_HANDLE, RULE_EXPRESSIONS, RULE_USERDATA = 2, 3, 4, 7
EXPRESSION_NAME, EXPRESSION_DATA = 1, 2
COUNTER_PACKETS = 2
SET_TABLE, SET_NAME, SET_FLAGS, SET_KEY_TYPE, SET_DATA_TYPE = 1, 2, 3, 4, 6
"""NFTA_…"""
ANONYMOUS, INTERVAL, MAP, HAS_TIMEOUT = 1, 4, 8, 0x10
"""NFT_SET_…"""
VERDICT_TYPE = 0xFFFFFF00
"""NFT_DATA_VERDICT."""
TYPE_BITS = 6
HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
"""NF_INET_…"""
PRIORITIES = {0: "filter"}
POLICIES = ("drop", "accept")
COMMENT = 0
"""NFTNL_UDATA_RULE_COMMENT of libnftnl: one byte of type, one of length, and the text with a zero byte."""
LENGTH = struct.Struct("=H")
KEY_END_KIND = LENGTH.pack(KEY_END)
KEY_HEAD = 2 * ATTRIBUTE.size
"""Before a key stand its own header and that of its value."""
ELEMENT_HEAD = ATTRIBUTE.size + KEY_HEAD


class Rule(NamedTuple):
    """A rule. `expressions` are the kernel's bytes without what its counters have counted."""

    chain: str
    comment: str
    expressions: bytes
    packets: int
    handle: int


class SetHead(NamedTuple):
    """A set or map without its elements; `type` is of a map's data, 0 for a set."""

    name: str
    flags: int
    fields: tuple[str, ...]
    type: int

    @property
    def is_map(self) -> bool:
        """Whether its elements have data."""
        return bool(self.flags & MAP)

    @property
    def anonymous(self) -> bool:
        """Whether it is a part of one rule."""
        return bool(self.flags & ANONYMOUS)


def chain(body: memoryview) -> tuple[str, str, str | None]:
    """Return table, name and hook of a chain, None for a regular one."""
    found = dict(attributes(body))
    name = text_of(found.get(CHAIN_NAME))
    table = text_of(found.get(CHAIN_TABLE))
    if CHAIN_HOOK not in found:
        return table, name, None
    hook = dict(attributes(found[CHAIN_HOOK]))
    number, priority = NUMBER.unpack(hook[HOOK_NUMBER])[0], VERDICT.unpack(hook[HOOK_PRIORITY])[0]
    policy = NUMBER.unpack(found[CHAIN_POLICY])[0]
    at = f"hook {HOOKS[number]} priority {PRIORITIES.get(priority, priority)}"
    return table, name, f"type {text_of(found.get(CHAIN_TYPE))} {at}; policy {POLICIES[policy]};"


def rule(body: memoryview) -> Rule:
    """Return a rule."""
    found = dict(attributes(body))
    expressions = found.get(RULE_EXPRESSIONS, memoryview(b""))
    packets = 0
    content = bytes(expressions)
    if b"counter\0" in content:
        kept = []
        for _, expression in attributes(expressions):
            parts = dict(attributes(expression))
            name = text_of(parts.get(EXPRESSION_NAME))
            if name == "counter":
                counted = dict(attributes(parts[EXPRESSION_DATA]))
                packets += LONG_NUMBER.unpack(counted[COUNTER_PACKETS])[0]
                kept.append(b"counter")
            else:
                kept.append(bytes(expression))
        content = b"".join(kept)
    handle = LONG_NUMBER.unpack(found[RULE_HANDLE])[0] if RULE_HANDLE in found else 0
    return Rule(text_of(found.get(RULE_CHAIN)), _comment(found.get(RULE_USERDATA)), content, packets, handle)


def _comment(userdata: memoryview | None) -> str:
    offset = 0
    while userdata is not None and offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == COMMENT:
            return text_of(userdata[offset + 2 : offset + 2 + length])
        offset += 2 + length
    return ""


def chain_of(hook: str | None, rules: Iterable[Rule], sets: Callable[[bytes], bytes]) -> Chain:
    """Return a chain from its rules; `sets` gives the content of the anonymous sets that expressions name."""
    found = list(rules)
    content = hashlib.sha256()
    for each in found:
        content.update(each.expressions)
        content.update(sets(each.expressions))
        content.update(b"\0end of rule")
    mark = found[0].comment if found else ""
    handles = tuple(each.handle for each in found)
    return Chain(hook, mark, len(found), content=content.hexdigest()[:DIGEST_DIGITS], handles=handles)


def set_head(body: memoryview) -> SetHead:
    """Return a set without its elements."""
    found = dict(attributes(body))
    flags = NUMBER.unpack(found[SET_FLAGS])[0] if SET_FLAGS in found else 0
    data = NUMBER.unpack(found[SET_DATA_TYPE])[0] if SET_DATA_TYPE in found else 0
    key = NUMBER.unpack(found[SET_KEY_TYPE])[0] if SET_KEY_TYPE in found else 0
    return SetHead(text_of(found.get(SET_NAME)), flags, tuple(_fields(key)), data)


NAMES = {field.number: name for name, field in FIELDS.items()}


def _fields(key_type: int) -> list[str]:
    """Return the types of a key's fields, by nft's names where they are types of ours."""
    numbers = []
    while key_type:
        numbers.append(key_type & (1 << TYPE_BITS) - 1)
        key_type >>= TYPE_BITS
    return [NAMES.get(number, f"type {number}") for number in reversed(numbers)]


def lists(bodies: Iterable[memoryview]) -> list[bytes]:
    """Return the lists of elements in the answers to NFT_MSG_GETSETELEM."""
    return [bytes(value) for body in bodies for kind, value in attributes(body) if kind == LIST_ELEMENTS]


def generation_of(head: SetHead, listed: Iterable[bytes]) -> int:
    """Return the generation in force, 0 when the set does not hold exactly one."""
    if head.fields != ("mark",) or head.is_map:
        return 0
    marks = [FIELDS["mark"].number_of(found.first) for found in _elements(FIELDS["mark"].width, listed)]
    return marks[0] >> GENERATION_SHIFT if len(marks) == 1 and not marks[0] & ~GENERATION_MASK else 0


def key_set(head: SetHead, listed: Iterable[bytes], now: float) -> KeySet:
    """Return a set whose elements were listed at `now`, in POSIX seconds."""
    found, left = _read(head, listed)
    until = None if not head.flags & HAS_TIMEOUT else round(now + max(left) / 1000) if left else 0
    return KeySet(head.fields, frozenset(found), until)


def verdict_map(head: SetHead, listed: Iterable[bytes]) -> VerdictMap:
    """Return a map; one whose data are no verdicts has no elements, and a type that none of ours has."""
    if head.type != VERDICT_TYPE:
        return VerdictMap((*head.fields, f"to type {head.type}"), {})
    return VerdictMap(head.fields, _read(head, listed)[0])


def _read(head: SetHead, listed: Iterable[bytes]) -> tuple[dict[Element, str], list[int]]:
    """Return the elements of a set with their verdicts' targets, and in how many milliseconds they time out."""
    if not FIELDS.keys() >= set(head.fields):
        return {}, []
    fields = [FIELDS[name] for name in head.fields]
    found = _elements(sum(field.width for field in fields), listed)
    left = [raw.rest.expiration for raw in found if raw.rest.expiration is not None]
    if len(fields) == 1 and head.flags & INTERVAL:
        return _joined(fields[0], found), left
    return {_concatenation(fields, raw): raw.rest.target for raw in found}, left


class _Rest(NamedTuple):
    """What an element has besides its keys. `target` is the chain that a verdict jumps to."""

    is_end: bool
    target: str
    expiration: int | None


class _Raw(NamedTuple):
    """An element; `first` and `last` are its keys, which are the same where there is only one."""

    first: bytes
    last: bytes
    rest: _Rest


def _elements(width: int, listed: Iterable[bytes]) -> list[_Raw]:
    """Return the elements in lists; a key has `width` bytes.

    The key comes first, and after it the key of the interval's end (nf_tables_fill_setelem in nf_tables_api.c).
    """
    found: list[_Raw] = []
    # Tens of thousands of elements differ in nothing else than their keys.
    known: dict[bytes, _Rest] = {}
    for data in listed:
        offset = 0
        while offset + ELEMENT_HEAD <= len(data):
            (length,) = LENGTH.unpack_from(data, offset)
            begin = offset + ELEMENT_HEAD
            first = last = data[begin : begin + width]
            rest = data[begin + width : offset + length]
            if rest[2:4] == KEY_END_KIND:
                last, rest = rest[KEY_HEAD : KEY_HEAD + width], rest[KEY_HEAD + width :]
            if rest not in known:
                known[rest] = _rest(memoryview(rest))
            found.append(_Raw(first, last, known[rest]))
            offset += (length + 3) & ~3
    return found


def _rest(attributes_after_key: memoryview) -> _Rest:
    found = dict(attributes(attributes_after_key))
    is_end = FLAGS in found and bool(NUMBER.unpack(found[FLAGS])[0] & INTERVAL_END)
    expiration = LONG_NUMBER.unpack(found[EXPIRATION])[0] if EXPIRATION in found else None
    return _Rest(is_end, _target(found[DATA]) if DATA in found else "", expiration)


def _target(data: memoryview) -> str:
    """Return the chain that a verdict jumps to; what is not one of our jumps never equals a wish."""
    verdict = dict(attributes(dict(attributes(data)).get(DATA_VERDICT, memoryview(b""))))
    code = VERDICT.unpack(verdict[VERDICT_CODE])[0] if VERDICT_CODE in verdict else 0
    target = text_of(verdict.get(VERDICT_CHAIN))
    return target if code == JUMP else f"verdict {code} {target}"


def _concatenation(fields: list[Field], raw: _Raw) -> Element:
    element: list[Interval] = []
    offset = 0
    for field in fields:
        end = offset + field.width
        element.append((field.number_of(raw.first[offset:end]), field.number_of(raw.last[offset:end])))
        offset = end
    return tuple(element)


def _joined(field: Field, found: Iterable[_Raw]) -> dict[Element, str]:
    """Return the intervals that elements of a set with one field begin and end."""
    ends = sorted((field.number_of(raw.first), not raw.rest.is_end, raw.rest.target) for raw in found)
    ends.append((1 << 8 * field.size, False, ""))
    return {
        ((value, following - 1),): target for (value, begins, target), (following, _, _) in pairwise(ends) if begins
    }
