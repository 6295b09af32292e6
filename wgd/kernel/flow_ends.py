"""The door through which the kernel tells of the end of flows: ctnetlink's destroy events, of recorded flows only.

ctnetlink has no filter for events; a classic BPF program on the socket has. It looks for the mark among the event's
attributes (SKF_AD_NLATTR in net/core/filter.c), so that the events of everybody else's flows wake nobody up.

The events are not numbered. What can be counted is what did not fit: the kernel hands an event to the filter first and
then to the queue, and counts exactly those that the queue had no room for (do_one_broadcast and netlink_overrun in
net/netlink/af_netlink.c).
"""

from __future__ import annotations

import array
import socket
import struct

from wgd.errors import KernelError, UnsupportedError
from wgd.kernel.nflog import NETLINK_NETFILTER, set_receive_buffer
from wgd.policy.ruleset import RECORDED_MASK

RECEIVE_BYTES = 4096
"""Larger than any event: each comes alone."""
SUBJECT = "conntrack events"

_SO_ATTACH_FILTER, _SO_MEMINFO = 26, 55
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_CONNTRACK_DESTROY = 270, 1, 3
_MEMORY = struct.Struct("=9I")
"""SK_MEMINFO_… of linux/sock_diag.h."""
_MEMORY_DROPS = 8

_ATTRIBUTES, _CTA_MARK, _ATTRIBUTE_HEADER = 20, 8, 4
_LD_W_ABSOLUTE, _LD_W_INDIRECT, _LD_IMMEDIATE, _LDX_IMMEDIATE, _TAX = 0x20, 0x40, 0x00, 0x01, 0x07
_JUMP_IF_EQUAL, _JUMP_IF_ANY_BIT, _RETURN = 0x15, 0x45, 0x06
_FIND_ATTRIBUTE = 0xFFFFF000 + 12
"""SKF_AD_OFF + SKF_AD_NLATTR: where the attribute of type X begins that is found from offset A on, 0 for none."""
_ALL = 0xFFFFFFFF
# Each instruction: what, how far to jump if true and if false, constant (linux/filter.h).
_PROGRAM = (
    (_LD_IMMEDIATE, 0, 0, _ATTRIBUTES),
    (_LDX_IMMEDIATE, 0, 0, _CTA_MARK),
    (_LD_W_ABSOLUTE, 0, 0, _FIND_ATTRIBUTE),
    (_JUMP_IF_EQUAL, 3, 0, 0),
    (_TAX, 0, 0, 0),
    (_LD_W_INDIRECT, 0, 0, _ATTRIBUTE_HEADER),
    (_JUMP_IF_ANY_BIT, 1, 0, RECORDED_MASK),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, _ALL),
)
_INSTRUCTION = struct.Struct("=HBBI")
_PROGRAM_POINTER = struct.Struct("@HP")


def open_flow_ends() -> socket.socket:
    """Return a non-blocking socket on which each recorded flow of this network namespace that ends is one datagram.

    With `nf_conntrack_events` at 2 the kernel tells only of flows that began while such a socket was open. Raise
    UnsupportedError when the kernel has no ctnetlink, KernelError for anything else it refuses.
    """
    try:
        opened = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
    except OSError as error:
        raise UnsupportedError(SUBJECT, f"this kernel has no nfnetlink: {error.strerror}") from error
    try:
        opened.bind((0, 0))
        set_receive_buffer(opened)
        _attach_filter(opened)
        opened.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_CONNTRACK_DESTROY)
    except OSError as error:
        opened.close()
        raise KernelError(SUBJECT, f"netlink failed: {error.strerror or error}") from error
    return opened


def dropped(opened: socket.socket) -> int:
    """Return how many events the socket's queue has had no room for since it was opened, modulo 2**32."""
    memory: tuple[int, ...] = _MEMORY.unpack(opened.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMORY.size))
    return memory[_MEMORY_DROPS]


def _attach_filter(opened: socket.socket) -> None:
    program = array.array("B", b"".join(_INSTRUCTION.pack(*instruction) for instruction in _PROGRAM))
    address, _ = program.buffer_info()
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _PROGRAM_POINTER.pack(len(_PROGRAM), address))
