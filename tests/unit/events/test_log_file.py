from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wgd.daemon.event_log import EventLog
from wgd.daemon.tally import Cell, Tally, create_tally
from wgd.errors import HostError
from wgd.events.lines import gateway_line, lost_line, time_text
from wgd.host.log_file import LogFile

LINE = gateway_line(0, "started").encode()


@contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """No file grows beyond `size` bytes, as on a full disk: the write before it is a short one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def tally() -> Iterator[Tally]:
    descriptor = create_tally()
    yield Tally(descriptor)
    os.close(descriptor)


def test_a_file_is_made_for_owner_and_group_alone(path: Path) -> None:
    umask = os.umask(0)
    try:
        LogFile(path).open()
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o640


def test_lines_are_appended_to_what_is_there(path: Path) -> None:
    path.write_bytes(b"before\n")
    assert LogFile(path).append(b"after\n") == (b"", None)
    assert path.read_bytes() == b"before\nafter\n"


def test_half_a_line_that_was_left_does_not_spoil_the_next(path: Path) -> None:
    path.write_bytes(b"whole\nha")
    LogFile(path).append(b"next\n")
    assert path.read_bytes() == b"whole\nha\nnext\n"


def test_half_a_line_of_ours_is_cut_off(path: Path) -> None:
    path.write_bytes(b'{"ts":"1"}\n{"ts":"2","ev')
    LogFile(path).append(b"next\n")
    assert path.read_bytes() == b'{"ts":"1"}\nnext\n'


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=f"the directory {tmp_path}/none does not exist"):
        LogFile(tmp_path / "none" / "x").open()


def test_a_pipe_is_refused_and_nobody_waits_for_its_reader(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(HostError, match="not a regular file"):
        LogFile(path).open()


def test_on_a_full_disk_only_whole_lines_stand_and_the_rest_comes_back(path: Path) -> None:
    file = LogFile(path)
    with disk_full_at(10):
        rest, error = file.append(b"12345\n67890\nabc\n")
    assert path.read_bytes() == b"12345\n"
    assert rest == b"67890\nabc\n"
    assert error is not None
    assert file.append(rest) == (b"", None)
    assert path.read_bytes() == b"12345\n67890\nabc\n"


def test_a_full_disk_after_half_a_line_that_was_left_gives_all_lines_back(path: Path) -> None:
    path.write_bytes(b"ha")
    file = LogFile(path)
    with disk_full_at(2):
        assert file.append(b"next\n")[0] == b"next\n"
    file.append(b"next\n")
    assert path.read_bytes() == b"ha\nnext\n"


def test_what_the_disk_refused_is_counted_and_told_when_it_takes_lines_again(path: Path, tally: Tally) -> None:
    reports: list[str | None] = []
    log = EventLog(tally, lambda error: reports.append(error and error.reason))
    log.open(path)
    with disk_full_at(0):
        assert log.write(LINE * 3) == 3
        assert log.write(LINE) == 1
        assert log.is_behind
        assert len(reports) == 1
    assert log.write(LINE) == 0
    assert reports[1:] == [None]
    lost, line = path.read_bytes().splitlines(keepends=True)
    assert b'"event":"lost","count":4,"reason":"disk_full"' in lost
    assert line == LINE
    assert not log.is_behind


def test_a_lost_line_that_the_disk_refused_keeps_its_count_and_reason(path: Path, tally: Tally) -> None:
    log = EventLog(tally, lambda _: None)
    log.open(path)
    with disk_full_at(0):
        assert log.write(lost_line(time_text(0), 7, "overrun").encode()) == 0
    log.write(b"")
    assert b'"count":7,"reason":"overrun"' in path.read_bytes()


def test_a_successor_tells_what_its_predecessor_could_not(path: Path, tally: Tally) -> None:
    log = EventLog(tally, lambda _: None)
    log.open(path)
    with disk_full_at(0):
        log.write(LINE)
    successor = EventLog(tally, lambda _: None)
    successor.open(path)
    successor.write(b"")
    assert b'"count":1,"reason":"disk_full"' in path.read_bytes()


def test_a_directory_that_comes_back_is_written_to_again(tmp_path: Path, tally: Tally) -> None:
    path = tmp_path / "log" / "events.jsonl"
    log = EventLog(tally, lambda _: None)
    with pytest.raises(HostError):
        log.open(path)
    assert log.write(LINE) == 1
    path.parent.mkdir()
    assert log.write(LINE) == 0
    assert path.read_bytes().endswith(LINE)
    assert tally[Cell.UNWRITTEN] == 0


def test_reopening_goes_on_in_a_new_file_after_a_rename(path: Path, tally: Tally) -> None:
    log = EventLog(tally, lambda _: None)
    log.open(path)
    log.write(LINE)
    old = path.rename(path.with_suffix(".1"))
    log.write(LINE)
    log.open(path)
    log.write(LINE)
    log.close()
    assert (old.read_bytes(), path.read_bytes()) == (LINE * 2, LINE)
