"""The named counters of our table, by one request: what the ruleset has logged, and what it has only counted.

libnftables would read the whole table for them, which takes a tenth of a second where there are many clients, and this
is asked for again and again. Messages as in linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from wgd.errors import KernelError
from wgd.kernel.monitor import NETLINK_NETFILTER
from wgd.policy.ruleset import LIMITED, LOGGED, RECORDED, TABLE_NAME

_GET_OBJECT, _NEW_OBJECT = 0x0A13, 0x0A12
"""NFT_MSG_GETOBJ and NFT_MSG_NEWOBJ of NFNL_SUBSYS_NFTABLES."""
_ERROR, _DONE = 2, 3
_REQUEST_DUMP = 0x301
_TABLE, _NAME, _TYPE, _DATA, _PACKETS = 1, 2, 3, 4, 2
_COUNTER = struct.pack("!I", 1)
_NFPROTO_INET = 1
_HEADER = struct.Struct("=IHHII")
_FAMILY_HEADER = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")
_CODE = struct.Struct("=i")
_TYPE_MASK = 0x3FFF
_ANSWER_SECONDS = 5.0
_RECEIVE_BYTES = 1 << 16


class Logged(NamedTuple):
    """What the kernel has counted since the table was made: packets logged to each group, and denials not logged.

    `recorded` are the flows whose end it tells of.
    """

    groups: tuple[int, ...]
    limited: int
    recorded: int = 0


def read_logged() -> Logged | None:
    """Return the counts of our table in this network namespace, None where there is no such table or counter.

    Raise KernelError when the kernel does not say.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as netlink:
            netlink.settimeout(_ANSWER_SECONDS)
            netlink.bind((0, 0))
            netlink.send(_request())
            found = dict(_answers(netlink))
    except OSError as error:
        raise KernelError("nftables", f"the counters cannot be read: {error.strerror or error}") from error
    if not found.keys() >= {*LOGGED, LIMITED, RECORDED}:
        return None
    return Logged(tuple(found[name] for name in LOGGED), found[LIMITED], found[RECORDED])


def _request() -> bytes:
    table = TABLE_NAME.encode() + b"\0"
    body = _FAMILY_HEADER.pack(_NFPROTO_INET, 0, 0) + _attribute(_TABLE, table) + _attribute(_TYPE, _COUNTER)
    return _HEADER.pack(_HEADER.size + len(body), _GET_OBJECT, _REQUEST_DUMP, 1, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _answers(netlink: socket.socket) -> Iterator[tuple[str, int]]:
    """Yield name and packets of each counter."""
    while True:
        datagram = netlink.recv(_RECEIVE_BYTES)
        offset = 0
        while offset + _HEADER.size <= len(datagram):
            length, kind, *_ = _HEADER.unpack_from(datagram, offset)
            body = datagram[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3
            if kind in (_ERROR, _DONE):
                code = -int(_CODE.unpack_from(body)[0])
                if code not in (0, errno.ENOENT):
                    raise OSError(code, os.strerror(code))
                return
            if kind == _NEW_OBJECT:
                fields = dict(_attributes(body[_FAMILY_HEADER.size :]))
                packets = dict(_attributes(fields[_DATA]))[_PACKETS]
                yield fields[_NAME].rstrip(b"\0").decode("ascii", "replace"), int.from_bytes(packets, "big")


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        yield kind & _TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += max(_ATTRIBUTE.size, (length + 3) & ~3)
