"""What the answers of the daemon look like to a person."""

import re
import time
from typing import Any

import pytest

from wgd.cli import shown

PEER = {
    "name": "alice",
    "public_key": "YWxpY2UuLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4=",
    "allowed_ips": ["10.80.0.2/32"],
    "endpoint": "192.0.2.7:51820",
    "last_handshake": 0.0,
    "live": True,
    "rx_bytes": 2048,
    "tx_bytes": 3,
}
SILENT = PEER | {"name": "bob", "endpoint": None, "last_handshake": None, "live": False, "rx_bytes": 0, "tx_bytes": 0}
LOG = {
    "path": "/log", "events": 9, "lost": 0, "undecoded": 0, "unresolved": 0, "overruns": 0, "unsent": 0, "refused": None
}  # fmt: skip


def answer(**fields: Any) -> dict[str, Any]:
    """Return what Status answers when all is well, with `fields` in place of what is usual."""
    usual = {
        "version": "1.0",
        "started": time.time() - 7500,
        "interface": {"name": "wgd0", "addresses": ["10.80.0.1/24"], "listen_port": 51820, "mtu": 1420, "up": True},
        "authz_mode": "enforce",
        "peers": [PEER | {"last_handshake": time.time() - 61}, SILENT],
        "policy": {"rules": 2, "allow": 5, "clients": 1},
        "dropped": {"denied": 4, "spoofed": 0},
        "event_log": LOG,
        "drift_restored": 0,
        "drift_failed": 0,
        "drift": [],
        "failing": None,
        "neighbours": [],
        "confirm_seconds": None,
    }
    return usual | fields


def lines(*, colour: bool = False, **fields: Any) -> list[str]:
    return [line.strip() for line in shown.status(answer(**fields), colour=colour).splitlines()]


class TestStatus:
    def test_says_everything_in_lines(self) -> None:
        assert lines()[:8] == [
            "interface: wgd0 up, port 51820, MTU 1420",
            "addresses: 10.80.0.1/24",
            "running: for 2 h 5 min, version 1.0",
            "mode: enforce",
            "policy: 2 rules, 5 allow entries, 1 clients with a grant",
            "dropped: 4 packets denied, 0 with a forged client address",
            "event log: /log: 9 events, 0 lost",
            "drift: none seen",
        ]

    def test_lists_peers_in_columns(self) -> None:
        table = shown.status(answer(), colour=False).splitlines()[-3:]
        assert [re.split(r"\s{2,}", line) for line in table] == [
            ["PEER", "ENDPOINT", "HANDSHAKE", "FROM PEER", "TO PEER"],
            ["alice", "192.0.2.7:51820", "1 min ago", "2.0 KiB", "3 B"],
            ["bob", "-", "never", "0 B", "0 B"],
        ]
        assert len({line.index(word) for line, word in zip(table, ("ENDPOINT", "192", "-"), strict=True)}) == 1

    def test_names_a_peer_that_the_config_does_not_by_its_key(self) -> None:
        assert any(line.startswith(PEER["public_key"]) for line in lines(peers=[PEER | {"name": ""}]))

    def test_says_that_there_are_no_peers_and_no_log(self) -> None:
        found = lines(peers=[], event_log=None)
        assert "no peers" in found
        assert "event log: off" in found

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"authz_mode": "observe"}, "mode: observe: nothing is dropped"),
            ({"event_log": LOG | {"lost": 3}}, "event log: /log: 9 events, 3 lost"),
            ({"event_log": LOG | {"overruns": 2}}, "2 times the kernel's queue was full"),
            ({"event_log": LOG | {"unsent": 2}}, "2 lines of the file are not in the journal"),
            ({"event_log": LOG | {"refused": "no space"}}, "no space"),
            ({"drift_restored": 2, "drift_failed": 1}, "drift: 2 changes of others put back, 1 times it could not be"),
            ({"confirm_seconds": 12}, "reload: goes back in 12 s unless confirmed"),
            (
                {"neighbours": [{"where": "table ip filter", "effect": "drops it", "remedy": "Let it pass"}]},
                "in the way: table ip filter: drops it",
            ),
            ({"neighbours": [{"where": "here", "effect": "drops it", "remedy": "Let it pass"}]}, "Let it pass"),
            ({"failing": "wgd0: is gone"}, "failing: wgd0: is gone"),
            (
                {"interface": {"name": "wgd0", "addresses": [], "listen_port": None, "mtu": None, "up": False}},
                "interface: wgd0 down, port none",
            ),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_says_what_is_not_as_usual_and_in_colour_on_a_terminal(self, fields: dict[str, Any], said: str) -> None:
        assert said in lines(**fields)
        plain = shown.status(answer(), colour=True).count("\033")
        assert shown.status(answer(**fields), colour=True).count("\033") >= plain

    def test_shows_the_last_drifts(self) -> None:
        drifts = [
            {"ts": time.time() - 5, "object": "rule", "action": "restored", "detail": f"number {number}"}
            for number in range(8)
        ]
        found = [line for line in lines(drift_restored=8, drift=drifts) if "number" in line]
        assert found[-1] == "restored 5 s ago: rule number 7"
        assert len(found) == shown.LAST_DRIFTS

    def test_has_no_escape_where_colour_is_not_wanted_and_aligns_alike_where_it_is(self) -> None:
        plain, coloured = (shown.status(answer(), colour=colour) for colour in (False, True))
        assert "\033" not in plain
        assert re.sub(r"\033\[\d+m", "", coloured) == plain
        assert plain != coloured


class TestPlan:
    CHANGES = (
        {"object": "peer", "action": "added", "detail": "carol"},
        {"object": "policy", "action": "removed", "detail": "web[0]"},
        {"object": "link", "action": "changed", "detail": "MTU"},
        {"object": "link", "action": "changed", "detail": "listen port"},
    )

    def test_says_that_there_is_nothing_to_do(self) -> None:
        assert shown.plan([], colour=False) == "nothing to do: a reload would change nothing\n"

    def test_lists_each_change_and_counts_them(self) -> None:
        assert shown.plan(self.CHANGES, colour=False).splitlines() == [
            "+ peer    carol",
            "- policy  web[0]",
            "~ link    MTU",
            "~ link    listen port",
            "1 added, 1 removed, 2 changed",
        ]

    def test_is_in_colour_on_a_terminal(self) -> None:
        assert shown.plan(self.CHANGES, colour=True).startswith("\033[32m+\033[0m peer")
