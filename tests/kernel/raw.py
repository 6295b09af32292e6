"""Packets that no ordinary socket sends, made by hand and sent from a node's namespace."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from typing import Self

from flow import made_in
from world import Node


def ones_complement(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


def ipv4(
    source: str, to: str, protocol: int, payload: bytes, *, options: bytes = b"", identification: int = 1
) -> bytes:
    """Return an IPv4 packet; the kernel fills in nothing but what is 0."""
    words = 5 + len(options) // 4
    addresses = ip_address(source).packed + ip_address(to).packed
    length = 4 * words + len(payload)
    head = struct.pack("!BBHHHBBH", 4 << 4 | words, 0, length, identification, 0, 64, protocol, 0) + addresses + options
    return head[:10] + struct.pack("!H", ones_complement(head)) + head[12:] + payload


def ipv6(source: str, to: str, next_header: int, payload: bytes) -> bytes:
    """Return an IPv6 packet; `next_header` says what `payload` begins with."""
    head = struct.pack("!IHBB", 6 << 28, len(payload), next_header, 64)
    return head + ip_address(source).packed + ip_address(to).packed + payload


def packet(source: str, to: str, protocol: int, payload: bytes) -> bytes:
    """Return a packet of the family of its addresses."""
    return (ipv6 if ":" in to else ipv4)(source, to, protocol, payload)


def transport(source: str, to: str, protocol: int, segment: bytes, checksum_at: int) -> bytes:
    """Return a segment with the checksum, at its place, that covers the addresses too (RFC 768, RFC 8200 8.1)."""
    ends = ip_address(source).packed + ip_address(to).packed
    pseudo = ends + (
        struct.pack("!IHBB", len(segment), 0, 0, protocol)
        if ":" in to
        else struct.pack("!BBH", 0, protocol, len(segment))
    )
    found = ones_complement(pseudo + segment) or 0xFFFF
    return segment[:checksum_at] + struct.pack("!H", found) + segment[checksum_at + 2 :]


def udp_segment(source: str, to: str, source_port: int, port: int, data: bytes = b"raw") -> bytes:
    """Return a UDP datagram."""
    segment = struct.pack("!HHHH", source_port, port, 8 + len(data), 0) + data
    return transport(source, to, socket.IPPROTO_UDP, segment, 6)


def tcp_segment(source: str, to: str, source_port: int, port: int, *, sequence: int, flags: int) -> bytes:
    """Return a TCP segment without data; `flags` as in the header: 2 is SYN, 4 RST, 16 ACK."""
    segment = struct.pack("!HHIIBBHHH", source_port, port, sequence, 1, 5 << 4, flags, 64000, 0, 0)
    return transport(source, to, socket.IPPROTO_TCP, segment, 16)


def crc32c(data: bytes) -> int:
    """Return the checksum of SCTP (RFC 9260, appendix A)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def sctp_init(source_port: int, port: int) -> bytes:
    """Return an SCTP packet with an INIT chunk."""
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 7, 65536, 1, 1, 7)
    head = struct.pack("!HHI", source_port, port, 0)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def send(node: Node, data: bytes) -> None:
    """Send a whole packet from a node, by the route of its destination."""
    version = data[0] >> 4
    if version == 4:
        with made_in(node, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
            sender.sendto(data, (socket.inet_ntop(socket.AF_INET, data[16:20]), 0))
    else:
        with made_in(node, socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
            sender.sendto(data, (socket.inet_ntop(socket.AF_INET6, data[24:40]), 0))


class Ears:
    """Everything of one protocol that a node receives, with its source address."""

    def __init__(self, node: Node, protocol: int, *, ipv6: bool) -> None:
        self._socket = made_in(node, socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_RAW, protocol)
        self._ipv6 = ipv6

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def hears(self, wanted: bytes, seconds: float = 1.0) -> bool:
        """Tell whether something arrives that has these bytes in it."""
        self._socket.settimeout(seconds)
        try:
            while wanted not in self._socket.recv(65535):
                pass
        except TimeoutError:
            return False
        return True
