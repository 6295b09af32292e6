"""The door to NFLOG: a socket on which the kernel delivers what a group's log rules copied.

Requests as in linux/netfilter/nfnetlink_log.h; what the kernel makes of them: nfulnl_recv_config in
net/netfilter/nfnetlink_log.c (Linux 6.1).
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from wgd.errors import ConflictError, KernelError, UnsupportedError, WgdError

NETLINK_NETFILTER = 12
SO_RCVBUFFORCE, SO_NETNS_COOKIE = 33, 71
"""Of linux/netlink.h and asm-generic/socket.h; Python has no names for these."""
BUFFER_BYTES = 128 << 10
"""Where the kernel collects messages before it sends them: NFULNL_NLBUFSIZ_MAX."""
QUEUE_THRESHOLD = 512
"""After how many messages it sends; a rule's queue-threshold can only lower this."""
FLUSH_SECONDS = 0.1
"""After what time it sends at the latest."""
RECEIVE_BUFFER_BYTES = 32 << 20
RECEIVE_BYTES = 256 << 10
"""A recv buffer of this size takes every datagram: one holds at most BUFFER_BYTES, or a single message."""

_CONFIG_MESSAGE = 0x0401
_REQUEST_AND_ACK = 0x5
_ERROR_MESSAGE = 2
_CFG_CMD, _CFG_MODE, _CFG_NLBUFSIZ, _CFG_TIMEOUT, _CFG_QTHRESH, _CFG_FLAGS = 1, 2, 3, 4, 5, 6
_BIND, _PF_BIND = 1, 3
_COPY_PACKET = 2
_WHOLE_PACKET = 0xFFFF
_FLAG_SEQUENCE = 1
_NO_FAMILY = 255

_HEADER = struct.Struct("=IHHII")
_FAMILY_HEADER = struct.Struct("!BBH")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_ACK_SECONDS = 5


def open_nflog(group: int) -> socket.socket:
    """Return a non-blocking socket bound to an NFLOG group (0 to 65535) in this thread's network namespace.

    The kernel numbers the group's events from 0 (NFULA_SEQ) from here on. Raise ConflictError when another program
    reads the group, UnsupportedError when the kernel has no NFLOG, KernelError for anything else it refuses.
    """
    try:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    except OSError as error:
        raise UnsupportedError(_subject(group), f"this kernel has no nfnetlink: {error.strerror}") from error
    try:
        opened.bind((0, 0))
        set_receive_buffer(opened)
        opened.settimeout(_ACK_SECONDS)
        _check(opened, group, _request(opened, group, _configuration()))
        opened.setblocking(False)  # noqa: FBT003 the socket's own interface
    except OSError as error:
        opened.close()
        raise KernelError(_subject(group), f"netlink failed: {error.strerror or error}") from error
    except WgdError:
        opened.close()
        raise
    return opened


def adopt_netfilter(descriptor: int) -> socket.socket | None:
    """Return the netfilter socket behind a descriptor that somebody has kept; None, and closed, for anything else.

    It may be bound in another network namespace: then nothing that this one's kernel tells would ever come.
    """
    try:
        kept = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return None
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as here:
        if (kept.family, kept.proto) == (here.family, here.proto) and _network(kept) == _network(here):
            return kept
    kept.close()
    return None


def _network(netlink: socket.socket) -> bytes:
    return netlink.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)


def _configuration() -> bytes:
    """Return one request that binds and configures: between two, events would go out without a number."""
    return b"".join(
        (
            _attribute(_CFG_CMD, struct.pack("!B", _BIND)),
            _attribute(_CFG_MODE, struct.pack("!IBx", _WHOLE_PACKET, _COPY_PACKET)),
            _attribute(_CFG_NLBUFSIZ, struct.pack("!I", BUFFER_BYTES)),
            _attribute(_CFG_TIMEOUT, struct.pack("!I", round(FLUSH_SECONDS * 100))),
            _attribute(_CFG_QTHRESH, struct.pack("!I", QUEUE_THRESHOLD)),
            _attribute(_CFG_FLAGS, struct.pack("!H", _FLAG_SEQUENCE)),
        )
    )


def set_receive_buffer(opened: socket.socket) -> None:
    """Ask for a large queue; without CAP_NET_ADMIN in the first user namespace the host's rmem_max limits it."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)


def _check(opened: socket.socket, group: int, refusal: int) -> None:
    """Raise what a refusal (an errno, 0 for none) means."""
    if refusal == 0:
        return
    subject = _subject(group)
    if refusal == errno.EBUSY or (refusal == errno.EPERM and _is_privileged(opened)):
        raise ConflictError(
            subject,
            "another program reads this group (ulogd, or a second gateway): stop it, or set logging.nflog_group"
            " to the first of two free groups",
        )
    if refusal == errno.EPERM:
        raise KernelError(subject, "binding to it needs CAP_NET_ADMIN")
    if refusal in (errno.EINVAL, errno.EOPNOTSUPP):
        raise UnsupportedError(subject, f"this kernel has no NFLOG (module nfnetlink_log): {os.strerror(refusal)}")
    raise KernelError(subject, f"the kernel refused to bind: {os.strerror(refusal)}")


def _is_privileged(opened: socket.socket) -> bool:
    """Tell whether EPERM was about the group and not about us.

    The kernel answers EPERM to both. Making NFLOG the logger of a family that does not exist changes nothing and is
    refused with EPERM only for want of CAP_NET_ADMIN.
    """
    return _request(opened, 0, _attribute(_CFG_CMD, struct.pack("!B", _PF_BIND)), _NO_FAMILY) != errno.EPERM


def _request(opened: socket.socket, group: int, attributes: bytes, family: int = socket.AF_UNSPEC) -> int:
    """Send one config request and return the errno of its acknowledgement, 0 when it was done."""
    body = _FAMILY_HEADER.pack(family, 0, group) + attributes
    opened.send(_HEADER.pack(_HEADER.size + len(body), _CONFIG_MESSAGE, _REQUEST_AND_ACK, 1, 0) + body)
    while True:
        # Events that are there before the acknowledgement are passed over; their numbers will be missed and counted.
        answer = opened.recv(RECEIVE_BYTES)
        if _HEADER.unpack_from(answer)[1] == _ERROR_MESSAGE:
            (negative,) = _ERROR.unpack_from(answer, _HEADER.size)
            return -int(negative)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _subject(group: int) -> str:
    return f"NFLOG group {group}"
