from __future__ import annotations

import json
from ipaddress import IPv6Address

import pytest
from event_schema import checked
from hypothesis import given
from hypothesis import strategies as st

from wgd.events import lines


def test_a_time_has_microseconds_and_is_utc() -> None:
    assert lines.timestamp(1_767_225_600_123_456_789) == "2026-01-01T00:00:00.123456Z"


def test_a_time_beyond_what_can_be_written_is_the_last_that_can() -> None:
    assert lines.timestamp(2**63 * 10**9) == "9999-12-31T23:59:59.000000Z"


@pytest.mark.parametrize("address", ["::", "fd20::10", "2001:db8:0:1::", "1:2:3:4:5:6:7:8"])
def test_an_ipv6_address_is_compressed(address: str) -> None:
    assert lines.address_text(IPv6Address(address).packed) == address


@given(st.text(st.characters()))
def test_any_text_becomes_a_json_string_without_control_characters(text: str) -> None:
    encoded = lines.quoted(text).encode("utf-8")
    assert json.loads(encoded) == text.encode("utf-8", "replace").decode()
    assert not any(character < " " or "\x7f" <= character <= "\x9f" for character in encoded.decode())


def test_readable_text_stays_readable() -> None:
    assert lines.quoted("山田 to web") == '"山田 to web"'


def test_a_line_of_the_gateway_holds_what_was_given_in_order() -> None:
    line = lines.gateway_line(0, "drift", count=2, detail='rule "x"\n', object_="rule", action="restored")
    (entry,) = checked(line.encode())
    assert list(entry) == ["ts", "event", "object", "action", "detail", "count"]
    assert entry["detail"] == 'rule "x"\n'


@pytest.mark.parametrize("event", ["started", "stopped", "reloaded"])
def test_a_line_of_the_gateway_may_hold_nothing_more(event: str) -> None:
    (entry,) = checked(lines.gateway_line(0, event).encode())
    assert entry == {"ts": "1970-01-01T00:00:00.000000Z", "event": event}


@pytest.mark.parametrize("reason", ["overrun", "disk_full", "rate_limit", "restart"])
def test_a_lost_line_says_how_many_and_why(reason: str) -> None:
    (entry,) = checked(lines.lost_line(lines.time_text(0), 7, reason).encode())
    assert (entry["count"], entry["reason"]) == (7, reason)
