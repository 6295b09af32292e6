"""From what the kernel tells of a flow to its `close` line."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from event_schema import checked
from flow_messages import BEGAN, DELIVERED, ENDED, FORWARDED, attribute, flow
from hypothesis import given, settings
from hypothesis import strategies as st
from nflog_messages import ALICE, BOB, NOW, book, config

from wgd.events import flow_decoder as module
from wgd.events.flow_decoder import FlowDecoder
from wgd.events.names_book import NamesBook
from wgd.model import AllowRule, Policy, PortRange, Rule
from wgd.policy.names import names

HOST = ip_network("10.20.0.10/32")
LINE = {
    "ts": "2025-12-31T23:59:59.499999Z",
    "event": "close",
    "verdict": "allow",
    "client_id": str(ALICE),
    "client": "alice",
    "src_ip": "10.80.0.2",
    "src_port": 40000,
    "dst_ip": "10.20.0.10",
    "dst_port": 443,
    "proto": "tcp",
    "rule": "staff to web[0]",
    "tx_packets": 10,
    "tx_bytes": 1500,
    "rx_packets": 8,
    "rx_bytes": 90_000,
    "duration_ms": 1999,
}


def decode(data: bytes, made: FlowDecoder | None = None) -> list[dict[str, Any]]:
    """Return the lines of messages, which the short way must make too as the plain walk does."""
    decoder = made or FlowDecoder(book())
    first = decoder.decode(data, len(data), NOW)
    assert decoder.decode(data, len(data), NOW) == first
    assert first.undecoded == first.unresolved == first.lost == 0
    return checked(first.text)


def a_book(*policies: tuple[int, Rule]) -> NamesBook:
    made = NamesBook()
    for since, rule in policies:
        made.add(names(replace(config(), policy=Policy((rule,))), rule.name or ""), since)
    return made


def test_a_flow_is_named_as_at_its_open_with_what_was_counted() -> None:
    assert decode(flow()) == [LINE]


WITHOUT_PORTS = {"src_port": None, "dst_port": None}
COUNTS = ("tx_packets", "tx_bytes", "rx_packets", "rx_bytes")
PING = {**WITHOUT_PORTS, "proto": "icmp", "rule": "staff to web[2]"}
IPV6 = {"src_ip": "fd80::2", "dst_ip": "fd20::10"}
DIFFERENCES: dict[str, tuple[bytes, dict[str, object]]] = {
    "udp": (flow(protocol=17), {"proto": "udp", "rule": None}),
    "icmp": (flow(protocol=1), {**PING, "icmp_type": 8}),
    "icmp type 0": (flow(protocol=1, icmp_type=0), {**PING, "icmp_type": 0}),
    "no ports": (flow(protocol=47), {**WITHOUT_PORTS, "proto": "proto_47", "rule": None}),
    "ipv6": (flow("fd80::2", "fd20::10"), {**IPV6, "rule": "server.d/alice.yaml:policy.rules[0].allow[0]"}),
    "icmpv6": (
        flow("fd80::2", "fd20::10", 58, icmp_type=128),
        {**WITHOUT_PORTS, **IPV6, "proto": "icmpv6", "icmp_type": 128, "rule": "staff to web[3]"},
    ),
    "masqueraded": (flow(answered=("10.20.0.1", 61000)), {}),
    "redirected": (flow(asked=("203.0.113.9", 80)), {}),
    "no times": (flow(times=(None, None)), {"ts": "2026-01-01T00:00:00.000000Z", "duration_ms": None}),
    "still there": (
        flow(times=(BEGAN, None), kind=0x0100),
        {"ts": "2026-01-01T00:00:00.000000Z", "duration_ms": 2500},
    ),
    "clock set back": (flow(times=(ENDED, BEGAN)), {"ts": "2025-12-31T23:59:57.500000Z", "duration_ms": 0}),
    "no counts": (flow(sent=None, received=None), dict.fromkeys(COUNTS)),
    "nobody's": (
        flow("10.99.0.1", "10.99.0.2"),
        {"client": None, "client_id": None, "rule": None, "src_ip": "10.99.0.1", "dst_ip": "10.99.0.2"},
    ),
}


@pytest.mark.parametrize(("one", "expected"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_flow_says(one: bytes, expected: dict[str, object]) -> None:
    line = {key: value for key, value in {**LINE, **expected}.items() if value is not None}
    assert decode(one) == [line]


def test_what_the_client_sent_is_tx_also_where_the_network_began() -> None:
    incoming = Rule("ssh", (ALICE,), (), allow_from=(AllowRule(HOST, 6, (PortRange(22, 22),)),))
    (line,) = decode(flow("10.20.0.10", "10.80.0.2", ports=(5000, 22)), FlowDecoder(a_book((0, incoming))))
    assert (line["client"], line["rule"]) == ("alice", "ssh.allow_from[0]")
    assert (line["src_ip"], line["tx_packets"], line["rx_packets"]) == ("10.20.0.10", 8, 10)


def test_between_two_clients_the_one_who_began_is_the_client() -> None:
    (line,) = decode(flow("10.80.0.3", "10.80.0.2"))
    assert (line["client_id"], line["tx_packets"]) == (str(BOB), 10)


@pytest.mark.parametrize(("mark", "rule"), [(FORWARDED, "gateway[0]"), (DELIVERED, "gateway[1]")])
def test_only_a_rule_for_one_host_lets_in_what_is_delivered_to_the_gateway(mark: int, rule: str) -> None:
    both = Rule("gateway", (ALICE,), (AllowRule(ip_network("10.20.0.0/24")), AllowRule(HOST)))
    assert decode(flow(mark=mark), FlowDecoder(a_book((0, both))))[0]["rule"] == rule


def test_a_flow_is_named_by_the_policy_in_force_when_it_began() -> None:
    before, after = (Rule(name, (ALICE,), (AllowRule(HOST),)) for name in ("before", "after"))
    decoder = FlowDecoder(a_book((NOW - 9_000, before), (NOW, after)))
    began = {NOW - 9_001: "before", NOW - 9_000: "before", NOW - 1: "before", NOW: "after", NOW + 9: "after"}
    data = b"".join(flow(times=(start, NOW + 99)) for start in began)
    assert [line["rule"] for line in decode(data, decoder)] == [f"{name}[0]" for name in began.values()]


def test_what_began_between_the_names_and_their_ruleset_is_named_by_the_names_before() -> None:
    before, after = Rule("before", (ALICE,), (AllowRule(HOST),)), Rule("after", (ALICE,), (AllowRule(HOST, 17),))
    decoder = FlowDecoder(a_book((0, before), (BEGAN - 1, after)))
    assert decode(flow(), decoder)[0]["rule"] == "before[0]"


def test_a_rule_that_had_ended_let_nothing_in() -> None:
    end = NOW // 10**9
    ended = Rule("first", (ALICE,), (AllowRule(HOST),), until=end)
    decoder = FlowDecoder(a_book((0, ended)))
    data = flow(times=(NOW - 1, NOW)) + flow(times=(NOW, NOW + 5))
    assert [line.get("rule") for line in decode(data, decoder)] == ["first[0]", None]


def test_names_that_come_later_are_heard_of() -> None:
    known = book()
    decoder = FlowDecoder(known)
    assert decode(flow(), decoder)[0]["rule"] == "staff to web[0]"
    later = Rule("later", (ALICE,), (AllowRule(HOST),))
    known.add(names(replace(config(), policy=Policy((later,))), "later"), BEGAN)
    assert decode(flow(), decoder)[0]["rule"] == "later[0]"


def test_without_any_names_the_flow_is_told_and_counted_as_unresolved() -> None:
    data = flow() + flow()
    decoder = FlowDecoder(NamesBook())
    batch = decoder.decode(data, len(data), NOW)
    assert (batch.events, batch.unresolved) == (2, 2)
    assert "client" not in checked(batch.text)[0]


def test_the_second_message_of_a_kind_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = FlowDecoder(book())
    decode(flow(), decoder)
    monkeypatch.setattr(module, "walk", None)
    monkeypatch.setattr(decoder._resolver, "parts", None)
    (line,) = decode(flow(ports=(1234, 443), sent=(7, 8)), decoder)
    assert (line["src_port"], line["tx_packets"]) == (1234, 7)


SOME = [
    flow(),
    flow(protocol=17),
    flow(protocol=1),
    flow("fd80::2", "fd20::10"),
    flow("fd80::2", "fd20::10", 58, icmp_type=128),
    flow(protocol=132),
    flow(protocol=47),
    flow(mark=DELIVERED),
    flow(times=(BEGAN, None), kind=0x0100),
    flow("10.20.0.10", "10.80.0.2"),
]


@given(st.lists(st.sampled_from(SOME), max_size=20))
@settings(max_examples=50)
def test_messages_in_any_order_say_what_each_says_alone(drawn: list[bytes]) -> None:
    assert decode(b"".join(drawn)) == [line for one in drawn for line in decode(one)]


CHANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4)


@given(st.sampled_from(SOME), CHANGES)
@settings(max_examples=300)
def test_a_changed_message_is_read_the_same_in_both_ways_or_counted(one: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(one)
    for place, byte in changes:
        changed[place % len(changed)] = byte
    learned, fresh = FlowDecoder(book()), FlowDecoder(book())
    for known in SOME:
        decode(known, learned)
    first = fresh.decode(bytes(changed), len(changed), NOW)
    assert learned.decode(bytes(changed), len(changed), NOW) == first
    assert first.events + first.undecoded >= 1
    checked(first.text)


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_without_an_error(data: bytes) -> None:
    checked(FlowDecoder(book()).decode(data, len(data), NOW).text)


def test_an_attribute_that_is_there_twice_is_not_believed() -> None:
    one = flow()
    twice = bytearray(one + attribute(8, b"\0\0\0\0"))
    twice[:4] = len(twice).to_bytes(4, "little")
    batch = FlowDecoder(book()).decode(bytes(twice), len(twice), NOW)
    assert (batch.text, batch.undecoded) == (b"", 1)
