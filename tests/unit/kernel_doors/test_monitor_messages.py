import struct

import pytest

from wgd.kernel.monitor import Notice, Subject, _messages, _nftables_notice, _route_notice

RTM_NEWLINK, RTM_DELADDR, RTM_NEWROUTE, RTM_DELRULE, RTM_NEWNEIGH, RTM_NEWNETCONF = 16, 21, 24, 33, 28, 80
NFT_NEWRULE, NFT_NEWGEN, CONNTRACK = 0x0A06, 0x0A0F, 0x0100


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, payload: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, 0, 0, 0) + payload + bytes(-len(payload) % 4)


def route(kind: int, payload: bytes = bytes(16)) -> Notice | None:
    return _route_notice(kind, memoryview(payload))


def test_a_link_is_known_by_its_name() -> None:
    payload = bytes(16) + attribute(4, bytes(4)) + attribute(3, b"wgd0\0")
    assert route(RTM_NEWLINK, payload) == Notice(Subject.LINK, "wgd0")


def test_a_route_is_known_by_its_table_small_or_large() -> None:
    small = bytes([2, 24, 0, 0, 254, 3, 0, 1]) + bytes(4)
    assert route(RTM_NEWROUTE, small) == Notice(Subject.ROUTE, 254)
    assert route(RTM_NEWROUTE, small + attribute(15, struct.pack("=I", 7780))) == Notice(Subject.ROUTE, 7780)


@pytest.mark.parametrize(
    ("kind", "subject"),
    [(RTM_DELADDR, Subject.ADDRESS), (RTM_DELRULE, Subject.RULE), (RTM_NEWNETCONF, Subject.FORWARDING)],
)
def test_other_messages_of_the_routing_are_known_by_their_kind(kind: int, subject: Subject) -> None:
    assert route(kind) == Notice(subject)


def test_what_nobody_asked_for_is_no_notice() -> None:
    assert route(RTM_NEWNEIGH) is None
    assert _nftables_notice(NFT_NEWGEN, memoryview(bytes(4) + attribute(1, bytes(4)))) is None
    assert _nftables_notice(CONNTRACK, memoryview(bytes(4))) is None


@pytest.mark.parametrize(("family", "scope"), [(1, "inet wgd"), (2, "ip wgd"), (10, "ip6 wgd")])
def test_a_change_of_nftables_is_known_by_family_and_table(family: int, scope: str) -> None:
    payload = bytes([family, 0, 0, 0]) + attribute(1, b"wgd\0") + attribute(2, b"prerouting\0")
    assert _nftables_notice(NFT_NEWRULE, memoryview(payload)) == Notice(Subject.TABLE, scope)


def test_every_message_of_a_datagram_is_seen() -> None:
    datagram = message(1, b"abc") + message(2, b"") + message(3, b"defgh")
    assert [(kind, bytes(payload)) for kind, payload in _messages(datagram)] == [(1, b"abc"), (2, b""), (3, b"defgh")]


@pytest.mark.parametrize("length", [0, 15])
def test_a_message_that_is_shorter_than_its_header_ends_the_datagram(length: int) -> None:
    broken = struct.pack("=IHHII", length, 1, 0, 0, 0)
    assert list(_messages(message(7, b"") + broken)) == [(7, memoryview(b""))]


def test_an_attribute_without_a_length_ends_the_search() -> None:
    assert _nftables_notice(NFT_NEWRULE, memoryview(bytes([1, 0, 0, 0]) + bytes(8))) == Notice(Subject.TABLE, "inet ")
