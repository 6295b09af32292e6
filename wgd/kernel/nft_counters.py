"""The named counters of our table, by one request: what the ruleset has logged, and what it has only counted.

Apart from the rest of the table, which takes a thousand times as long to read: this is asked for again and again.
"""

from __future__ import annotations

import errno
from contextlib import closing
from typing import NamedTuple

from wgd.errors import KernelError
from wgd.kernel.netlink import attribute, attributes, text, text_of
from wgd.kernel.nft_messages import FAMILY_HEADER, LONG_NUMBER, NUMBER, SUBSYSTEM
from wgd.kernel.nft_socket import NftSocket, RefusedError
from wgd.policy.ruleset import LIMITED, LOGGED, RECORDED, TABLE_NAME

GET_OBJECT = SUBSYSTEM << 8 | 19
"""NFT_MSG_GETOBJ."""
OBJECT_TABLE, OBJECT_NAME, OBJECT_TYPE, OBJECT_DATA, COUNTER_PACKETS = 1, 2, 3, 4, 2
"""NFTA_…"""
OBJECT_COUNTER = 1
"""NFT_OBJECT_COUNTER."""
COUNTERS = text(OBJECT_TABLE, TABLE_NAME) + attribute(OBJECT_TYPE, NUMBER.pack(OBJECT_COUNTER))
"""What asks for the counters of our table."""


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
    with closing(NftSocket()) as netlink:
        try:
            found = dict(map(_counter, netlink.dump(GET_OBJECT, COUNTERS)))
        except RefusedError as error:
            if error.code == errno.ENOENT:
                return None
            raise KernelError("nftables", f"the counters cannot be read: {error}") from error
    if not found.keys() >= {*LOGGED, LIMITED, RECORDED}:
        return None
    return Logged(tuple(found[name] for name in LOGGED), found[LIMITED], found[RECORDED])


def _counter(body: memoryview) -> tuple[str, int]:
    """Return name and packets of a counter."""
    fields = dict(attributes(body[FAMILY_HEADER.size :]))
    packets = dict(attributes(fields[OBJECT_DATA]))[COUNTER_PACKETS]
    return text_of(fields.get(OBJECT_NAME)), int(LONG_NUMBER.unpack(packets)[0])
