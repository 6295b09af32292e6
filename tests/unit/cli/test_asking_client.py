"""The commands of wgd-client that ask a running daemon: what they print, and what they exit with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answering_daemon import Daemon

from wgd.cli.client import main
from wgd.host import control

INTERFACE = "io.wgd.Client"
STATUS: dict[str, Any] = {
    "name": "office",
    "version": "1",
    "started": 0.0,
    "interface": {"name": "wgd-office", "addresses": ["10.80.0.2/32"], "listen_port": 51821, "mtu": 1420, "up": True},
    "gateway": {
        "endpoints": ["gw.example.org:51820"],
        "public_key": "the key",
        "allowed_ips": ["10.20.0.0/24"],
        "endpoint": "192.0.2.1:51820",
        "last_handshake": 5.0,
        "live": True,
        "rx_bytes": 2048,
        "tx_bytes": 7,
    },
    "trouble": None,
    "failing": None,
}


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that makes a connection's daemon answer, as often as once."""
    monkeypatch.setattr(control, "CLIENT_CONTROL_SOCKETS", tmp_path)
    made = []

    def begin(name: str, answer: dict[str, Any]) -> Daemon:
        daemon = Daemon(tmp_path / f"{name}.control")
        daemon.answer = json.dumps(answer).encode() + b"\0"
        made.append(daemon)
        return daemon

    yield begin
    for daemon in made:
        daemon.close()


Serve = Callable[[str, dict[str, Any]], Daemon]


def test_reload_is_0_when_it_is_applied(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    daemon = serve("office", {"parameters": {}})
    assert main(["reload", "office"]) == 0
    assert daemon.calls == [{"method": f"{INTERFACE}.Reload", "parameters": {}}]
    assert capsys.readouterr() == ("reloaded\n", "")


def test_reload_is_1_with_every_reason_when_it_is_refused(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    serve("office", {"error": f"{INTERFACE}.Refused", "parameters": {"reasons": ["a:1: wrong"]}})
    assert main(["reload", "office"]) == 1
    assert capsys.readouterr() == ("", "a:1: wrong\nrefused: wgd-client@office goes on with what it had\n")


def test_reload_is_4_where_no_daemon_runs(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    del serve
    assert main(["reload", "office"]) == 4
    assert "no wgd-client@office runs here: systemctl start wgd-client@office" in capsys.readouterr().err


def test_status_shows_what_an_operator_asks_first(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    serve("office", {"parameters": {"status": STATUS}})
    assert main(["status", "office"]) == 0
    shown = capsys.readouterr().out
    for line in (
        "connection: office connected",
        " interface: wgd-office up, port 51821, MTU 1420",
        "  endpoint: 192.0.2.1:51820 (of gw.example.org:51820)",
        "   traffic: 2.0 KiB from the gateway, 7 B to it",
        "    routes: 10.20.0.0/24",
    ):
        assert line in shown.splitlines()


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"gateway": None}, "   gateway: is no peer of the interface"),
        ({"gateway": {**STATUS["gateway"], "endpoint": None}}, "  endpoint: none yet of gw.example.org:51820"),
        ({"gateway": {**STATUS["gateway"], "last_handshake": None}}, " handshake: never"),
        ({"gateway": {**STATUS["gateway"], "live": False}, "trouble": "no answer"}, "   trouble: no answer"),
        ({"failing": "wgd-office is gone"}, "   failing: wgd-office is gone"),
    ],
)
def test_status_says_what_is_not_as_it_should_be(
    serve: Serve, capsys: pytest.CaptureFixture[str], changed: dict[str, Any], line: str
) -> None:
    serve("office", {"parameters": {"status": {**STATUS, **changed}}})
    assert main(["status", "office"]) == 0
    assert line in capsys.readouterr().out.splitlines()


def test_status_without_a_name_shows_every_connection(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("office", "home"):
        serve(name, {"parameters": {"status": {**STATUS, "name": name}}})
    assert main(["status", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == ["home", "office"]


def test_status_without_a_name_says_which_does_not_answer_and_shows_the_others(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve("office", {"parameters": {"status": STATUS}})
    (tmp_path / "gone.control").touch()
    assert main(["status"]) == 4
    said = capsys.readouterr()
    assert "connection: office connected" in said.out
    assert "no wgd-client@gone runs here" in said.err


def test_status_without_a_name_is_4_where_nothing_runs(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    del serve
    assert main(["status"]) == 4
    assert capsys.readouterr() == ("", "no wgd-client runs here: systemctl start wgd-client@NAME\n")
