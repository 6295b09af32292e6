"""How often the nftables of this network namespace have been changed: the kernel's own count.

Every transaction, whoever sent it, raises it by one (nf_tables_commit in net/netfilter/nf_tables_api.c); elements that
time out and what packets add do not. Messages as in linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import socket
import struct

from wgd.errors import KernelError
from wgd.kernel.monitor import NETLINK_NETFILTER

_GET_GENERATION, _NEW_GENERATION = 0x0A10, 0x0A0F
"""NFT_MSG_GETGEN and NFT_MSG_NEWGEN of NFNL_SUBSYS_NFTABLES."""
_REQUEST = 1
_HEADER = struct.Struct("=IHHII")
_FAMILY_HEADER = struct.Struct("=BBH")
_IDENTITY = struct.Struct("!4xI")
"""The first attribute: NFTA_GEN_ID."""
_ANSWER_SECONDS = 5.0


def ruleset_number() -> int:
    """Return the number of the ruleset that is in force now; raise KernelError when the kernel does not say."""
    request = _FAMILY_HEADER.pack(0, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as netlink:
            netlink.settimeout(_ANSWER_SECONDS)
            netlink.bind((0, 0))
            netlink.send(_HEADER.pack(_HEADER.size + len(request), _GET_GENERATION, _REQUEST, 1, 0) + request)
            answer = netlink.recv(4096)
    except OSError as error:
        raise KernelError("nftables", f"the ruleset's number cannot be read: {error.strerror or error}") from error
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind != _NEW_GENERATION:
        raise KernelError("nftables", "the kernel does not say the ruleset's number")
    return int(_IDENTITY.unpack_from(answer, _HEADER.size + _FAMILY_HEADER.size)[0])
