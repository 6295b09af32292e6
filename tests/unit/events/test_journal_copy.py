"""The copy of the event log in the journal, with a datagram socket in the place of the journal's."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from test_recording import Bench, kill

from wgd.daemon import journal_copy
from wgd.daemon.journal_copy import JournalCopy
from wgd.errors import HostError
from wgd.events.lines import gateway_line
from wgd.host.journal import JournalSocket


class Journal:
    """What stands at /run/systemd/journal/socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listen()

    def listen(self) -> None:
        """Make the socket, or another in its place."""
        self.path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(20)

    def event(self) -> str:
        """Return WGD_EVENT of the next entry."""
        (line,) = (line for line in self.socket.recv(1 << 16).splitlines() if line.startswith(b"WGD_EVENT="))
        return line.partition(b"=")[2].decode()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal")
    yield made
    made.socket.close()


@pytest.fixture
def bench(tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("wgd.daemon.recording.RESTART_SECONDS", 0.0)
    monkeypatch.setattr("wgd.daemon.recording.JournalSocket", partial(JournalSocket, journal.path))
    made = Bench(tmp_path / "events.jsonl")
    made.recording.copy_to_journal(wanted=True)
    made.recording.start()
    yield made
    made.close()


def test_what_goes_into_the_file_goes_to_the_journal_too(bench: Bench, journal: Journal) -> None:
    bench.recording.event("started")
    assert journal.event() == "started"
    assert bench.recording.settle().unsent == 0
    assert bench.events() == ["started"]


def test_it_is_switched_off_and_on_without_another_recorder(bench: Bench, journal: Journal) -> None:
    pid = bench.recording.pid
    bench.recording.copy_to_journal(wanted=False)
    bench.recording.event("stopped")
    bench.recording.settle()
    bench.recording.copy_to_journal(wanted=True)
    bench.recording.event("started")
    assert journal.event() == "started"
    assert bench.events() == ["stopped", "started"]
    assert bench.recording.pid == pid


def test_a_journal_that_is_gone_is_counted_and_the_file_has_every_line(bench: Bench, journal: Journal) -> None:
    journal.socket.close()
    bench.recording.event("started")
    assert bench.recording.settle().unsent == 1
    assert bench.events() == ["started"]


def test_a_journal_that_takes_nothing_is_counted_and_holds_nothing_up(bench: Bench) -> None:
    begun = time.monotonic()
    for _ in range(200):
        bench.recording.event("reloaded")
    # Some wait in the socket: as many as its queue takes.
    assert 0 < bench.recording.settle().unsent < 200
    assert bench.events() == ["reloaded"] * 200
    assert time.monotonic() - begun < 20


def test_the_next_recorder_sends_too(bench: Bench, journal: Journal) -> None:
    kill(bench.recording)
    bench.recording.handle()
    bench.recording.event("started")
    assert journal.event() == "started"


def test_another_socket_of_the_journal_is_found_at_the_next_check(bench: Bench, journal: Journal) -> None:
    journal.socket.close()
    journal.listen()
    bench.recording.check()
    bench.recording.event("started")
    assert journal.event() == "started"


def test_a_journal_that_is_just_being_made_is_waited_for(
    bench: Bench, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    journal.socket.close()
    journal.path.unlink()
    journal.path.touch()
    with caplog.at_level(logging.INFO):
        bench.recording.check()
    assert "the journal cannot be reached: Connection refused" in caplog.text
    journal.listen()
    bench.recording.check()
    bench.recording.event("started")
    assert journal.event() == "started"


def test_without_a_journal_it_is_refused_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="nowhere: the journal cannot be reached: No such file or directory"):
        JournalSocket(tmp_path / "nowhere")


class TestCopy:
    @pytest.fixture
    def ends(self) -> Iterator[tuple[socket.socket, JournalCopy]]:
        theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        copy = JournalCopy(ours)
        yield theirs, copy
        copy.close()
        theirs.close()

    @staticmethod
    def lines(count: int) -> bytes:
        return "".join(gateway_line(0, "reloaded", detail=str(number)) for number in range(count)).encode()

    def test_a_flood_is_sent_in_part_and_the_rest_counted(
        self, ends: tuple[socket.socket, JournalCopy], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        theirs, copy = ends
        monkeypatch.setattr(journal_copy, "MOST_A_SECOND", 3)
        monkeypatch.setattr("wgd.daemon.journal_copy.time.monotonic", lambda: 7.0)
        assert [copy.send(self.lines(count)) for count in (2, 2, 5)] == [0, 1, 5]
        monkeypatch.setattr("wgd.daemon.journal_copy.time.monotonic", lambda: 8.0)
        assert copy.send(self.lines(1)) == 0
        theirs.settimeout(0)
        assert len([theirs.recv(1 << 16) for _ in range(4)]) == 4
        with pytest.raises(BlockingIOError):
            theirs.recv(1)

    def test_an_entry_that_is_too_large_is_counted_and_the_next_is_sent(
        self, ends: tuple[socket.socket, JournalCopy]
    ) -> None:
        theirs, copy = ends
        large = gateway_line(0, "reloaded", detail="x" * (1 << 20)).encode()
        assert copy.send(large + self.lines(1)) == 1
        assert b"WGD_DETAIL=0\n" in theirs.recv(1 << 16)
