"""Where the parts of an NFLOG message lie, learned from one message and then checked exactly for each further one.

The kernel writes the same attributes in the same order for all packets that one rule logs (__build_packet_message
in net/netfilter/nfnetlink_log.c). A message is cut like this:

    head      from the message's length up to the value of TIMESTAMP, or up to SEQ where the kernel sent no time:
              rule, interfaces, mark, and for Ethernet the link header
    time      seconds and microseconds
    number    the header of SEQ and its value
    shape     the header of PAYLOAD, and the first byte of the IP header: version, header length
    packet    length, fragment bits, protocol, addresses, and the first four bytes behind a header of the plain length

Whoever knows head, shape, fragment bits and protocol of a message knows where everything in it is and what it means:
they are the same bytes from one packet to the next, so that a dictionary with these as key is the whole check.
A message that was never seen so is for the plain walk.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from wgd.events.nflog_message import (
    ATTRIBUTE_HEADER,
    PAYLOAD,
    SEQ,
    TIMESTAMP,
    Attribute,
    align,
    attributes,
)

MAX_FORMS = 256

Row = tuple[bytes, Any, Any, int, bytes, int, bytes, int, bytes, int, int]
"""One message: head, seconds, microseconds (both b"" where the kernel sent no time), number, shape, the length in the
IP header, the bytes with the fragment bits, protocol, addresses, two 16-bit words of the transport header."""


class Family(NamedTuple):
    """How the plain header of one IP version is cut, after its first byte.

    `mask` and `first`: what of the first byte says that a header is a plain one. `fragment` masks the fragment bits,
    of which a plain one has none. `length_added` is what the length in the header leaves out.
    """

    form: str
    mask: int
    first: int
    fragment: int
    length_added: int
    address_length: int

    @property
    def shortest(self) -> int:
        """How many bytes of a packet are cut."""
        return 1 + struct.calcsize(f"!{self.form}")


_NOTHING = Attribute(0, 0, 0)
# Version 4 without options: length at 2, flags and fragment offset at 6, protocol at 9, addresses at 12.
_IPV4 = Family("xH2x2sxB2x8sHH", 0xFF, 0x45, 0x3FFF, 0, 4)
# Version 6: payload length at 4, next header at 6, addresses at 8. It has no fragment bits here, so no byte of them.
_IPV6 = Family("3xH0sBx32sHH", 0xF0, 0x60, 0, 40, 16)


class Layout(NamedTuple):
    """How messages are cut: `rows` cuts a buffer that holds a whole number of them.

    `seq_header` is the header of SEQ as the upper half of Row.numbered. Equal for equal layouts.
    """

    rows: Callable[[memoryview], Iterator[Row]]
    head_end: int
    seq_header: int
    payload_header: bytes
    family: Family

    def head_of(self, message: bytes) -> bytes:
        """Return the head of a message that has this layout."""
        return message[: self.head_end]

    def is_plain(self, shape: bytes, fragment: bytes) -> bool:
        """Tell whether a message with this shape and these fragment bits has everything where the layout says."""
        return (
            shape[:-1] == self.payload_header
            and shape[-1] & self.family.mask == self.family.first
            and int.from_bytes(fragment, "big") & self.family.fragment == 0
        )


def learn(message: bytes) -> Layout | None:
    """Return the layout of a message that the plain walk has read, or None when it is not one of the usual ones.

    That walk has seen that SEQ and TIMESTAMP have the lengths they must have.
    """
    *before, sequence, payload = [_NOTHING, _NOTHING, *attributes(message)]
    if (sequence.kind, payload.kind) != (SEQ, PAYLOAD):
        return None
    timed = before[-1].kind == TIMESTAMP
    if not timed and TIMESTAMP in (attribute.kind for attribute in before):
        return None
    head_end = before[-1].start if timed else sequence.start - ATTRIBUTE_HEADER.size
    packet = message[payload.start : payload.end]
    family = next((family for family in (_IPV4, _IPV6) if packet and packet[0] & family.mask == family.first), None)
    if family is None or len(packet) < family.shortest:
        return None
    rest = align(len(message)) - payload.start - family.shortest
    return Layout(
        _rows(f"!{head_end}s{'QQ' if timed else '0s0s'}Q5s{family.form}{rest}x"),
        head_end,
        int.from_bytes(message[sequence.start - ATTRIBUTE_HEADER.size : sequence.start], "big"),
        message[payload.start - ATTRIBUTE_HEADER.size : payload.start],
        family,
    )


@lru_cache(MAX_FORMS)
def _rows(form: str) -> Callable[[memoryview], Iterator[Row]]:
    return struct.Struct(form).iter_unpack
