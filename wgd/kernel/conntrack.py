"""The door to the kernel's connection tracking, ctnetlink: it changes what flows' marks say, and ends flows.

A dump is filtered by mark in the kernel, and what it says of a flow goes back as it came, with another mark: no
address is decoded (include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from wgd.errors import KernelError
from wgd.policy.ruleset import GENERATION_MASK, RECORDED_DELIVERED, RECORDED_FORWARDED, RECORDED_MASK

NETLINK_NETFILTER = 12
NFNL_SUBSYS_CTNETLINK = 1
IPCTNL_MSG_CT_NEW, IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 0, 1, 2
CTA_TUPLE_ORIG, CTA_MARK, CTA_ZONE, CTA_MARK_MASK = 1, 8, 18, 21
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
UPPER_HALF = 0x20000000
"""The bit that the marks of the generations 16 to 31 have and those of 1 to 15 do not."""
RECORDED = (RECORDED_FORWARDED, RECORDED_DELIVERED)
SUBJECT = "conntrack"
RECEIVE_BYTES = 1 << 18
AT_ONCE = 64
"""Requests in one send: the answers to all must fit the socket's receive buffer."""
_HEADER, _NFGENMSG, _ATTRIBUTE = struct.Struct("=LHHLL"), struct.Struct("=BBH"), struct.Struct("=HH")
_BIG_ENDIAN = struct.Struct(">L")
_ERROR = struct.Struct("=l")


def forget_generations(*, upper: bool) -> None:
    """Take the generations 16 to 31, if `upper`, else 1 to 15, from every flow of this network namespace.

    All other bits of the flows' marks stay. Raise KernelError when the kernel refuses.
    """
    half = UPPER_HALF if upper else 0
    with _ctnetlink() as netlink:
        found = [body for body, mark in _marked(netlink, half, UPPER_HALF) if mark & GENERATION_MASK]
        _clear(netlink, found, GENERATION_MASK)


def release_recorded_flows() -> tuple[bytes, ...]:
    """Take every flow out of the record, and return what the kernel told of each: a message from its header on.

    Of these, and only of these, nobody is told when they end. Raise KernelError when the kernel refuses.
    """
    with _ctnetlink() as netlink:
        # A dump tells of a flow twice when the kernel had to begin its bucket anew.
        found = {
            _unmarked(body, RECORDED_MASK): body
            for place in RECORDED
            for body, _ in _marked(netlink, place, RECORDED_MASK)
        }
        cleared = _clear(netlink, list(found.values()), RECORDED_MASK)
        return tuple(_request(IPCTNL_MSG_CT_NEW, 0, body) for body in cleared)


def recorded_flows() -> frozenset[bytes]:
    """Return what names each flow that is in the record; raise KernelError when the kernel refuses."""
    with _ctnetlink() as netlink:
        return frozenset(
            _unmarked(body, RECORDED_MASK) for place in RECORDED for body, _ in _marked(netlink, place, RECORDED_MASK)
        )


def end_recorded_flows() -> None:
    """Delete every flow that is in the record, which tells who listens that it has ended.

    Raise KernelError when the kernel refuses.
    """
    with _ctnetlink() as netlink:
        for place in RECORDED:
            _ask(netlink, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, place, RECORDED_MASK)
            _refuse(next(_answers(netlink))[1])


@contextmanager
def _ctnetlink() -> Iterator[socket.socket]:
    """Give a socket for requests; raise KernelError for what fails with it."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
            netlink.bind((0, 0))
            yield netlink
    except OSError as error:
        raise KernelError(SUBJECT, error.strerror or str(error)) from error


def _ask(netlink: socket.socket, kind: int, flags: int, mark: int, mask: int) -> None:
    """Send a request about the flows of both families whose mark has `mark` in the bits of `mask`."""
    wanted = _attribute(CTA_MARK, _BIG_ENDIAN.pack(mark)) + _attribute(CTA_MARK_MASK, _BIG_ENDIAN.pack(mask))
    netlink.send(_request(kind, flags, _NFGENMSG.pack(socket.AF_UNSPEC, 0, 0) + wanted))


def _marked(netlink: socket.socket, mark: int, mask: int) -> Iterator[tuple[bytes, int]]:
    """Yield the body of what the kernel tells of each flow with `mark` in the bits of `mask`, and its whole mark."""
    _ask(netlink, IPCTNL_MSG_CT_GET, NLM_F_DUMP, mark, mask)
    for kind, body in _answers(netlink):
        if kind in (NLMSG_DONE, NLMSG_ERROR):
            _refuse(body)
            return
        found = dict(_attributes(body[_NFGENMSG.size :]))
        marked = _BIG_ENDIAN.unpack(found.get(CTA_MARK, bytes(4)))[0]
        if marked & mask == mark:
            yield body, marked


def _clear(netlink: socket.socket, bodies: list[bytes], mask: int) -> list[bytes]:
    """Set the bits of `mask` to zero in the marks of flows; return those that had not ended meanwhile."""
    cleared = []
    for first in range(0, len(bodies), AT_ONCE):
        some = bodies[first : first + AT_ONCE]
        netlink.send(b"".join(_request(IPCTNL_MSG_CT_NEW, NLM_F_ACK, _unmarked(body, mask)) for body in some))
        for body, (_, answer) in zip(some, _answers(netlink), strict=False):
            if _refuse(answer, but=errno.ENOENT) == 0:
                cleared.append(body)
    return cleared


def _unmarked(body: bytes, mask: int) -> bytes:
    """Return what names a flow, with the bits of `mask` in its mark set to zero."""
    found = dict(_attributes(body[_NFGENMSG.size :]))
    zone = _attribute(CTA_ZONE, found[CTA_ZONE]) if CTA_ZONE in found else b""
    named = _attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, found[CTA_TUPLE_ORIG]) + zone
    marks = _attribute(CTA_MARK, bytes(4)) + _attribute(CTA_MARK_MASK, _BIG_ENDIAN.pack(mask))
    return body[: _NFGENMSG.size] + named + marks


def _refuse(body: bytes, but: int = 0) -> int:
    """Return the errno of an answer, 0 or `but`; raise OSError for any other."""
    code = -int(_ERROR.unpack_from(body)[0])
    if code not in (0, but):
        raise OSError(code, os.strerror(code))
    return code


def _answers(netlink: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of each message."""
    while True:
        yield from _messages(netlink.recv(RECEIVE_BYTES))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += _aligned(length)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        yield kind & NLA_TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def _request(kind: int, flags: int, body: bytes) -> bytes:
    flags |= NLM_F_REQUEST
    return _HEADER.pack(_HEADER.size + len(body), NFNL_SUBSYS_CTNETLINK << 8 | kind, flags, 0, 0) + body


def _aligned(length: int) -> int:
    return length + 3 & ~3
