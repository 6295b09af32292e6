"""wgd.daemon.notify against a real datagram socket in the service manager's place."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wgd.daemon import notify
from wgd.errors import HostError

Manager = Callable[[], str]


@pytest.fixture(autouse=True)
def _no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A function that returns the next message the manager got."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(path)
        end.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield lambda: end.recv(4096).decode()


@pytest.mark.parametrize(
    ("call", "message"),
    [(notify.ready, "READY=1"), (notify.stopping, "STOPPING=1"), (notify.watchdog, "WATCHDOG=1")],
)
def test_each_call_is_one_message(manager: Manager, call: Callable[[], None], message: str) -> None:
    call()
    assert manager() == message


def test_a_status_is_one_line_whatever_its_text(manager: Manager) -> None:
    notify.status("degraded:\nREADY=1")
    assert manager() == "STATUS=degraded: READY=1"


def test_reloading_carries_the_monotonic_clock_in_microseconds(manager: Manager) -> None:
    before = time.monotonic_ns() // 1000
    notify.reloading()
    after = time.monotonic_ns() // 1000
    state, clock = manager().splitlines()
    assert state == "RELOADING=1"
    name, value = clock.split("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= after


def test_without_a_manager_nothing_is_sent_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    for call in (notify.ready, notify.reloading, notify.stopping, notify.watchdog):
        call()
    notify.status("fine")
    assert not caplog.records


def test_a_manager_that_cannot_be_reached_is_a_warning_not_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify.ready()
    assert caplog.messages == ["the service manager cannot be told READY=1: No such file or directory"]


def test_the_watchdog_is_fed_at_half_its_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert notify.watchdog_interval() == 15
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert notify.watchdog_interval() == 15


def test_there_is_no_watchdog_without_a_time_out_or_for_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert notify.watchdog_interval() is None
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert notify.watchdog_interval() is None


@pytest.mark.parametrize("value", ["", "0", "-1", "soon", "1.5"])
def test_a_watchdog_time_out_that_is_no_time_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", value)
    with pytest.raises(HostError, match=r"^WATCHDOG_USEC: is not a number of microseconds"):
        notify.watchdog_interval()


def test_a_descriptor_to_be_kept_goes_along_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end, (tmp_path / "file").open("w") as file:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify.keep_descriptor("nflog-100", file.fileno())
        message, (descriptor,), _, _ = socket.recv_fds(end, 4096, 4)
        assert message == b"FDSTORE=1\nFDNAME=nflog-100\nFDPOLL=0"
        assert os.path.sameopenfile(descriptor, file.fileno())
        os.close(descriptor)


def test_what_is_kept_is_let_go_of_by_its_name(manager: Manager) -> None:
    notify.let_go("nflog-100")
    assert manager() == "FDSTOREREMOVE=1\nFDNAME=nflog-100"


TAKE = """
import os, sys
os.environ["LISTEN_PID"] = sys.argv[1] if len(sys.argv) > 1 else str(os.getpid())
from wgd.daemon import notify
print([(name, number, os.get_inheritable(number)) for name, number in notify.kept_descriptors().items()])
print(notify.kept_descriptors())
"""


@pytest.mark.parametrize(
    ("arguments", "found"),
    [((), "[('nflog-100', 3, False), ('nflog-101', 4, False)]"), (("1",), "[]")],
    ids=["ours", "of another process"],
)
def test_what_was_kept_comes_back_once_by_name(arguments: tuple[str, ...], found: str) -> None:
    shell = 'export LISTEN_FDS=2 LISTEN_FDNAMES=nflog-100:nflog-101; exec "$0" -c "$@" 3</dev/null 4</dev/null'
    command = ["sh", "-c", shell, sys.executable, TAKE, *arguments]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.splitlines() == [found, "{}"]
