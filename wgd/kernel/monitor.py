"""The door to what the kernel says of itself: notifications of rtnetlink and nftables.

A notification is only taken as a hint to look: it says which part of the kernel's state somebody changed, never what
it is now. Messages as in linux/rtnetlink.h, linux/netconf.h and linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from enum import Enum
from errno import ENOBUFS, ENOMEM
from typing import NamedTuple

from wgd.errors import KernelError

SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
NETLINK_NETFILTER = 12
"""Of linux/netlink.h; Python has no names for these."""
NFNLGRP_NFTABLES = 7
ROUTE_GROUPS = {
    "link": 1, "IPv4 address": 5, "IPv4 route": 7, "IPv4 rule": 8, "IPv6 address": 9, "IPv6 route": 11,
    "IPv6 rule": 19, "IPv4 netconf": 24, "IPv6 netconf": 25,
}  # fmt: skip
"""RTNLGRP_* of linux/rtnetlink.h."""
RECEIVE_BYTES = 64 << 10

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NUMBER = struct.Struct("=I")
_LINK_HEADER, _ROUTE_HEADER, _FAMILY_HEADER = 16, 12, 4
_IFLA_IFNAME, _RTA_TABLE, _NFTA_TABLE = 3, 15, 1
"""NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE and NFTA_SET_ELEM_LIST_TABLE are all 1."""
_TABLE_OF_ROUTE_HEADER = 4
_ATTRIBUTE_TYPE = 0x3FFF
_NFT_SUBSYSTEM = 10
_NFT_GENERATION = 15
NFT_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}


class Subject(Enum):
    """What a notification is about. LOST: the kernel had more to say than the socket holds, about anything."""

    TABLE = "table"
    LINK = "link"
    ADDRESS = "address"
    ROUTE = "route"
    RULE = "rule"
    FORWARDING = "forwarding"
    LOST = "lost"


_ROUTE_MESSAGES = {
    16: Subject.LINK, 17: Subject.LINK, 20: Subject.ADDRESS, 21: Subject.ADDRESS, 24: Subject.ROUTE,
    25: Subject.ROUTE, 32: Subject.RULE, 33: Subject.RULE, 80: Subject.FORWARDING, 81: Subject.FORWARDING,
}  # fmt: skip
"""RTM_NEW… and RTM_DEL… of linux/rtnetlink.h."""


class Notice(NamedTuple):
    """One notification. `scope` is the nftables table (`inet wgd`), a link's name or the number of a routing table."""

    subject: Subject
    scope: str | int = ""


class Monitor:
    """The notifications of the network namespace in which this object is made; readable when there are any.

    The receive buffer is left as small as the kernel makes it: when it overflows, during a change of many thousand
    elements, looking once is all that follows.
    """

    def __init__(self) -> None:
        with ExitStack() as opened:
            route = opened.enter_context(_listening(socket.NETLINK_ROUTE, ROUTE_GROUPS))
            nftables = opened.enter_context(_listening(NETLINK_NETFILTER, {"nftables": NFNLGRP_NFTABLES}))
            self._epoll = opened.enter_context(select.epoll())
            for listening in (route, nftables):
                self._epoll.register(listening, select.EPOLLIN)
            self._sockets = ((route, _route_notice), (nftables, _nftables_notice))
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Stop listening."""
        self._opened.close()

    def fileno(self) -> int:
        """Return a descriptor that can be read when `read` has something to give."""
        return self._epoll.fileno()

    def read(self) -> frozenset[Notice]:
        """Return what has been notified since the last call, each once, without waiting.

        Raise KernelError when the kernel does not let the sockets be read.
        """
        found: set[Notice] = set()
        for listening, notice_of in self._sockets:
            for datagram in _datagrams(listening):
                if datagram is None:
                    found.add(Notice(Subject.LOST))
                    continue
                for kind, message in _messages(datagram):
                    notice = notice_of(kind, message)
                    if notice is not None:
                        found.add(notice)
        return frozenset(found)

    def discard(self) -> None:
        """Forget what has been notified so far: what somebody reads of the kernel from now on has it."""
        for listening, _ in self._sockets:
            for _ in _datagrams(listening):
                pass


def _listening(protocol: int, groups: dict[str, int]) -> socket.socket:
    try:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
    except OSError as error:
        raise KernelError("notifications", f"netlink cannot be opened: {error.strerror}") from error
    try:
        made.bind((0, 0))
        for group in groups.values():
            made.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
    except OSError as error:
        made.close()
        raise KernelError("notifications", f"cannot listen to {', '.join(groups)}: {error.strerror}") from error
    return made


def _datagrams(listening: socket.socket) -> Iterator[bytes | None]:
    """Yield what is queued; None stands for what the kernel had to drop (ENOBUFS, netlink(7))."""
    while True:
        try:
            datagram, sender = listening.recvfrom(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (ENOBUFS, ENOMEM):
                raise KernelError("notifications", f"cannot be read: {error.strerror}") from error
            yield None
        else:
            # Programs may send to a netlink port, too; the kernel's own is 0.
            if sender[0] == 0:
                yield datagram


def _messages(datagram: bytes) -> Iterator[tuple[int, memoryview]]:
    """Yield the type and the payload of each message of a datagram."""
    view, offset = memoryview(datagram), 0
    while offset + _HEADER.size <= len(view):
        length, kind, _, _, _ = _HEADER.unpack_from(view, offset)
        if length < _HEADER.size:
            return
        yield kind, view[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _attribute(message: memoryview, offset: int, wanted: int) -> memoryview | None:
    """Return the value of the first attribute of a type, or None."""
    while offset + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, offset)
        if length < _ATTRIBUTE.size:
            return None
        if kind & _ATTRIBUTE_TYPE == wanted:
            return message[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return None


def _text(value: memoryview | None) -> str:
    return "" if value is None else bytes(value).partition(b"\0")[0].decode("utf-8", "replace")


def _route_notice(kind: int, message: memoryview) -> Notice | None:
    subject = _ROUTE_MESSAGES.get(kind)
    if subject is Subject.LINK:
        return Notice(subject, _text(_attribute(message, _LINK_HEADER, _IFLA_IFNAME)))
    if subject is Subject.ROUTE:
        table = _attribute(message, _ROUTE_HEADER, _RTA_TABLE)
        return Notice(subject, message[_TABLE_OF_ROUTE_HEADER] if table is None else _NUMBER.unpack(table)[0])
    return Notice(subject) if subject is not None else None


def _nftables_notice(kind: int, message: memoryview) -> Notice | None:
    if kind >> 8 != _NFT_SUBSYSTEM or kind & 0xFF == _NFT_GENERATION:
        return None
    family = NFT_FAMILIES.get(message[0], str(message[0]))
    return Notice(Subject.TABLE, f"{family} {_text(_attribute(message, _FAMILY_HEADER, _NFTA_TABLE))}")
