"""A log that rotates: its parts in order, and its new lines while it is replaced, each once."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from wgd.errors import HostError
from wgd.host import log_parts
from wgd.host.log_follow import Follower
from wgd.host.log_parts import LogPart, open_parts


def text(*numbers: int) -> bytes:
    return b"".join(b'{"ts":"%d"}\n' % number for number in numbers)


def numbers(batches: Iterator[list[bytes]]) -> list[int]:
    return [int(line[7:-2]) for lines in batches for line in lines if line]


def read(path: Path) -> list[int]:
    """Return what a log holds, as numbers."""
    parts = open_parts(path)
    try:
        return [number for part in parts for number in numbers(part.batches())]
    finally:
        for part in parts:
            part.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


class TestParts:
    def test_the_oldest_comes_first_compressed_or_not(self, log: Path) -> None:
        log.write_bytes(text(9))
        for name, number in (("1", 8), ("2", 7), ("9", 6)):
            log.with_name(f"{log.name}.{name}").write_bytes(text(number))
        for name, number in (("10", 5), ("11", 4)):
            log.with_name(f"{log.name}.{name}.gz").write_bytes(gzip.compress(text(number)))
        assert read(log) == [4, 5, 6, 7, 8, 9]

    def test_dates_come_in_their_order(self, log: Path) -> None:
        log.write_bytes(text(4))
        log.with_name(f"{log.name}-20261231").write_bytes(text(2))
        log.with_name(f"{log.name}-20270101-1798800000").write_bytes(text(3))
        log.with_name(f"{log.name}-20261201.gz").write_bytes(gzip.compress(text(1)))
        assert read(log) == [1, 2, 3, 4]

    def test_files_of_other_names_are_none_of_the_log(self, log: Path) -> None:
        log.write_bytes(text(1))
        for name in ("events.jsonl.bak", "events.jsonl.1.xz", "events.jsonl.1~", "xevents.jsonl.1", "events.jsonl2"):
            log.with_name(name).write_bytes(text(2))
        assert read(log) == [1]

    def test_a_file_and_the_copy_that_is_being_made_of_it_count_once(self, log: Path) -> None:
        log.write_bytes(text(3, 4, 5))
        log.with_name(f"{log.name}.1").write_bytes(text(3, 4))
        log.with_name(f"{log.name}.2").write_bytes(text(1, 2))
        log.with_name(f"{log.name}.2.gz").write_bytes(gzip.compress(text(1, 2))[:15])
        assert read(log) == [1, 2, 3, 4, 5]

    def test_older_parts_are_read_also_while_the_newest_is_missing(self, log: Path) -> None:
        log.with_name(f"{log.name}.1").write_bytes(text(1))
        assert read(log) == [1]

    def test_a_damaged_part_is_an_error_that_names_it(self, log: Path) -> None:
        log.write_bytes(text(2))
        damaged = log.with_name(f"{log.name}.1.gz")
        damaged.write_bytes(gzip.compress(os.urandom(5000))[:1000])
        with pytest.raises(HostError, match=f"{damaged}: is damaged"):
            read(log)

    @pytest.mark.parametrize("make", [Path.mkdir, Path.exists], ids=["folder", "missing"])
    def test_what_is_no_file_is_an_error(self, log: Path, make: object) -> None:
        make(log)  # type: ignore[operator]
        with pytest.raises(HostError, match=str(log)):
            open_parts(log)

    @pytest.mark.parametrize("size", [1, 7, 24, 1 << 19])
    @pytest.mark.parametrize("end", [b"", b'{"ts":"99"}'])
    def test_both_directions_give_the_same_lines_whatever_the_blocks(
        self, log: Path, size: int, end: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(log_parts, "BLOCK_BYTES", size)
        log.write_bytes(text(*range(30)) + end)
        for unfinished in (True, False):
            expected = [*range(30), *([99] if end and unfinished else [])]
            there, back = LogPart(log), LogPart(log)
            assert numbers(there.batches(unfinished=unfinished)) == expected
            assert numbers(iter(list(back.batches_backwards(unfinished=unfinished))[::-1])) == expected
            assert there.position == back.position == len(text(*range(30))) + (len(end) if unfinished else 0)
            there.close()
            back.close()


class TestFollower:
    @pytest.fixture
    def follower(self, log: Path) -> Iterator[Follower]:
        log.write_bytes(text(1, 2))
        part = LogPart(log)
        assert numbers(part.batches(unfinished=False)) == [1, 2]
        with closing(Follower(log, part)) as follower:
            yield follower

    @staticmethod
    def append(path: Path, *more: int) -> None:
        with path.open("ab") as file:
            file.write(text(*more))

    def test_gives_what_is_appended_once(self, log: Path, follower: Follower) -> None:
        assert numbers(follower.new()) == []
        self.append(log, 3, 4)
        assert numbers(follower.new()) == [3, 4]
        assert numbers(follower.new()) == []

    def test_waits_for_the_end_of_a_line_and_for_half_a_line_that_is_taken_back(
        self, log: Path, follower: Follower
    ) -> None:
        with log.open("ab") as file:
            file.write(b'{"ts":"')
            file.flush()
            assert numbers(follower.new()) == []
            file.truncate(len(text(1, 2)))
        assert numbers(follower.new()) == []
        self.append(log, 3)
        assert numbers(follower.new()) == [3]

    def test_reads_the_old_file_to_its_end_after_a_rename(self, log: Path, follower: Follower) -> None:
        old = log.rename(log.with_name(f"{log.name}.1"))
        log.touch()
        self.append(old, 3)
        assert numbers(follower.new()) == [3]
        self.append(old, 4)
        self.append(log, 5)
        assert numbers(follower.new()) == [4, 5]
        self.append(log, 6)
        assert numbers(follower.new()) == [6]

    def test_misses_nothing_when_it_is_renamed_twice_between_two_looks(self, log: Path, follower: Follower) -> None:
        self.append(log, 3)
        log.rename(log.with_name(f"{log.name}.2"))
        log.with_name(f"{log.name}.1").write_bytes(text(4, 5))
        self.append(log, 6)
        assert numbers(follower.new()) == [3, 4, 5, 6]

    def test_waits_for_the_new_file_after_a_rename(self, log: Path, follower: Follower) -> None:
        old = log.rename(log.with_name(f"{log.name}.1"))
        assert numbers(follower.new()) == []
        self.append(old, 3)
        self.append(log, 4)
        assert numbers(follower.new()) == [3, 4]

    @pytest.mark.parametrize("later", [[], [4]])
    def test_begins_behind_older_parts_when_the_newest_is_missing(self, log: Path, later: list[int]) -> None:
        log.with_name(f"{log.name}.1").write_bytes(text(1))
        (part,) = open_parts(log)
        assert numbers(part.batches(unfinished=False)) == [1]
        with closing(Follower(log, part)) as follower:
            self.append(log, *later)
            assert numbers(follower.new()) == later

    def test_knows_its_file_again_when_it_is_compressed(self, log: Path, follower: Follower) -> None:
        self.append(log, 3)
        log.with_name(f"{log.name}.2.gz").write_bytes(gzip.compress(log.read_bytes()))
        log.unlink()
        log.with_name(f"{log.name}.1").write_bytes(text(4))
        self.append(log, 5)
        assert numbers(follower.new()) == [3, 4, 5]

    @pytest.mark.parametrize("later", [[], [5], list(range(5, 50))], ids=["empty", "shorter", "longer"])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_finds_the_rest_in_the_copy_after_copytruncate(
        self, log: Path, follower: Follower, later: list[int], *, compressed: bool
    ) -> None:
        self.append(log, 3, 4)
        copy = log.with_name(f"{log.name}.1")
        shutil.copy(log, copy)
        os.truncate(log, 0)
        if compressed:
            copy.with_name(f"{copy.name}.gz").write_bytes(gzip.compress(copy.read_bytes()))
            copy.unlink()
        self.append(log, *later)
        assert numbers(follower.new()) == [3, 4, *later]
        self.append(log, 99)
        assert numbers(follower.new()) == [99]
        assert not follower.missed

    def test_says_that_lines_may_be_missing_when_there_is_no_copy(self, log: Path, follower: Follower) -> None:
        os.truncate(log, 0)
        self.append(log, 5)
        assert numbers(follower.new()) == [5]
        assert follower.missed

    def test_reads_a_deleted_file_while_it_is_written_and_then_the_new_one(self, log: Path, follower: Follower) -> None:
        with log.open("ab") as file:
            log.unlink()
            file.write(text(3))
            file.flush()
            assert numbers(follower.new()) == [3]
            file.write(text(4))
        self.append(log, 5)
        assert numbers(follower.new()) == [4, 5]
        assert not follower.missed

    def test_waits_for_a_file_that_is_not_there_yet(self, log: Path) -> None:
        with closing(Follower(log, None)) as follower:
            assert numbers(follower.new()) == []
            log.write_bytes(text(1))
            assert numbers(follower.new()) == [1]
