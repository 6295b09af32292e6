"""An event in the journal's own form."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgd.events.journal import journal_entry

DENIED = {
    "ts": "2026-11-25T14:20:52.123456Z", "event": "deny", "verdict": "deny", "client_id": "KEY=", "client": "alice",
    "src_ip": "10.80.0.2", "src_port": 40112, "dst_ip": "10.20.0.10", "dst_port": 443, "proto": "tcp",
}  # fmt: skip


def fields(datagram: bytes | None) -> dict[str, str]:
    """Read a datagram as journald does."""
    assert datagram is not None
    found, rest = {}, datagram
    while rest:
        name, _, rest = rest.partition(b"\n")
        if b"=" in name:
            name, _, value = name.partition(b"=")
        else:
            (size,) = struct.unpack("<Q", rest[:8])
            value, end, rest = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
            assert end == b"\n"
        assert name.decode() not in found
        found[name.decode()] = value.decode()
    return found


def of(entry: dict[str, Any]) -> dict[str, str]:
    return fields(journal_entry(json.dumps(entry).encode()))


def test_an_entry_has_the_lines_fields_and_a_sentence() -> None:
    assert of(DENIED) == {
        "MESSAGE": "alice is denied tcp 10.80.0.2:40112 -> 10.20.0.10:443",
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "wgd-server",
        "WGD_TS": "2026-11-25T14:20:52.123456Z",
        "WGD_EVENT": "deny",
        "WGD_VERDICT": "deny",
        "WGD_CLIENT_ID": "KEY=",
        "WGD_CLIENT": "alice",
        "WGD_SRC_IP": "10.80.0.2",
        "WGD_SRC_PORT": "40112",
        "WGD_DST_IP": "10.20.0.10",
        "WGD_DST_PORT": "443",
        "WGD_PROTO": "tcp",
    }


@pytest.mark.parametrize(
    ("entry", "priority"),
    [
        ({"event": "open", "verdict": "allow"}, "6"),
        ({"event": "open", "verdict": "would_deny"}, "5"),
        ({"event": "started"}, "6"),
        ({"event": "drift", "action": "restored"}, "4"),
        ({"event": "drift", "action": "failed"}, "3"),
        ({"event": "lost", "count": 1, "reason": "overrun"}, "4"),
    ],
)
def test_what_a_person_should_see_is_more_urgent(entry: dict[str, Any], priority: str) -> None:
    assert of(entry)["PRIORITY"] == priority


@given(st.dictionaries(st.sampled_from([*DENIED, "rule", "detail"]), st.text() | st.just("a\nPRIORITY=0\n")))
def test_no_value_can_add_a_field_or_change_another(entry: dict[str, Any]) -> None:
    found = of(entry)
    assert found.pop("SYSLOG_IDENTIFIER") == "wgd-server"
    assert found.pop("PRIORITY") in "3456"
    assert found.pop("MESSAGE").isprintable()
    assert found == {f"WGD_{key.upper()}": value.encode(errors="replace").decode() for key, value in entry.items()}


def test_a_key_that_is_no_field_name_is_left_out() -> None:
    assert set(of({"event": "open", "_PID": "1", "a b": "1", "x=\n": "1"})) == {
        "MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "WGD_EVENT",
    }  # fmt: skip


def test_what_is_no_line_of_the_log_is_no_entry() -> None:
    assert journal_entry(b"half a li") is None
