"""A log file that is copied and then truncated, as by logrotate's copytruncate: what stands in which of the two."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from wgd.host.log_file import LogFile

LINES = [f'{{"ts":"{number}"}}\n'.encode() for number in range(9)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def file(path: Path) -> LogFile:
    made = LogFile(path)
    write(made, *LINES[:2])
    return made


def write(file: LogFile, *lines: bytes) -> None:
    for line in lines:
        assert file.place()[1] is None
        assert file.append(line) == (b"", None)


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def told(path: Path) -> list[bytes]:
    """All lines of the copy and of the file."""
    copy = path.with_name(f"{path.name}.1")
    return sorted((copy.read_bytes() if copy.exists() else b"").splitlines(keepends=True) + whole_lines(path))


def whole_lines(path: Path) -> list[bytes]:
    lines = path.read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"\n") for line in lines)
    return lines


def copy(path: Path) -> None:
    shutil.copyfile(path, f"{path}.1")


def test_what_was_written_between_copy_and_truncation_is_written_once_more(file: LogFile, path: Path) -> None:
    copy(path)
    write(file, *LINES[2:4])
    truncate(path)
    write(file, LINES[4])
    assert told(path) == LINES[:5]


def test_nothing_is_doubled_when_nothing_was_written_between(file: LogFile, path: Path) -> None:
    copy(path)
    truncate(path)
    write(file, *LINES[2:4])
    assert told(path) == LINES[:4]


def test_each_truncation_is_compared_with_the_copy_before_it(file: LogFile, path: Path) -> None:
    copy(path)
    write(file, LINES[2])
    truncate(path)
    write(file, LINES[3])
    first = Path(f"{path}.1").rename(f"{path}.2").read_bytes()
    copy(path)
    write(file, LINES[4])
    truncate(path)
    write(file, LINES[5])
    assert sorted(first.splitlines(keepends=True) + told(path)) == LINES[:6]


def test_a_line_that_the_copy_has_in_part_is_written_whole(file: LogFile, path: Path) -> None:
    with Path(f"{path}.1").open("wb") as copied:
        write(file, LINES[2])
        copied.write(path.read_bytes()[:-5])
    truncate(path)
    write(file, LINES[3])
    assert whole_lines(path) == LINES[2:4]


def test_what_is_owed_is_written_without_another_line_and_at_the_end(file: LogFile, path: Path) -> None:
    copy(path)
    write(file, *LINES[2:4])
    truncate(path)
    file.close()
    assert told(path) == LINES[:4]


def in_the_midst(monkeypatch: pytest.MonkeyPatch, *, before: Callable[[], None], after: Callable[[], None]) -> None:
    """Have something happen right before and right after the next write."""
    really_write = os.write

    def write_once(descriptor: int, data: bytes) -> int:
        monkeypatch.undo()
        before()
        written = really_write(descriptor, data)
        after()
        return written

    monkeypatch.setattr("os.write", write_once)


@pytest.mark.parametrize("copied", ["before", "after"])
@pytest.mark.parametrize("truncated", ["before", "after"])
def test_a_copy_and_a_truncation_while_a_line_is_written(
    file: LogFile, path: Path, monkeypatch: pytest.MonkeyPatch, copied: str, truncated: str
) -> None:
    if (copied, truncated) == ("after", "before"):
        copied = "before"
    steps: dict[str, list[Callable[[], None]]] = {"before": [], "after": []}
    steps[copied].append(lambda: copy(path))
    steps[truncated].append(lambda: truncate(path))
    in_the_midst(
        monkeypatch,
        before=lambda: [step() for step in steps["before"]] and None,
        after=lambda: [step() for step in steps["after"]] and None,
    )
    write(file, LINES[2])
    write(file, LINES[3])
    assert told(path) == LINES[:4]


def test_a_truncation_without_a_copy_writes_nothing_again(file: LogFile, path: Path) -> None:
    truncate(path)
    write(file, LINES[2])
    assert whole_lines(path) == [LINES[2]]


def test_files_beside_it_that_are_no_copies_change_nothing(file: LogFile, path: Path) -> None:
    path.with_name("other.jsonl").write_bytes(b"x")
    path.with_name(f"{path.name}.2.gz").write_bytes(b"x" * 1000)
    write(file, *LINES[2:4])
    assert whole_lines(path) == LINES[:4]
