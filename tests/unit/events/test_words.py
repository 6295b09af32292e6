"""What an entry of the log is in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgd.events import words

FLOW = {
    "event": "open", "verdict": "allow", "client_id": "…", "client": "alice", "src_ip": "10.80.0.2", "src_port": 40112,
    "dst_ip": "10.20.0.10", "dst_port": 443, "proto": "tcp", "rule": "web[0]",
}  # fmt: skip
CLOSED = FLOW | {"event": "close", "tx_bytes": 2048, "rx_bytes": 3, "tx_packets": 2, "rx_packets": 1}
SIX = FLOW | {"src_ip": "fd80::2", "dst_ip": "fd20::10"}
PING = {"event": "deny", "verdict": "deny", "client_id": "…", "client": "bob", "src_ip": "fd80::3", "dst_ip": "fd20::1",
        "proto": "icmpv6", "icmp_type": 128}  # fmt: skip
FORGED = {"event": "deny", "verdict": "deny", "src_ip": "10.80.0.2", "dst_ip": "10.20.0.10", "proto": "proto_89"}
HOSTILE = "\x1b]0;x\x07\u202e\n\x9b"


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (FLOW, "alice opens tcp 10.80.0.2:40112 -> 10.20.0.10:443 (web[0])"),
        (SIX, "alice opens tcp [fd80::2]:40112 -> [fd20::10]:443 (web[0])"),
        (FLOW | {"verdict": "would_deny"}, "alice would be denied tcp 10.80.0.2:40112 -> 10.20.0.10:443"),
        (
            CLOSED | {"duration_ms": 350},
            "alice closes tcp 10.80.0.2:40112 -> 10.20.0.10:443 (web[0]; 2.0 KiB sent, 3 B received in 350 ms)",
        ),
        (PING, "bob is denied icmpv6 type 128 fd80::3 -> fd20::1"),
        (FORGED, "a client that is not known is denied proto_89 10.80.0.2 -> 10.20.0.10 (no known client)"),
        ({"event": "started"}, "the gateway has started"),
        ({"event": "stopped"}, "the gateway has stopped"),
        ({"event": "reloaded"}, "the config was reloaded"),
        ({"event": "reloaded", "detail": "went back"}, "the config was reloaded: went back"),
        (
            {"event": "reloaded", "object": "peer", "action": "added", "detail": "carol"},
            "reloaded: peer carol added",
        ),
        (
            {"event": "drift", "object": "rule", "action": "restored", "detail": "7780", "count": 3},
            "rule 7780 was changed by somebody else: put back (3 of them)",
        ),
        (
            {"event": "drift", "object": "table", "action": "failed", "count": 1},
            "table was changed by somebody else: could not be put back",
        ),
        (
            {"event": "lost", "count": 17, "reason": "overrun"},
            "17 events are missing here: they came faster than they could be read",
        ),
        ({"event": "lost", "count": 1, "reason": "disk_full"}, "1 event is missing here: the log file took no lines"),
        ({"event": "eaten", "rule": "web[0]"}, "web[0]"),
        ({}, ""),
    ],
)
def test_an_entry_is_a_sentence(entry: dict[str, Any], text: str) -> None:
    assert words.sentence(entry) == text


@pytest.mark.parametrize("reason", ["overrun", "disk_full", "rate_limit", "restart"])
def test_every_reason_of_a_loss_is_told(reason: str) -> None:
    assert words.sentence({"event": "lost", "count": 2, "reason": reason}).endswith(words.WHY_LOST[reason])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(HOSTILE) | st.just(10**400),
    lambda children: st.lists(children, max_size=2) | st.dictionaries(st.text(), children, max_size=2),
    max_leaves=3,
)
KEYS = [*CLOSED, "duration_ms", "icmp_type", "object", "action", "detail", "count", "reason"]
EVENTS = ["open", "close", "deny", "packet", "started", "stopped", "reloaded", "drift", "lost"]


@given(st.dictionaries(st.sampled_from(KEYS), VALUES), st.sampled_from(EVENTS) | VALUES)
def test_whatever_stands_in_an_entry_becomes_printable_text(entry: dict[str, Any], event: object) -> None:
    assert words.sentence(entry | {"event": event}).isprintable()


def test_what_is_made_visible_is_still_told_apart() -> None:
    assert words.readable("\x1b[2J \u202e\n\x9b") == r"\x1b[2J \u202e\x0a\x9b"
    assert words.readable("山田 to web") == "山田 to web"
    assert words.readable(json.loads(r'"\ud800"')) == r"\ud800"


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (59_900, "59.9 s"), (60_000, "1 min")]
)
def test_the_life_of_a_flow_is_told_in_a_unit_that_fits(milliseconds: int, text: str) -> None:
    assert words.span(milliseconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h 0 min"), (90000, "1 d 1 h")],
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 30, "1.0 GiB"), (1 << 60, "1048576.0 TiB")],
)
def test_an_amount_has_a_unit(count: int, text: str) -> None:
    assert words.amount(count) == text
