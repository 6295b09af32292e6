"""Fill a node's connection tracking table, by ctnetlink: no flow that is not there yet is taken in after that."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from pyroute2 import netns
from world import Node

NETLINK_NETFILTER = 12
NEW = 1 << 8
"""NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW (linux/netfilter/nfnetlink_conntrack.h)."""
REQUEST_CREATE = 0x401
NESTED = 0x8000
TUPLE_ORIGINAL, TUPLE_REPLY, STATUS, TIMEOUT = 1, 2, 3, 7
SEEN_REPLY, ASSURED, CONFIRMED = 2, 4, 8
"""An assured flow is not dropped early to make room (nf_conntrack_core.c, early_drop_list)."""
BATCH = 200
LIMIT = Path("/proc/sys/net/netfilter/nf_conntrack_max")


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def addresses(kind: int, source: bytes, to: bytes) -> bytes:
    """Return a tuple of a UDP flow between two IPv4 addresses."""
    ports = attribute(1, b"\x11") + attribute(2, struct.pack("!H", 1)) + attribute(3, struct.pack("!H", 1))
    ends = attribute(NESTED | 1, attribute(1, source) + attribute(2, to))
    return attribute(NESTED | kind, ends + attribute(NESTED | 2, ports))


def flow(number: int) -> bytes:
    """Return the request for one more flow."""
    one, other = struct.pack("!I", 0x0B000000 + number), b"\x0c\x00\x00\x01"
    body = addresses(TUPLE_ORIGINAL, one, other) + addresses(TUPLE_REPLY, other, one)
    body += attribute(STATUS, struct.pack("!I", SEEN_REPLY | ASSURED | CONFIRMED))
    body += attribute(TIMEOUT, struct.pack("!I", 600))
    message = struct.pack("=BBH", socket.AF_INET, 0, 0) + body
    return struct.pack("=LHHLL", 16 + len(message), NEW, REQUEST_CREATE, 0, 0) + message


def fill(node: Node) -> None:
    """Leave room for nothing."""
    netns.pushns(node.namespace)
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    finally:
        netns.popns()
    with netlink:
        netlink.bind((0, 0))
        for first in range(0, int(LIMIT.read_text()) + BATCH, BATCH):
            netlink.send(b"".join(map(flow, range(first, first + BATCH))))
