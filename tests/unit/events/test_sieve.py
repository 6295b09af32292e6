"""Which lines a filter finds: the same ones by the fast way as by the obvious one, whatever stands in the log."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgd.events import sieve
from wgd.events.entry import NO_FILTER, Filter
from wgd.events.sieve import Sieve
from wgd.model import PortRange

KEYS = ["YWxpY2UuLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4=", "Ym9iLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4="]
NAMES = ["alice", "bob"]
EVENTS = ["open", "close", "deny", "packet", "lost", "drift"]
VERDICTS = ["allow", "deny", "would_deny"]
ADDRESSES = ["10.20.0.10", "10.20.1.1", "fd20::10", "fd20:0:0:1::1"]
NETWORKS = [ip_network(text) for text in ("10.20.0.0/24", "10.20.0.10/32", "0.0.0.0/0", "fd20::/64", "::/0")]
TIMES = [
    "2026-11-25T14:20:52.000000Z",
    "2026-11-25T14:20:52.500000Z",
    "2026-11-25T14:20:52.999999Z",
    "2026-11-25T14:20:53.000000Z",
    "2026-11-26T00:00:00.000000Z",
    "9999-12-31T23:59:59.000000Z",
]
ODD_TIMES = [
    "0001-01-01T00:00:00+09:00",
    "2026-11-25T15:20:52.500000+01:00",
    "2026-02-30T00:00:00.000000Z",
    "2026-11-25T14:20:52",
    "now",
    7,
    None,
]
HOSTILE = [
    'x","event":"deny","verdict":"deny","client":"bob',
    '\\","src_ip":"10.20.0.10',
    ',"src_ip":"10.20.0.10","dst_ip":"10.20.0.10"}',
    "\x1b[2J\n",
    "山田 to web[0]",
    "\\",
    "",
]


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    """Return the members of a line in the documented order, some of them missing, their values sometimes odd."""
    place = draw(st.integers(0, 1))
    whole: dict[str, Any] = {
        "ts": draw(st.sampled_from(TIMES) | st.sampled_from(TIMES + ODD_TIMES)),
        "event": draw(st.sampled_from(EVENTS)),
        "verdict": draw(st.sampled_from(VERDICTS)),
        "client_id": KEYS[place],
        "client": draw(st.sampled_from([NAMES[place], NAMES[place], *HOSTILE])),
        "src_ip": draw(st.sampled_from(ADDRESSES)),
        "src_port": draw(st.integers(0, 3)),
        "dst_ip": draw(st.sampled_from(ADDRESSES)),
        "dst_port": draw(st.sampled_from([443, 80, 8080, True, "443", -1])),
        "proto": draw(st.sampled_from(["tcp", "icmp", "proto_89"])),
        "rule": draw(st.sampled_from(["web[0]", *HOSTILE])),
        "in_iface": "wgd0",
        "length": 60,
    }
    missing = draw(st.just(set()) | st.sets(st.sampled_from(sorted(whole)), max_size=3))
    return {key: value for key, value in whole.items() if key not in missing}


@st.composite
def log_lines(draw: st.DrawFn) -> bytes:
    """Return a line as ours are, or one that says the same in another form, or is no line of any form."""
    entry = draw(entries())
    form = draw(
        st.sampled_from(
            ["ours", "ours", "ours", "late", "late", "escaped", "spaced", "shuffled", "nested", "broken", "garbage"]
        )
    )
    compact = json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode()
    if form == "broken":
        place = draw(st.integers(0, len(compact)))
        return compact[:place] + draw(st.binary(max_size=2)).replace(b"\n", b"") + compact[place + 1 :]
    if form == "shuffled":
        entry = dict(draw(st.permutations(list(entry.items()))))
    if form == "late":
        late = draw(st.sets(st.sampled_from(["verdict", "client_id", "client", "dst_port"])))
        entry = dict(sorted(entry.items(), key=lambda item: item[0] in late))
    if form == "nested":
        entry = {"ts": entry.get("ts"), "x": draw(st.sampled_from(HOSTILE) | st.just(entry)), **entry}
    return {
        "ours": compact,
        "escaped": json.dumps(entry, separators=(",", ":")).replace("verdict", "v\\u0065rdict").encode(),
        "spaced": json.dumps(entry).encode(),
        "garbage": draw(st.binary(max_size=80)).replace(b"\n", b""),
    }.get(form, json.dumps(entry, separators=(",", ":")).encode())


MOMENTS = st.builds(
    lambda micro, hours: (datetime(2026, 11, 25, 14, 20, 52, tzinfo=UTC) + timedelta(microseconds=micro)).astimezone(
        timezone(timedelta(hours=hours))
    ),
    st.sampled_from([0, 1, 499_999, 500_000, 999_999, 1_000_000, 40_000_000_000]),
    st.sampled_from([0, 9]),
)
FILTERS = st.builds(
    Filter,
    clients=st.frozensets(st.sampled_from(NAMES + KEYS + HOSTILE), max_size=2),
    events=st.frozensets(st.sampled_from(EVENTS), max_size=2),
    verdicts=st.frozensets(st.sampled_from(VERDICTS), max_size=2),
    networks=st.lists(st.sampled_from(NETWORKS), max_size=2).map(tuple),
    ports=st.lists(st.sampled_from([PortRange(443, 443), PortRange(1, 443)]), max_size=1).map(tuple),
    since=st.none() | MOMENTS,
    until=st.none() | MOMENTS,
)


@settings(max_examples=400)
@given(
    FILTERS | st.builds(Filter, verdicts=st.frozensets(st.sampled_from(VERDICTS), min_size=1)), st.lists(log_lines())
)
def test_the_fast_way_finds_what_the_obvious_one_does(wanted: Filter, lines: list[bytes]) -> None:
    found = Sieve(wanted)
    expected = [line for line in lines if line and wanted.accepts(line)]
    assert found.hits(lines) == expected
    # Again, with all that has been remembered.
    assert found.hits(lines) == expected


def test_what_is_remembered_is_bounded_and_forgetting_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sieve, "MAX_KEPT", 2)
    lines = [line(client=f"c{number % 7}", second=number % 60) for number in range(500)]
    wanted = Filter(clients=frozenset({"c3"}), networks=(ip_network("10.20.0.0/24"),))
    found = Sieve(wanted)
    assert found.hits(lines) == [text for text in lines if wanted.accepts(text)] != []
    assert max(len(kept) for kept in (found._seconds, found._kinds, found._destinations)) <= 2


def line(client: str = "alice", second: int = 0, **members: Any) -> bytes:
    """Return an `open` of a client, or with other members."""
    entry = {
        "ts": f"2026-11-25T14:20:{second:02d}.000000Z", "event": "open", "verdict": "allow", "client_id": KEYS[0],
        "client": client, "src_ip": "10.80.0.2", "src_port": 40112, "dst_ip": "10.20.0.10", "dst_port": 443,
        "proto": "tcp", "rule": "web[0]", "length": 60,
    }  # fmt: skip
    return json.dumps(entry | members, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("wanted", "other"),
    [
        (Filter(clients=frozenset({"alice"})), {"client": "bob"}),
        (Filter(clients=frozenset({KEYS[0]})), {"client_id": KEYS[1]}),
        (Filter(events=frozenset({"open"})), {"event": "close"}),
        (Filter(verdicts=frozenset({"allow"})), {"verdict": "would_deny"}),
        (Filter(networks=(ip_network("10.20.0.0/24"),)), {"dst_ip": "10.20.1.10"}),
        (Filter(networks=(ip_network("10.20.0.0/24"),)), {"dst_ip": "fd20::10"}),
        (Filter(ports=(PortRange(400, 443),)), {"dst_port": 399}),
        (Filter(since=datetime(2026, 11, 25, 14, 20, tzinfo=UTC)), {"ts": "2026-11-25T14:19:59.999999Z"}),
        (Filter(until=datetime(2026, 11, 25, 14, 20, tzinfo=UTC)), {"ts": "2026-11-25T14:20:00.000001Z"}),
    ],
    ids=["name", "key", "event", "verdict", "network", "family", "port", "since", "until"],
)
def test_each_condition_takes_one_line_and_refuses_another(wanted: Filter, other: dict[str, Any]) -> None:
    assert Sieve(wanted).hits([line(**other), line(), line(**other)]) == [line()]


def test_of_several_values_any_one_is_enough_and_of_several_conditions_each_must_hold() -> None:
    wanted = Filter(clients=frozenset({"alice", "bob"}), events=frozenset({"open"}))
    lines = [line("alice"), line("bob"), line("carol"), line("bob", event="close", rule="x")]
    assert Sieve(wanted).hits(lines) == lines[:2]


def test_without_conditions_every_line_is_found_also_what_is_no_json() -> None:
    assert Sieve(NO_FILTER).hits([b"half a li", b"", line()]) == [b"half a li", line()]


def test_a_rule_named_like_a_member_is_no_member() -> None:
    forged = line(rule='x","verdict":"deny","client":"bob')
    assert Sieve(Filter(verdicts=frozenset({"deny"}))).hits([forged]) == []
    assert Sieve(Filter(clients=frozenset({"bob"}))).hits([forged]) == []


def test_members_of_an_object_within_a_line_are_not_the_lines_own() -> None:
    within = b'{"ts":1,"a":{"b":"%bZ","event":"close","src_ip":"::"},"event":"open"}' % (b"x" * 15)
    assert within.index(b"Z") == line().index(b"Z")
    assert Sieve(Filter(events=frozenset({"open"}))).hits([within]) == [within]
    assert Sieve(Filter(events=frozenset({"close"}))).hits([within]) == []


def test_a_line_nested_too_deep_to_parse_is_passed_over() -> None:
    assert Sieve(Filter(events=frozenset({"open"}))).hits([b"[" * 100_000, line()]) == [line()]
