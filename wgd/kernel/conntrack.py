"""The door to the kernel's connection tracking, ctnetlink: it takes generations out of flows' marks.

A dump is filtered by mark in the kernel, and what it says of a flow goes back as it came, with another mark: no
address is decoded (include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

from wgd.errors import KernelError
from wgd.policy.ruleset import GENERATION_MASK

NETLINK_NETFILTER = 12
NFNL_SUBSYS_CTNETLINK = 1
IPCTNL_MSG_CT_NEW, IPCTNL_MSG_CT_GET = 0, 1
CTA_TUPLE_ORIG, CTA_MARK, CTA_ZONE, CTA_MARK_MASK = 1, 8, 18, 21
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
UPPER_HALF = 0x80000000
"""The bit that the marks of the generations 128 to 255 have and those of 1 to 127 do not."""
SUBJECT = "conntrack"
RECEIVE_BYTES = 1 << 18
AT_ONCE = 64
"""Requests in one send: the answers to all must fit the socket's receive buffer."""
_HEADER, _NFGENMSG, _ATTRIBUTE = struct.Struct("=LHHLL"), struct.Struct("=BBH"), struct.Struct("=HH")
_BIG_ENDIAN = struct.Struct(">L")
_ERROR = struct.Struct("=l")


def forget_generations(*, upper: bool) -> None:
    """Take the generations 128 to 255, if `upper`, else 1 to 127, from every flow of this network namespace.

    All other bits of the flows' marks stay. Raise KernelError when the kernel refuses.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
            netlink.bind((0, 0))
            changes = tuple(_marked(netlink, UPPER_HALF if upper else 0))
            for first in range(0, len(changes), AT_ONCE):
                _set(netlink, changes[first : first + AT_ONCE])
    except OSError as error:
        raise KernelError(SUBJECT, error.strerror or str(error)) from error


def _marked(netlink: socket.socket, half: int) -> Iterator[bytes]:
    """Yield the request that takes the generation away, for each flow with a generation of this half."""
    wanted = _attribute(CTA_MARK, _BIG_ENDIAN.pack(half)) + _attribute(CTA_MARK_MASK, _BIG_ENDIAN.pack(UPPER_HALF))
    netlink.send(_request(IPCTNL_MSG_CT_GET, NLM_F_DUMP, _NFGENMSG.pack(socket.AF_UNSPEC, 0, 0) + wanted))
    for kind, body in _answers(netlink):
        if kind in (NLMSG_DONE, NLMSG_ERROR):
            _refuse(body)
            return
        found = dict(_attributes(body[_NFGENMSG.size :]))
        mark = _BIG_ENDIAN.unpack(found.get(CTA_MARK, bytes(4)))[0]
        if mark & GENERATION_MASK and mark & UPPER_HALF == half:
            yield _request(IPCTNL_MSG_CT_NEW, NLM_F_ACK, body[: _NFGENMSG.size] + _unmarked(found))


def _unmarked(found: dict[int, bytes]) -> bytes:
    """Return what names a flow, with the generation bits of its mark set to zero."""
    zone = _attribute(CTA_ZONE, found[CTA_ZONE]) if CTA_ZONE in found else b""
    named = _attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, found[CTA_TUPLE_ORIG]) + zone
    mask = _attribute(CTA_MARK_MASK, _BIG_ENDIAN.pack(GENERATION_MASK))
    return named + _attribute(CTA_MARK, bytes(4)) + mask


def _set(netlink: socket.socket, changes: tuple[bytes, ...]) -> None:
    """Send requests and take an answer to each; a flow that has ended meanwhile is no error."""
    netlink.send(b"".join(changes))
    for _, (_, body) in zip(changes, _answers(netlink), strict=False):
        _refuse(body, but=errno.ENOENT)


def _refuse(body: bytes, but: int = 0) -> None:
    """Raise OSError for an answer that says so, unless it is `but` that."""
    code = -_ERROR.unpack_from(body)[0]
    if code not in (0, but):
        raise OSError(code, os.strerror(code))


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
