"""A log that is followed while it is written, renamed, copied, emptied, compressed and deleted in any order."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wgd.host.log_file import LogFile
from wgd.host.log_follow import Follower

KEPT = 9
"""How many rotated files there are at most: the follower may find a line in any of them."""


class Rotations(RuleBasedStateMachine):
    """The recorder's own writer, logrotate in its two ways, and a follower that looks now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="wgd-test-follow-"))
        self.log = self.folder / "events.jsonl"
        self.writer = LogFile(self.log)
        self.writer.open()
        self.follower = Follower(self.log, None)
        self.written = 0
        self.seen: list[int] = []
        self.unseen_files = 0
        self.is_known = True

    def teardown(self) -> None:
        self.writer.close()
        self.follower.close()
        shutil.rmtree(self.folder)

    def rotated(self, number: int) -> Path:
        return self.folder / f"{self.log.name}.{number}"

    def may_rotate(self) -> bool:
        """Tell whether logrotate would, and the follower can know again the file that it has read last."""
        return self.unseen_files < KEPT - 1 and self.is_known and self.log.stat().st_size > 0

    def shift(self) -> None:
        """Make room for a new .1: each older file gets the next number, and from .2 on is compressed."""
        self.unseen_files += 1
        for number in range(KEPT, 0, -1):
            for suffix in ("", ".gz"):
                path = Path(f"{self.rotated(number)}{suffix}")
                if path.exists():
                    path.rename(f"{self.rotated(number + 1)}{suffix}")
        plain = self.rotated(2)
        if plain.exists():
            Path(f"{plain}.gz").write_bytes(gzip.compress(plain.read_bytes()))
            plain.unlink()

    @rule(count=st.integers(1, 40))
    def write(self, count: int) -> None:
        lines = "".join(f'{{"ts":"{number}"}}\n' for number in range(self.written, self.written + count))
        rest, error = self.writer.append(lines.encode())[:2]
        assert (rest, error) == (b"", None)
        self.written += count

    @rule()
    def begin_a_line_and_take_it_back(self) -> None:
        with self.log.open("ab") as file:
            place = file.tell()
            file.write(b'{"ts":')
            file.flush()
            self.look()
            file.truncate(place)

    @precondition(lambda self: self.may_rotate())
    @rule(late=st.integers(0, 3))
    def rename(self, late: int) -> None:
        self.shift()
        self.log.rename(self.rotated(1))
        if late:
            # The writer has not been told yet.
            self.write(late)
        self.writer.open()

    @precondition(lambda self: self.may_rotate())
    @rule()
    def copy_and_truncate(self) -> None:
        self.shift()
        shutil.copyfile(self.log, self.rotated(1))
        os.truncate(self.log, 0)

    @precondition(lambda self: not self.unseen_files and self.log.stat().st_size)
    @rule(late=st.integers(0, 3))
    def delete(self, late: int) -> None:
        self.look()
        self.is_known = False
        self.log.unlink()
        if late:
            self.write(late)
        self.writer.open()

    @rule()
    def look(self) -> None:
        self.seen += [int(line[7:-2]) for lines in self.follower.new() for line in lines if line]
        self.unseen_files = 0
        self.is_known = self.is_known or b"\n" in self.log.read_bytes()

    @invariant()
    def every_line_comes_once_and_in_its_place(self) -> None:
        assert self.seen == list(range(len(self.seen)))
        assert not self.follower.missed

    @precondition(lambda self: self.log.exists())
    @rule()
    def catch_up(self) -> None:
        # What stands in a file that was replaced twice meanwhile may come only with the next line.
        self.write(1)
        self.look()
        assert len(self.seen) == self.written


Rotations.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRotations = Rotations.TestCase
