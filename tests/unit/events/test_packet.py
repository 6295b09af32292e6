from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nflog_messages import ipv4, ipv6

from wgd.events.packet import Packet, parse_packet

PORTS = struct.pack("!HH", 1, 2)


def parsed(payload: bytes) -> Packet:
    packet = parse_packet(payload)
    assert packet is not None
    return packet


def shown(packet: Packet) -> tuple[int | None, int | None, int | None, int | None]:
    return packet.protocol, packet.source_port, packet.destination_port, packet.icmp_type


@pytest.mark.parametrize("protocol", [6, 17, 33, 132, 136])
def test_protocols_with_ports_show_them(protocol: int) -> None:
    assert shown(parsed(ipv4(protocol=protocol, transport=PORTS))) == (protocol, 1, 2, None)
    assert shown(parsed(ipv6(protocol=protocol, transport=PORTS))) == (protocol, 1, 2, None)


@pytest.mark.parametrize("protocol", [1, 58])
def test_icmp_shows_its_type(protocol: int) -> None:
    assert shown(parsed(ipv4(protocol=protocol, transport=b"\x08\x00"))) == (protocol, None, None, 8)
    assert shown(parsed(ipv6(protocol=protocol, transport=b"\x80\x00"))) == (protocol, None, None, 128)


def test_a_protocol_without_ports_shows_none() -> None:
    assert shown(parsed(ipv4(protocol=47, transport=PORTS))) == (47, None, None, None)


def test_ports_stand_behind_ipv4_options() -> None:
    assert shown(parsed(ipv4(options=b"\x01" * 8, transport=PORTS))) == (6, 1, 2, None)


def test_a_first_fragment_has_ports_and_a_later_one_has_none() -> None:
    assert shown(parsed(ipv4(fragment=0x2000, transport=PORTS))) == (6, 1, 2, None)
    assert shown(parsed(ipv4(fragment=0x2001, transport=PORTS))) == (6, None, None, None)


def test_ipv6_extension_headers_are_passed_over() -> None:
    routing = bytes((60, 0)) + bytes(6)
    destination = bytes((51, 1)) + bytes(14)
    authentication = bytes((6, 4)) + bytes(22)
    chain = bytes((43, 0)) + bytes(6) + routing + destination + authentication
    assert shown(parsed(ipv6(protocol=0, transport=chain + PORTS))) == (6, 1, 2, None)


def test_ipv6_fragments_have_ports_in_the_first_alone() -> None:
    first, later = struct.pack("!BBHI", 17, 0, 1, 7), struct.pack("!BBHI", 17, 0, 8, 7)
    assert shown(parsed(ipv6(protocol=44, transport=first + PORTS))) == (17, 1, 2, None)
    assert shown(parsed(ipv6(protocol=44, transport=later + PORTS))) == (17, None, None, None)


def test_a_chain_cut_short_leaves_the_protocol_unknown() -> None:
    assert shown(parsed(ipv6(protocol=0, transport=b"\x06"))) == (None, None, None, None)


def test_a_packet_cut_before_its_ports_shows_none() -> None:
    assert shown(parsed(ipv4(transport=b"\x00\x01\x00"))) == (6, None, None, None)


def test_the_length_counts_from_the_ip_header_on() -> None:
    assert parsed(ipv4(length=60)).length == 60
    assert parsed(ipv6(length=40)).length == 80


@pytest.mark.parametrize("payload", [b"", ipv4()[:19], ipv6()[:39], b"\x44" + ipv4()[1:], b"\x75" + ipv4()[1:]])
def test_what_is_no_ip_header_is_no_packet(payload: bytes) -> None:
    assert parse_packet(payload) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_read_without_an_error(payload: bytes) -> None:
    packet = parse_packet(payload)
    assert packet is None or len(packet.source) == len(packet.destination)
