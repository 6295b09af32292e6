"""Packets made by hand, byte for byte: what begins a flow, what answers it and what goes on in it.

Each carries a number by which it is known wherever it arrives. Conntrack has to take them for what they say they are,
so that TCP begins with SYN and SCTP with INIT, and answers carry the numbers that fit; it is told not to look at
checksums (nf_conntrack_checksum), and only ICMPv6, which the kernel checks for raw sockets too, has one.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from wgd.model import ICMP, ICMPV6, Address

TCP, UDP, GRE, ESP, SCTP, UDPLITE, EXPERIMENTAL = 6, 17, 47, 50, 132, 136, 253
NUMBER = re.compile(rb"<(\d+)>")
TTL = 64
DESTINATION_OPTIONS = 60
NO_OPERATION = b"\x01"
PAD_FOUR = b"\x01\x04\0\0\0\0"
SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
INIT, INIT_ACK, DATA = 1, 2, 0
ISN = {False: 1000, True: 2000}
TAG = {False: 0x11111111, True: 0x22222222}
"""What each side chose, by whether it is the one who answers: TCP's first sequence number and SCTP's tag."""


@dataclass(frozen=True)
class Packet:
    """One packet. `answers`: it goes against the direction of the flow. `later`: the flow has been answered before.

    `options`: it has an IPv4 header with options, or an extension header. Protocols without ports ignore the ports,
    echo requests have theirs, whichever end it is of, as identifier.
    """

    source: Address
    destination: Address
    proto: int
    source_port: int
    destination_port: int
    answers: bool = False
    later: bool = False
    options: bool = False

    def to_bytes(self, number: int) -> bytes:
        """Return the packet from its IP header on."""
        body = _body(self, b"<%d>" % number)
        if self.source.version == 4:
            options = NO_OPERATION * 4 if self.options else b""
            length = 20 + len(options)
            head = struct.pack(
                "!BBHHHBBH4s4s", 0x40 | length // 4, 0, length + len(body), 0, 0, TTL, self.proto, 0, *self._ends()
            )
            checksum = internet_checksum(head + options)
            return head[:10] + struct.pack("!H", checksum) + head[12:] + options + body
        follows = self.proto
        if self.options:
            body = bytes((follows, 0)) + PAD_FOUR + body
            follows = DESTINATION_OPTIONS
        return struct.pack("!IHBB16s16s", 6 << 28, len(body), follows, TTL, *self._ends()) + body

    def _ends(self) -> tuple[bytes, bytes]:
        return self.source.packed, self.destination.packed

    def error_bytes(self, number: int) -> bytes:
        """Return what the destination sends when it cannot be reached: ICMP's host unreachable, about this packet."""
        quoted = self.to_bytes(number)
        kind, code, proto = (3, 1, ICMP) if self.source.version == 4 else (1, 3, ICMPV6)
        body = struct.pack("!BBHI", kind, code, 0, 0) + quoted
        source, destination = self.destination.packed, self.source.packed
        if self.source.version == 6:
            return struct.pack("!IHBB16s16s", 6 << 28, len(body), proto, TTL, source, destination) + body
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, TTL, proto, 0, source, destination)
        return head[:10] + struct.pack("!H", internet_checksum(head)) + head[12:] + body

    def __str__(self) -> str:
        about = "".join(f" {word}" for word in ("answers", "later", "options") if getattr(self, word))
        ends = f"{self.source}#{self.source_port} > {self.destination}#{self.destination_port}"
        return f"{ends} proto {self.proto}{about}"


def number_of(received: bytes) -> int | None:
    """Return the number that a packet carries, or None where it is none of ours."""
    found = NUMBER.search(received)
    return int(found[1]) if found else None


def internet_checksum(data: bytes) -> int:
    """Return the checksum of RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _body(packet: Packet, token: bytes) -> bytes:
    ports = struct.pack("!HH", packet.source_port, packet.destination_port)
    if packet.proto == TCP:
        return ports + _tcp(packet) + token
    if packet.proto == UDP:
        return ports + struct.pack("!HH", 8 + len(token), 0) + token
    if packet.proto == UDPLITE:
        # A coverage of 0 is the whole packet, and the checksum must not be zero (RFC 3828, section 3.1).
        return ports + struct.pack("!HH", 0, 1) + token
    if packet.proto == SCTP:
        return ports + _sctp(packet, token)
    if packet.proto in (ICMP, ICMPV6):
        return _echo(packet, token)
    return bytes(8) + token


def _tcp(packet: Packet) -> bytes:
    flags = ACK if packet.later else SYN_ACK if packet.answers else SYN
    sequence = ISN[packet.answers] + packet.later
    acknowledged = ISN[not packet.answers] + 1 if flags & ACK else 0
    return struct.pack("!IIBBHHH", sequence, acknowledged, 5 << 4, flags, 65535, 0, 0)


def _sctp(packet: Packet, token: bytes) -> bytes:
    """Return what follows the ports (RFC 9260, section 3): tag, checksum and one chunk."""
    if packet.later:
        kind, value = DATA, struct.pack("!IHHI", 1, 0, 0, 0)
    else:
        kind, value = INIT_ACK if packet.answers else INIT, struct.pack("!IIHHI", TAG[packet.answers], 65536, 1, 1, 1)
    tag = 0 if kind == INIT else TAG[not packet.answers]
    return struct.pack("!IIBBH", tag, 0, kind, 3 if packet.later else 0, 4 + len(value) + len(token)) + value + token


def _echo(packet: Packet, token: bytes) -> bytes:
    request, reply = (8, 0) if packet.proto == ICMP else (128, 129)
    identifier = packet.destination_port if packet.answers else packet.source_port
    head = struct.pack("!BBHHH", reply if packet.answers else request, 0, 0, identifier, 1)
    checksum = 0
    if packet.proto == ICMPV6:
        pseudo = packet.source.packed + packet.destination.packed + struct.pack("!II", 8 + len(token), ICMPV6)
        checksum = internet_checksum(pseudo + head + token)
    return head[:2] + struct.pack("!H", checksum) + head[4:] + token
