"""The commands that ask the daemon: what they send, what they exit with, and that they never hang."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from answering_daemon import Daemon

from wgd.cli import call as module
from wgd.cli.server import main

INTERFACE = "io.wgd.Server"


def asked(daemon: Daemon, answer: bytes | dict[str, Any] | None, *words: str) -> int:
    daemon.answer = json.dumps(answer).encode() + b"\0" if isinstance(answer, dict) else answer
    return main([words[0], "--socket", str(daemon.path), *words[1:]])


def test_reload_is_0_when_it_is_applied(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(daemon, {"parameters": {}}, "reload") == 0
    assert daemon.calls == [{"method": f"{INTERFACE}.Reload", "parameters": {}}]
    assert capsys.readouterr() == ("reloaded\n", "")


def test_reload_sends_the_time_to_confirm(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(daemon, {"parameters": {}}, "reload", "--confirm", "60") == 0
    assert daemon.calls[0]["parameters"] == {"confirm": 60}
    assert "in 60 seconds unless you run: wgd-server confirm" in capsys.readouterr().out


@pytest.mark.parametrize("seconds", ["0", "-5", "86401", "1.5", "soon", "", "٣", "007"])
def test_a_time_that_is_none_is_wrong_usage(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["reload", f"--confirm={seconds}"])
    assert ended.value.code == 2
    assert "1 to 86400" in capsys.readouterr().err


def test_reload_is_1_with_every_reason_when_it_is_refused(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"error": f"{INTERFACE}.Refused", "parameters": {"reasons": ["a:1: wrong", "a:2: wrong too"]}}
    assert asked(daemon, answer, "reload") == 1
    said = capsys.readouterr()
    assert said.err == "a:1: wrong\na:2: wrong too\nrefused: wgd-server goes on with what it had\n"
    assert said.out == ""


@pytest.mark.parametrize(
    ("answer", "code"),
    [({"parameters": {}}, 0), ({"error": f"{INTERFACE}.Refused", "parameters": {"reasons": ["a:1: wrong"]}}, 1)],
)
def test_reload_by_the_unit_says_nothing_twice(
    daemon: Daemon,
    answer: dict[str, Any],
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ExecReload writes into the same journal as the daemon, which has said it."""
    monkeypatch.setattr(module, "is_journal", lambda _: True)
    assert asked(daemon, answer, "reload") == code
    assert capsys.readouterr() == ("", "")


def test_confirm_is_1_when_there_is_nothing_to_confirm(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(daemon, {"error": f"{INTERFACE}.NothingToConfirm", "parameters": {}}, "confirm") == 1
    assert capsys.readouterr().err == "no reload waits to be confirmed\n"


def test_confirm_is_0_when_it_is_done(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(daemon, {"parameters": {}}, "confirm") == 0
    assert capsys.readouterr().out == "confirmed\n"


def test_status_as_json_is_what_the_daemon_says(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(daemon, {"parameters": {"status": {"version": "1"}}}, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"version": "1"}


def test_plan_shows_the_changes(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [{"object": "peer", "action": "added", "detail": "carol"}]
    assert asked(daemon, {"parameters": {"changes": changes}}, "plan") == 0
    assert capsys.readouterr().out == "+ peer  carol\n1 added\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 400 Bad Request\0", "no wgd-server"),
        ({"error": f"{INTERFACE}.Failed", "parameters": {"reason": "wgd0: is gone"}}, "cannot tell: wgd0: is gone"),
        ({"error": "org.varlink.service.PermissionDenied"}, "only root and the daemon's own user"),
        ({"error": "org.varlink.service.MethodNotFound"}, "of another version"),
    ],
    ids=["nothing", "no-varlink", "failed", "denied", "unknown"],
)
def test_an_answer_that_is_none_is_4_and_said_in_a_word(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], answer: bytes | dict[str, Any], said: str
) -> None:
    assert asked(daemon, answer, "status") == 4
    output = capsys.readouterr()
    assert said in output.err
    assert output.out == ""
    assert len(output.err.splitlines()) == 1


def test_a_daemon_that_does_not_answer_is_4_after_a_while(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.05)
    assert asked(daemon, None, "status") == 4
    assert "has not answered within 0.05 seconds" in capsys.readouterr().err


EXPLANATION = {
    "client": "alice", "public_key": "…", "destination": "10.20.0.10", "protocol": "tcp", "port": 443,
    "incoming": False,
    "authz_mode": "enforce",
    "config": {"verdict": "allow", "rule": "web[0]", "reasons": []},
    "kernel": {"verdict": "allow", "rule": None, "reasons": []},
    "agree": True,
    "neighbours": [],
}  # fmt: skip
NO = {"verdict": "deny", "rule": None, "reasons": ["no rule covers it"]}


@pytest.mark.parametrize(
    ("changed", "code", "first"),
    [
        ({}, 0, "allowed: alice to 10.20.0.10, tcp port 443"),
        ({"config": NO, "kernel": NO}, 1, "denied: alice to 10.20.0.10, tcp port 443"),
        ({"kernel": NO, "agree": False}, 3, "config and kernel disagree: alice to 10.20.0.10, tcp port 443"),
        ({"config": NO, "agree": False}, 3, "config and kernel disagree: alice to 10.20.0.10, tcp port 443"),
    ],
    ids=["allowed", "denied", "lost", "leaking"],
)
def test_explain_exits_with_the_answer_and_shows_both(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], changed: dict[str, Any], code: int, first: str
) -> None:
    found = EXPLANATION | changed
    assert (
        asked(daemon, {"parameters": {"explanation": found}}, "explain", "alice", "10.20.0.10", "--port", "443") == code
    )
    said = capsys.readouterr().out.splitlines()
    assert said[0] == first
    for name in ("config", "kernel"):
        assert f"  {name}: {found[name]['verdict']}" in [line.removesuffix(", by web[0]") for line in said]
    assert ("          no rule covers it" in said) == bool(changed)


def test_explain_as_json_exits_alike(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    found = EXPLANATION | {"config": NO, "agree": False}
    assert asked(daemon, {"parameters": {"explanation": found}}, "explain", "alice", "10.20.0.10", "--json") == 3
    assert json.loads(capsys.readouterr().out) == found


def test_explain_says_in_observe_that_nothing_is_dropped(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    found = EXPLANATION | {"authz_mode": "observe"}
    asked(daemon, {"parameters": {"explanation": found}}, "explain", "alice", "10.20.0.10")
    assert "observe: nothing is dropped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "parameters"),
    [
        ((), {}),
        (("--port", "443"), {"protocol": "tcp", "port": 443}),
        (("--proto", "udp", "--port", "53"), {"protocol": "udp", "port": 53}),
        (("--proto", "icmp"), {"protocol": "icmp"}),
        (("--proto", "47"), {"protocol": "47"}),
    ],
    ids=" ".join,
)
def test_explain_asks_what_was_meant(daemon: Daemon, words: tuple[str, ...], parameters: dict[str, Any]) -> None:
    asked(daemon, {"parameters": {"explanation": EXPLANATION}}, "explain", "alice", "10.20.0.10", *words)
    assert daemon.calls[0]["parameters"] == {"client": "alice", "destination": "10.20.0.10", **parameters}


def test_explain_asks_what_may_begin_towards_a_client(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    found = EXPLANATION | {"incoming": True, "destination": "10.20.0.5", "port": 22}
    words = ("explain", "alice", "--from", "10.20.0.5", "--port", "22")
    assert asked(daemon, {"parameters": {"explanation": found}}, *words) == 0
    assert daemon.calls[0]["parameters"] == {
        "client": "alice", "destination": "10.20.0.5", "protocol": "tcp", "port": 22, "incoming": True
    }  # fmt: skip
    assert capsys.readouterr().out.startswith("allowed: 10.20.0.5 to alice, tcp port 22")


@pytest.mark.parametrize(
    "words",
    [
        ("alice",),
        ("alice", "10.20.0.10", "--from", "10.20.0.5"),
        ("alice", "web.example"),
        ("alice", "10.20.0.0/24"),
        ("alice", "10.20.0.10", "--proto", "tpc"),
        ("alice", "10.20.0.10", "--proto", "256"),
        ("alice", "10.20.0.10", "--port", "0"),
        ("alice", "10.20.0.10", "--port", "65536"),
        ("alice", "10.20.0.10", "--proto", "icmp", "--port", "80"),
    ],
    ids=" ".join,
)
def test_explain_of_what_cannot_be_asked_is_wrong_usage(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["explain", *words])
    assert ended.value.code == 2


def test_explain_of_nobody_is_4(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"error": f"{INTERFACE}.UnknownClient", "parameters": {"client": "nobody"}}
    assert asked(daemon, answer, "explain", "nobody", "10.20.0.10") == 4
    assert capsys.readouterr().err == "no peer has the name or public key nobody\n"


@pytest.mark.parametrize("command", ["status", "plan", "reload", "confirm"])
def test_without_a_daemon_it_is_4_with_a_plain_word(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(stale))
    for path in (tmp_path / "none", stale):
        assert main([command, "--socket", str(path)]) == 4
        assert capsys.readouterr() == ("", f"{path}: no wgd-server runs here: systemctl start wgd-server\n")


def test_explain_names_what_is_in_the_way(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    docker = {"where": "table ip filter, chain FORWARD", "effect": "its policy drops it", "remedy": "Let it pass"}
    found = EXPLANATION | {"neighbours": [docker]}
    asked(daemon, {"parameters": {"explanation": found}}, "explain", "alice", "10.20.0.10")
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == [
        "  in the way: table ip filter, chain FORWARD: its policy drops it",
        "          Let it pass",
    ]
