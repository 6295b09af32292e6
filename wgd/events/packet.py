"""The first bytes of an IP packet -> addresses, protocol, ports: the plain reading of RFC 791 and RFC 8200."""

from __future__ import annotations

import struct
from typing import NamedTuple

from wgd.model import ICMP, ICMPV6, IPV6_EXTENSION_HEADERS, PORT_PROTOCOLS

_FRAGMENT, _AUTHENTICATION = 44, 51
_IPV4_HEADER = struct.Struct("!BxHxxHxB2x4s4s")
_IPV6_HEADER = struct.Struct("!B3xHBx16s16s")
_PORTS = struct.Struct("!HH")
_IPV4_OFFSET = 0x1FFF
_IPV6_OFFSET = 0xFFF8


class Packet(NamedTuple):
    """What an event line says of a packet. None is what its bytes do not show.

    Addresses are 4 or 16 bytes; `length` is in bytes from the IP header on, as that header says.
    """

    source: bytes
    destination: bytes
    protocol: int | None
    source_port: int | None
    destination_port: int | None
    icmp_type: int | None
    length: int


def parse_packet(payload: bytes) -> Packet | None:
    """Read a packet that begins at its IP header and may be cut short; None when it is no IP header."""
    version = payload[0] >> 4 if payload else 0
    if version == 4 and len(payload) >= _IPV4_HEADER.size:  # noqa: PLR2004 IP version
        return _ipv4(payload)
    if version == 6 and len(payload) >= _IPV6_HEADER.size:  # noqa: PLR2004 IP version
        return _ipv6(payload)
    return None


def _ipv4(payload: bytes) -> Packet | None:
    first, length, fragment, protocol, source, destination = _IPV4_HEADER.unpack_from(payload)
    header_length = 4 * (first & 0xF)
    if header_length < _IPV4_HEADER.size:
        return None
    transport = b"" if fragment & _IPV4_OFFSET else payload[header_length:]
    return Packet(source, destination, protocol, *_ports_and_type(protocol, transport), length)


def _ipv6(payload: bytes) -> Packet:
    _, length, protocol, source, destination = _IPV6_HEADER.unpack_from(payload)
    transport_protocol, transport = _ipv6_transport(protocol, payload[_IPV6_HEADER.size :])
    ports_and_type = _ports_and_type(transport_protocol, transport)
    return Packet(source, destination, transport_protocol, *ports_and_type, length + _IPV6_HEADER.size)


def _ipv6_transport(header: int, rest: bytes) -> tuple[int | None, bytes]:
    """Pass over extension headers: the protocol (None when the bytes end before it) and its bytes."""
    while header in IPV6_EXTENSION_HEADERS:
        if len(rest) < 4:  # noqa: PLR2004 as far as the fragment offset
            return None, b""
        following = rest[0]
        if header == _FRAGMENT and _PORTS.unpack_from(rest)[1] & _IPV6_OFFSET:
            return (None if following in IPV6_EXTENSION_HEADERS else following), b""
        rest = rest[_extension_length(header, rest) :]
        header = following
    return header, rest


def _extension_length(header: int, rest: bytes) -> int:
    if header == _FRAGMENT:
        return 8
    return 4 * (rest[1] + 2) if header == _AUTHENTICATION else 8 * (rest[1] + 1)


def _ports_and_type(protocol: int | None, transport: bytes) -> tuple[int | None, int | None, int | None]:
    if protocol in PORT_PROTOCOLS and len(transport) >= _PORTS.size:
        source_port, destination_port = _PORTS.unpack_from(transport)
        return source_port, destination_port, None
    if protocol in (ICMP, ICMPV6) and transport:
        return None, None, transport[0]
    return None, None, None
