from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wgd.daemon.event_log import Change, EventLog, recover
from wgd.daemon.tally import Cell, Count, Part, Tally, cell, open_tally
from wgd.errors import HostError
from wgd.events.lines import gateway_line, lost_line, time_text
from wgd.host.log_file import Appended, LogFile

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
def part(tmp_path: Path) -> Iterator[Part]:
    descriptor = open_tally(tmp_path / "tally")
    yield Tally(descriptor).recorded
    os.close(descriptor)


def lines(count: int) -> Change:
    """What lines of packets of the first source are."""
    return Change(0, count, next_sequence=count)


def lost(part: Part) -> tuple[int, int]:
    """How many lines of the first source stand in the file and how many are lost."""
    return part.numbers[cell(0, Count.EVENTS)], part.numbers[cell(0, Count.LOST)]


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


def test_what_the_disk_refused_is_counted_and_told_when_it_takes_lines_again(path: Path, part: Part) -> None:
    reports: list[str | None] = []
    log = EventLog(part, lambda error: reports.append(error and error.reason))
    log.open(path)
    with disk_full_at(0):
        assert not log.write(LINE * 3, lines(3))
        assert not log.write(LINE, lines(1))
        assert lost(part) == (0, 4)
        assert log.is_behind
        assert len(reports) == 1
    assert log.write(LINE, lines(1))
    assert reports[1:] == [None]
    told, line = path.read_bytes().splitlines(keepends=True)
    assert b'"event":"lost","count":4,"reason":"disk_full"' in told
    assert line == LINE
    assert not log.is_behind


def test_a_lost_line_that_the_disk_refused_keeps_its_count_and_reason(path: Path, part: Part) -> None:
    log = EventLog(part, lambda _: None)
    log.open(path)
    with disk_full_at(0):
        log.write(lost_line(time_text(0), 7, "overrun").encode(), Change(0, lost=7))
    assert lost(part) == (0, 7)
    log.write(b"", Change())
    assert b'"count":7,"reason":"overrun"' in path.read_bytes()


def test_a_successor_tells_what_its_predecessor_could_not(path: Path, part: Part) -> None:
    log = EventLog(part, lambda _: None)
    log.open(path)
    with disk_full_at(0):
        log.write(LINE, lines(1))
    successor = EventLog(part, lambda _: None)
    successor.open(path)
    successor.write(b"", Change())
    assert b'"count":1,"reason":"disk_full"' in path.read_bytes()


def test_a_directory_that_comes_back_is_written_to_again(tmp_path: Path, part: Part) -> None:
    path = tmp_path / "log" / "events.jsonl"
    log = EventLog(part, lambda _: None)
    with pytest.raises(HostError):
        log.open(path)
    assert not log.write(LINE, lines(1))
    path.parent.mkdir()
    assert log.write(LINE, lines(1))
    told, line = path.read_bytes().splitlines(keepends=True)
    assert b'"count":1,"reason":"overrun"' in told, "it was not for want of room"
    assert line == LINE
    assert not log.is_behind


def test_reopening_goes_on_in_a_new_file_after_a_rename(path: Path, part: Part) -> None:
    log = EventLog(part, lambda _: None)
    log.open(path)
    log.write(LINE, lines(1))
    old = path.rename(path.with_suffix(".1"))
    log.write(LINE, lines(1))
    log.open(path)
    log.write(LINE, lines(1))
    log.close()
    assert (old.read_bytes(), path.read_bytes()) == (LINE * 2, LINE)


class Killed(BaseException):
    """The recorder is no more."""


def killed_while_writing(part: Part, path: Path, text: bytes, change: Change, *, written: int) -> Part:
    """Write text as a recorder does that is killed when `written` bytes stand in the file; return the numbers left."""
    log = EventLog(part, lambda _: None)
    log.open(path)

    def append(_: LogFile, data: bytes) -> None:
        with path.open("ab") as end:
            end.write(data[:written])
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LogFile, "append", append)
        with pytest.raises(Killed):
            log.write(text, change)
    part.numbers = part.read()
    return part


@pytest.mark.parametrize("whole", [0, 1, 2, 3])
@pytest.mark.parametrize("torn", [0, 10])
def test_a_successor_counts_each_line_that_stands_in_the_file_and_each_that_does_not(
    path: Path, part: Part, whole: int, torn: int
) -> None:
    path.write_bytes(LINE)
    torn = torn if whole < 3 else 0
    killed_while_writing(part, path, LINE * 3, lines(3), written=whole * len(LINE) + torn)
    recover(part, path.parent)
    assert lost(part) == (whole, 3 - whole)
    assert part.numbers[cell(0, Count.NEXT_SEQUENCE)] == 3
    assert path.read_bytes() == LINE * (1 + whole), "half a line is cut off"
    successor = EventLog(part, lambda _: None)
    successor.open(path)
    successor.write(b"", Change())
    told = path.read_bytes()[len(LINE) * (1 + whole) :]
    assert (f'"count":{3 - whole},"reason":"restart"'.encode() in told) == (whole < 3)


def test_a_successor_finds_the_file_that_was_renamed_meanwhile(path: Path, part: Part) -> None:
    killed_while_writing(part, path, LINE * 3, lines(3), written=2 * len(LINE))
    path.rename(path.with_suffix(".1"))
    recover(part, path.parent)
    assert lost(part) == (2, 1)


def test_debts_that_were_written_are_not_told_again(path: Path, part: Part) -> None:
    part.numbers[Cell.UNWRITTEN] = 5
    debt = len(lost_line(time_text(0), 5, "overrun"))
    gap = lost_line(time_text(0), 7, "overrun").encode()
    killed_while_writing(part, path, gap + LINE, Change(0, 1, 7, next_sequence=8), written=debt)
    recover(part, path.parent)
    assert lost(part) == (0, 8)
    assert part.numbers[Cell.UNWRITTEN : Cell.UNWRITTEN + 4] == [0, 0, 0, 8]


@pytest.mark.parametrize("written", [0, len(LINE)])
def test_a_line_of_the_daemon_is_done_when_it_stands_in_the_file(path: Path, part: Part, written: int) -> None:
    killed_while_writing(part, path, LINE, Change(request=9), written=written)
    recover(part, path.parent)
    assert part.numbers[Cell.REQUEST] == (9 if written else 0)


def test_a_file_that_is_deleted_is_made_anew(path: Path, part: Part) -> None:
    log = EventLog(part, lambda _: None)
    log.open(path)
    log.write(LINE, lines(1))
    path.unlink()
    log.write(LINE, lines(1))
    assert path.read_bytes() == LINE


def test_lines_whose_file_is_deleted_while_they_are_written_stand_in_the_next(
    path: Path, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog(part, lambda _: None)
    log.open(path)
    log.write(LINE, lines(1))
    deleted = path.open("rb")
    really_append = LogFile.append

    def append(file: LogFile, text: bytes) -> Appended:
        path.unlink()
        monkeypatch.undo()
        return really_append(file, text)

    monkeypatch.setattr(LogFile, "append", append)
    log.write(LINE, lines(1))
    assert (deleted.read(), path.read_bytes()) == (LINE, LINE)
    deleted.close()


def test_a_file_that_is_truncated_goes_on_at_its_beginning(path: Path, part: Part) -> None:
    log = EventLog(part, lambda _: None)
    log.open(path)
    log.write(LINE * 2, lines(2))
    os.truncate(path, 0)
    log.write(LINE, lines(1))
    assert path.read_bytes() == LINE
