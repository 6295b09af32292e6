"""Signals that come while a daemon starts: they wait for the loop, and what start did is taken back."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.policy.policy_examples import server_config
from wgd.daemon import client as client_module
from wgd.daemon import server as server_module
from wgd.daemon.client import Client
from wgd.daemon.server import Server


class Started:
    """Stands for Gateway and Connection: SIGHUP and SIGTERM come in the middle of its start."""

    def __init__(self, _: object) -> None:
        self.did: list[str] = []
        self.desired: object = None
        self.handshakes: tuple[float, ...] = ()
        self.nothing = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def prepare(self, config: object, _: object = None) -> object:
        return SimpleNamespace(config=config)

    def start(self, desired: object) -> None:
        self.desired = desired
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        self.did.append("start")

    def reload(self, _: object) -> None:
        self.did.append("reload")

    def stop(self) -> None:
        self.did.append("stop")

    @property
    def monitor(self) -> socket.socket:
        """Nothing is ever notified."""
        return self.nothing

    def neighbours(self) -> tuple[()]:
        return ()

    def use(self, _: object) -> None:
        self.did.append("use")

    def close(self) -> None:
        self.did.append("close")
        self.nothing.close()


@pytest.fixture(autouse=True)
def survives(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where a signal would end the test run, it raises instead."""

    def comes_too_early(number: int, _: object) -> None:
        raise AssertionError(f"nobody waits for {signal.Signals(number).name} yet")

    before = {number: signal.signal(number, comes_too_early) for number in (signal.SIGHUP, signal.SIGTERM)}
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def silence() -> Iterator[SimpleNamespace]:
    """A Reach that never has anything to say."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        nothing = {"begin": lambda _: None, "in_use": lambda _: None, "resolved": lambda: None, "close": lambda: None}
        yield SimpleNamespace(resolver=ear, handshake_done=False, trouble="", **nothing)


def test_the_gateway_serves_them_after_its_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(server_module, "Gateway", Started)
    monkeypatch.setattr(server_module, "CONTROL_SOCKET", tmp_path / "control")
    server = Server(server_config)
    server.run()
    assert server._gateway.did == ["start", "reload", "stop", "close"]


def test_the_gateway_leaves_up_what_it_is_told_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(server_module, "Gateway", Started)
    monkeypatch.setattr(server_module, "CONTROL_SOCKET", tmp_path / "control")
    server = Server(server_config, leave_up=True)
    server.run()
    assert server._gateway.did == ["start", "reload", "close"]


def test_the_client_serves_them_after_its_start(monkeypatch: pytest.MonkeyPatch, silence: SimpleNamespace) -> None:
    config = SimpleNamespace(
        interface=SimpleNamespace(name="wgd-office"), server=SimpleNamespace(endpoints=("192.0.2.1:1",), allowed_ips=())
    )
    monkeypatch.setattr(client_module, "Connection", Started)
    monkeypatch.setattr(client_module, "Reach", lambda _: silence)
    client = Client("office", lambda: config)
    client.run()
    assert client._connection.did == ["start", "reload", "stop", "close"]
