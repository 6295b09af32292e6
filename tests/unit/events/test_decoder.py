from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from event_schema import checked
from hypothesis import given, settings
from hypothesis import strategies as st
from nflog_messages import (
    ALICE,
    DIGEST,
    DONE,
    INTERFACES,
    NOW,
    attribute,
    book,
    config,
    ipv4,
    ipv6,
    message,
    numbered,
    plain_line,
    some_names,
)

from wgd.events import decoder as decoder_module
from wgd.events import resolver as resolver_module
from wgd.events.decoder import Batch, Decoder
from wgd.events.names_book import NamesBook
from wgd.events.resolver import Form
from wgd.model import AllowRule, Policy, Rule
from wgd.policy.names import Names, names

PORTS = struct.pack("!HHI", 50000, 53, 0)
PACKETS = [
    ipv4(),
    ipv4(protocol=17, transport=PORTS),
    ipv4(protocol=1, transport=b"\x08\x00" + bytes(6)),
    ipv4(protocol=47),
    ipv4("10.20.0.10", "10.80.0.2", transport=PORTS),
    ipv4("10.80.0.3", "10.80.0.2"),
    ipv4(options=b"\x01" * 8),
    ipv4(fragment=0x2005),
    ipv4(transport=b""),
    ipv4(protocol=44),
    ipv4("192.0.2.1", "192.0.2.2"),
    ipv6(),
    ipv6(protocol=58, transport=b"\x80\x00" + bytes(6)),
    ipv6(protocol=44, transport=struct.pack("!BBHI", 17, 0, 8, 7)),
    ipv6(protocol=0, transport=bytes((6, 0)) + bytes(6) + PORTS),
    ipv6(protocol=59),
]
CONTEXTS: list[dict[str, Any]] = [
    {},
    {"mark": 0},
    {"ethernet": True, "indev": 2, "outdev": 7},
    {"prefix": f"open would_deny {DIGEST}"},
    {"prefix": f"deny deny {DIGEST}", "outdev": None},
    {"prefix": f"deny deny {DIGEST}", "indev": None, "outdev": 7, "timestamp": None},
    {"prefix": f"deny spoof {DIGEST}", "indev": 2, "outdev": None, "ethernet": True},
    {"prefix": f"packet allow {DIGEST}", "timestamp": (1_767_225_601, 999_999)},
    {"indev": 7, "outdev": 7, "timestamp": (1_767_225_600, 0)},
    {"indev": 9, "outdev": 55},
    {"timestamp": (1_767_225_600, 1_000_000)},
]
SOME: list[dict[str, Any]] = [{"payload": payload, **context} for context in CONTEXTS for payload in PACKETS]


def decode(data: bytes, made: Decoder | None = None, now: int = NOW) -> Batch:
    return (made or decoder()).decode(data, len(data), now)


def decoder(known: NamesBook | None = None, next_sequence: int = 0, **more: Any) -> Decoder:
    return Decoder(known or book(), INTERFACES.get, next_sequence, **more)


@pytest.mark.parametrize("one", SOME, ids=[str(number) for number in range(len(SOME))])
def test_the_first_and_the_following_message_of_a_kind_say_what_the_plain_reading_says(one: dict[str, Any]) -> None:
    batch = decode(numbered([one, one, one]))
    expected = plain_line(message(**one), some_names())
    assert checked(batch.text) == [expected] * 3
    assert (batch.events, batch.lost, batch.undecoded, batch.unresolved) == (3, 0, 0, 0)


@given(st.lists(st.sampled_from(SOME), max_size=40))
@settings(max_examples=50)
def test_messages_in_any_order_say_what_each_says_alone(drawn: list[dict[str, Any]]) -> None:
    made = decoder()
    data = numbered(drawn)
    for _ in range(2):
        made.next_sequence = 0
        batch = decode(data + DONE, made)
        assert checked(batch.text) == [plain_line(message(**one), some_names()) for one in drawn]
        assert batch.events == len(drawn)


def test_the_second_message_of_a_kind_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    made = decoder()
    decode(numbered([{}]), made)
    monkeypatch.setattr(decoder_module, "walk", None)
    assert decode(message(ipv4(transport=PORTS), sequence=1), made).events == 1


def test_the_source_port_does_not_make_a_packet_new(monkeypatch: pytest.MonkeyPatch) -> None:
    made = decoder()
    decode(numbered([{}, {}]), made)
    monkeypatch.setattr(Form, "parts", None)
    other = ipv4(transport=struct.pack("!HHI", 1234, 443, 0))
    (entry,) = checked(decode(message(other, sequence=2), made).text)
    assert entry["src_port"] == 1234


def test_a_client_is_named_in_both_directions() -> None:
    out, back = {"payload": ipv4()}, {"payload": ipv4("10.20.0.10", "10.80.0.2"), "indev": 2, "outdev": 7}
    entries = checked(decode(numbered([out, back])).text)
    assert [entry["client"] for entry in entries] == ["alice", "alice"]
    assert [entry.get("rule") for entry in entries] == ["staff to web[0]", None]


def test_between_two_clients_the_source_is_the_client() -> None:
    (entry,) = checked(decode(message(ipv4("10.80.0.3", "10.80.0.2"), outdev=7)).text)
    assert entry["client"] == "bob"


def test_a_spoofed_source_is_nobodys_denial() -> None:
    (entry,) = checked(decode(message(prefix=f"deny spoof {DIGEST}", indev=2, outdev=None)).text)
    assert (entry["event"], entry["verdict"]) == ("deny", "deny")
    assert "client" not in entry
    assert "client_id" not in entry


def everything_allowed() -> NamesBook:
    known = config()
    rule = Rule("all", (ALICE,), (AllowRule(ip_network("0.0.0.0/0")),))
    made = NamesBook()
    made.add(names(replace(known, policy=Policy((rule,))), DIGEST))
    return made


def test_a_packet_towards_a_client_is_not_covered_by_what_the_client_may_reach() -> None:
    packet = ipv4("10.20.0.10", "10.80.0.2")
    (entry,) = checked(decode(message(packet, indev=2, outdev=7), decoder(everything_allowed())).text)
    assert entry["client"] == "alice"
    assert "rule" not in entry


def test_a_rule_for_a_network_is_not_what_opened_the_gateway_itself() -> None:
    made = decoder(everything_allowed())
    forwarded, delivered = checked(decode(numbered([{}, {"outdev": None}]), made).text)
    assert forwarded["rule"] == "all[0]"
    assert "rule" not in delivered


@pytest.mark.parametrize("prefix", ["open would_deny", "deny deny"])
def test_only_what_was_allowed_has_a_rule(prefix: str) -> None:
    (entry,) = checked(decode(message(prefix=f"{prefix} {DIGEST}")).text)
    assert "rule" not in entry


def test_events_queued_across_a_reload_resolve_against_the_policy_that_logged_them() -> None:
    known = book(Names("00000001", "wgd0"))
    made = decoder(known)
    old, new = {"prefix": f"open allow {DIGEST}"}, {"prefix": "open allow 00000001"}
    entries = checked(decode(numbered([old, new, old, new]), made).text)
    assert [entry.get("client") for entry in entries] == ["alice", None, "alice", None]


def test_new_names_are_used_from_the_next_read_on() -> None:
    known = book()
    made = decoder(known)
    decode(message(sequence=0), made)
    renamed = some_names()
    known.add(replace(renamed, clients=(renamed.clients[0]._replace(name="alicia"), *renamed.clients[1:])))
    (entry,) = checked(decode(message(sequence=1), made).text)
    assert entry["client"] == "alicia"


def test_a_policy_whose_names_are_not_known_gives_a_line_without_them_and_is_counted() -> None:
    one = {"prefix": "open allow 99999999"}
    batch = decode(numbered([one, one]))
    assert all("client" not in entry for entry in checked(batch.text))
    assert (batch.events, batch.unresolved) == (2, 2)


def test_a_renamed_interface_is_asked_for_again_after_some_seconds() -> None:
    known = dict(INTERFACES)
    made = Decoder(book(), known.get)
    decode(message(sequence=0), made)
    known[2] = "lan0"
    (same,) = checked(decode(message(sequence=1), made, NOW + 1_000_000_000).text)
    (renamed,) = checked(decode(message(sequence=2), made, NOW + 6_000_000_000).text)
    assert (same["out_iface"], renamed["out_iface"]) == ("eth0", "lan0")


def test_what_is_known_stays_known_while_interfaces_keep_their_names() -> None:
    made = decoder()
    decode(numbered([{}, {}]), made)
    decode(message(sequence=2), made, NOW + 6_000_000_000)
    assert kept(made) == 1


def test_a_message_without_a_time_has_that_of_its_reception() -> None:
    (entry,) = checked(decode(message(timestamp=None)).text)
    assert entry["ts"] == "2026-01-01T00:00:00.000000Z"


def test_a_gap_in_the_numbers_is_a_line_where_the_lost_ones_would_have_stood() -> None:
    batch = decode(message(sequence=0) + message(sequence=5) + message(sequence=6))
    entries = checked(batch.text)
    assert [(entry["event"], entry.get("count")) for entry in entries] == [
        ("open", None),
        ("lost", 4),
        ("open", None),
        ("open", None),
    ]
    assert entries[1]["reason"] == "overrun"
    assert (batch.events, batch.lost) == (3, 4)


def test_a_gap_is_seen_from_one_read_to_the_next() -> None:
    made = decoder()
    decode(message(sequence=0), made)
    assert decode(message(sequence=2), made).lost == 1


def test_numbers_go_on_from_zero_after_the_last() -> None:
    batch = decode(message(sequence=2**32 - 1) + message(sequence=0), decoder(next_sequence=2**32 - 1))
    assert (batch.events, batch.lost) == (2, 0)


def test_a_group_that_was_bound_anew_has_lost_nothing() -> None:
    assert decode(message(sequence=0), decoder(next_sequence=1000)).lost == 0


def test_what_a_predecessor_lost_has_its_own_reason_and_later_gaps_have_not() -> None:
    made = decoder(next_sequence=10, first_reason="restart")
    entries = checked(decode(message(sequence=12) + message(sequence=14), made).text)
    assert [entry.get("reason") for entry in entries] == ["restart", None, "overrun", None]


@pytest.mark.parametrize(
    "data",
    [
        message(prefix="somebody else's"),
        message(prefix=None),
        message(prefix=f"deny allow {DIGEST}"),
        message(b""),
        message(b"\x45"),
        struct.pack("=IHHII", 16, 0x0102, 0, 0, 0),
        message()[:-40],
        struct.pack("=IHHII", 20, 0x0400, 0, 0, 0) + b"\2\0\0\0",
        message() + b"\0" * 7,
    ],
)
def test_what_cannot_be_decoded_is_counted_once(data: bytes) -> None:
    batch = decode(data)
    assert batch.undecoded == 1
    assert batch.lost == 0


def test_an_undecoded_message_does_not_look_like_a_lost_one() -> None:
    foreign, broken = message(prefix="x", sequence=1), bytearray(message(sequence=2))
    struct.pack_into("=H", broken, 20, 60000)
    batch = decode(message(sequence=0) + foreign + bytes(broken) + message(sequence=3))
    assert (batch.events, batch.lost, batch.undecoded) == (2, 0, 2)


def test_hostile_names_cannot_break_a_line() -> None:
    hostile = 'x"},\n\x1b[2J\x9b'
    made = some_names()
    known = NamesBook()
    known.add(replace(made, clients=(made.clients[0]._replace(name=hostile),)))
    text = decode(message(), decoder(known)).text
    (entry,) = checked(text)
    assert entry["client"] == hostile
    assert b"\x1b" not in text
    assert "\x9b" not in text.decode()


def kept(made: Decoder) -> int:
    """How many lines' parts a decoder keeps."""
    return sum(len(form.known) for form in made._forms.values())


def test_a_scan_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_module, "MAX_KNOWN", 100)
    made = decoder()
    most = 0
    for port in range(1000):
        packet = ipv4(transport=struct.pack("!HHI", 40000, port, 0))
        assert decode(message(packet, sequence=port), made).events == 1
        most = max(most, kept(made))
    assert most == 100


def test_foreign_log_prefixes_and_lengths_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_HEADS", "MAX_LENGTHS"):
        monkeypatch.setattr(decoder_module, name, 10)
    monkeypatch.setattr(resolver_module, "MAX_CONTEXTS", 10)
    made = decoder()
    for number in range(100):
        prefix = f"deny deny {'x' * number}"
        decode(message(prefix=prefix, indev=number, sequence=number), made)
        assert len(made._heads) <= 10
        assert len(made._layouts) <= 10
        assert len(made._resolver._contexts) <= 10


@given(st.sampled_from(SOME), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=400)
def test_changed_bytes_give_valid_lines_or_counts_and_the_same_by_both_ways(
    one: dict[str, Any], changes: list[tuple[int, int]]
) -> None:
    changed = bytearray(message(**one))
    for place, byte in changes:
        changed[place % len(changed)] = byte
    data = bytes(changed)
    learned, fresh = decoder(), decoder()
    decode(message(**one), learned)
    learned.next_sequence = 0
    first, second = decode(data, fresh), decode(data, learned)
    checked(first.text)
    assert first == second


@pytest.mark.parametrize("payload", [ipv4(), ipv6()], ids=["ipv4", "ipv6"])
def test_whatever_byte_is_changed_both_ways_say_the_same(payload: bytes) -> None:
    usual = message(payload)
    for place in range(len(usual)):
        for byte in {usual[place] ^ 1, usual[place] ^ 0x80, 0, 1, 4, 5, 8, 12, 0xFF} - {usual[place]}:
            changed = usual[:place] + bytes((byte,)) + usual[place + 1 :]
            learned = decoder()
            decode(usual, learned)
            learned.next_sequence = 0
            assert decode(changed, learned) == decode(changed), f"byte {byte} at {place}"


def in_order(attributes: list[tuple[int, bytes]]) -> bytes:
    body = b"\2\0\0\x64" + b"".join(attribute(kind, value) for kind, value in attributes)
    return struct.pack("=IHHII", 16 + len(body), 0x0400, 0, 0, 0) + body


PREFIXES = st.sampled_from([f"{start} {DIGEST}\0".encode() for start in ("deny deny", "open allow")])
ATTRIBUTES = st.lists(
    st.one_of(
        st.tuples(st.just(10), PREFIXES),
        st.tuples(st.sampled_from([2, 4, 5]), st.sampled_from([b"\0\0\0\2", b"\0\0\0\7"])),
        st.tuples(st.just(12), st.just(bytes(4))),
        st.tuples(st.just(9), st.sampled_from([ipv4(), ipv4("10.20.0.10", "10.80.0.2"), ipv4(protocol=1)])),
    ),
    max_size=8,
)


@given(ATTRIBUTES.flatmap(lambda one: st.tuples(st.just(one), st.permutations(one))), ATTRIBUTES)
@settings(max_examples=150)
def test_attributes_in_any_order_and_number_are_read_as_the_walk_reads_them(
    permuted: tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]], other: list[tuple[int, bytes]]
) -> None:
    learned = decoder()
    for attributes in (*permuted, other, *permuted, other):
        data = in_order(attributes)
        learned.next_sequence = 0
        assert decode(data, learned) == decode(data)


@pytest.mark.parametrize("place", range(4))
def test_an_attribute_in_an_unusual_place_is_not_overlooked(place: int) -> None:
    usual = [(1, bytes(4)), (12, bytes(4)), (9, ipv4())]
    prefixes = [(10, f"{start} {DIGEST}\0".encode()) for start in ("deny deny", "open allow")]
    made = decoder()
    for prefix in (*prefixes, *prefixes):
        made.next_sequence = 0
        (entry,) = checked(decode(in_order([*usual[:place], prefix, *usual[place:]]), made).text)
        assert prefix[1].decode().startswith(f"{entry['event']} {entry['verdict']} ")


def test_a_layout_is_learned_once() -> None:
    made = decoder()
    decode(numbered([{"indev": number} for number in range(100)]), made)
    assert [len(layouts) for layouts in made._layouts.values()] == [1]


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_without_an_error(data: bytes) -> None:
    checked(decode(data).text)


HEADER = struct.Struct("=IHHII")
MALFORMED_LENGTHS = st.sampled_from([0, 1, 15, 16, 17, 19, 20, 21, 1 << 16, (1 << 32) - 1])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """One message: whole, with changed bytes, cut, with bytes behind it, or with a false length."""
    data = bytearray(message(**draw(st.sampled_from(SOME))))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    kind = draw(st.sampled_from(["whole", "whole", "cut", "longer", "false length", "false attribute"]))
    if kind == "cut":
        del data[draw(st.integers(0, len(data))) :]
    elif kind == "longer":
        data += draw(st.binary(max_size=40))
    elif kind == "false length" and len(data) >= 4:
        length = draw(MALFORMED_LENGTHS | st.integers(0, 2 * len(data)))
        struct.pack_into("=I", data, 0, length)
    elif kind == "false attribute":
        struct.pack_into("=H", data, draw(st.integers(5, len(data) // 4 - 1)) * 4, draw(st.integers(0, 65535)))
    return bytes(data)


def messages_in(data: bytes) -> int:
    """How many netlink messages that say something a datagram holds, and one more for what is none at its end."""
    count = 0
    while len(data) >= 16:
        length, kind, *_ = HEADER.unpack_from(data)
        if not 16 <= length <= len(data):
            break
        count += kind not in (1, 3)
        data = data[(length + 3) & ~3 :]
    return count + bool(data)


@given(st.lists(mutated(), max_size=6))
@settings(max_examples=400)
def test_of_any_datagram_every_message_is_a_valid_line_or_counted(datagram: list[bytes]) -> None:
    data = b"".join(datagram)
    learned = decoder()
    for one in (decode(data, learned), decode(data, learned), decode(data)):
        told = [entry for entry in checked(one.text) if entry["event"] != "lost"]
        assert len(told) == one.events
        assert one.events + one.undecoded == messages_in(data)
