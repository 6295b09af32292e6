"""What daemon and recorder share: it is never half changed, never shared with strangers, and outlives both."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgd.daemon import tally as module
from wgd.daemon.tally import RECORDED, SIZE, Cell, Count, Tally, cell, close_tally, open_tally
from wgd.errors import ConflictError, HostError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tally"


@pytest.fixture
def descriptor(path: Path) -> Iterator[int]:
    opened = open_tally(path)
    yield opened
    close_tally(opened)


def test_a_new_one_is_all_zero_and_for_its_owner_alone(path: Path, descriptor: int) -> None:
    assert set(Tally(descriptor).recorded.read()) == {0}
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_committed_is_read_by_others_and_nothing_before(descriptor: int) -> None:
    writer, reader = Tally(descriptor), Tally(descriptor)
    writer.recorded.numbers[Cell.OVERRUNS] = 7
    assert reader.counters().overruns == 0
    writer.recorded.commit()
    assert reader.counters().overruns == 7


def test_it_outlives_who_wrote_it(path: Path) -> None:
    first = open_tally(path)
    part = Tally(first).recorded
    part.numbers[cell(1, Count.EVENTS)] = (1 << 64) - 1
    part.commit()
    close_tally(first)
    second = open_tally(path)
    assert Tally(second).counters().events == (1 << 64) - 1
    close_tally(second)


def test_a_reader_never_sees_half_a_change(descriptor: int) -> None:
    writer, reader = Tally(descriptor).recorded, Tally(descriptor).recorded
    ended = threading.Event()

    def write() -> None:
        for number in range(1, 20_000):
            writer.numbers[:] = [number] * RECORDED
            writer.commit()
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = [reader.read()]
    while not ended.is_set():
        seen.append(reader.read())
    thread.join()
    assert all(len(set(numbers)) == 1 for numbers in seen)
    assert reader.read()[0] == 19_999


def test_another_versions_is_begun_anew(path: Path) -> None:
    path.write_bytes(b"\xff" * SIZE)
    descriptor = open_tally(path)
    assert set(Tally(descriptor).recorded.read()) == {0}
    close_tally(descriptor)


HOLD = (
    "import sys, time; from pathlib import Path; from wgd.daemon.tally import open_tally; open_tally(Path(sys.argv[1]))"
)


@pytest.mark.parametrize("ends", [True, False])
def test_who_comes_next_waits_for_the_recorder_of_the_one_before(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, ends: bool
) -> None:
    monkeypatch.setattr(module, "_WAIT_SECONDS", 20.0 if ends else 0.1)
    script = f"{HOLD}; print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        if ends:
            threading.Timer(0.2, other.stdin.close).start()
            close_tally(open_tally(path))
            assert other.wait(20) == 0
        else:
            with pytest.raises(ConflictError, match="has ended still runs"):
                open_tally(path)


def test_a_folder_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(HostError, match=f"{path}/tally: cannot be opened: No such file"):
        open_tally(path / "tally")
