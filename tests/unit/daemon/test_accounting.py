"""The kernel's counters against the tally: what is called lost, and what must never be."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgd.daemon.accounting import NO_FLOWS, Accounting, Alive
from wgd.daemon.tally import FLOW_ENDS, REASONS, Cell, Count, Tally, accounted, cell, open_tally
from wgd.kernel.nft_counters import Logged

GROUPS = (0, 1)
NOTHING_LOGGED = (0, 0)


@pytest.fixture
def tally(tmp_path: Path) -> Iterator[Tally]:
    descriptor = open_tally(tmp_path / "tally")
    yield Tally(descriptor)
    os.close(descriptor)


def write(tally: Tally, ipv4: int, ipv6: int = 0, limited: int = 0) -> list[int]:
    """Count as a recorder does that has written so many lines more."""
    part = tally.recorded
    part.numbers[cell(0, Count.EVENTS)] += ipv4
    part.numbers[cell(1, Count.EVENTS)] += ipv6
    part.numbers[Cell.RATE_LIMITED] += limited
    part.commit()
    return part.read()


def untold(tally: Tally) -> int:
    return tally.recorded.read()[Cell.UNWRITTEN + REASONS.index("restart")]


def test_without_a_table_counting_begins_at_what_is_told(tally: Tally) -> None:
    numbers = write(tally, 100, 50, 7)
    accounting = Accounting(tally)
    assert accounting.begin(None, GROUPS, NO_FLOWS) == 0
    assert accounting.expected(numbers, Logged((3, 2), 1)) == ((103, 52), 8)


def test_what_was_logged_while_nobody_read_is_lost_and_told(tally: Tally) -> None:
    Accounting(tally).begin(None, GROUPS, NO_FLOWS)
    write(tally, 10, 20)
    assert Accounting(tally).begin(Logged((15, 22), 0), GROUPS, NO_FLOWS) == 7
    numbers = tally.recorded.read()
    assert [accounted(numbers, source) for source in GROUPS] == [15, 22]
    assert untold(tally) == 7


def test_what_waits_in_sockets_that_were_kept_is_not_lost(tally: Tally) -> None:
    Accounting(tally).begin(None, GROUPS, NO_FLOWS)
    write(tally, 10, 20)
    tally.recorded.numbers[cell(0, Count.NEXT_SEQUENCE)] = 10
    tally.recorded.commit()
    accounting = Accounting(tally)
    assert accounting.begin(Logged((15, 22), 0), (), NO_FLOWS) == 0
    assert tally.recorded.read()[cell(0, Count.NEXT_SEQUENCE)] == 10
    assert accounting.expected(tally.recorded.read(), Logged((15, 22), 0)).logged == (15, 22)


def test_a_new_tally_beside_an_old_table_calls_nothing_lost(tally: Tally) -> None:
    accounting = Accounting(tally)
    assert accounting.begin(Logged((1000, 2000), 30), GROUPS, NO_FLOWS) == 0
    assert accounting.expected(write(tally, 5), Logged((1005, 2000), 30)) == ((5, 0), 0)


@pytest.mark.parametrize("on_their_way", [0, 3])
def test_counters_that_began_anew_call_nothing_lost_and_are_exact_in_the_end(tally: Tally, on_their_way: int) -> None:
    accounting = Accounting(tally)
    accounting.begin(None, GROUPS, NO_FLOWS)
    numbers = write(tally, 100)
    assert accounting.expected(numbers, Logged((100, 0), 0)).logged[0] == 100
    # The table was made anew. What it has logged since is not all in the file yet.
    numbers = write(tally, 5 - on_their_way)
    assert accounting.expected(numbers, Logged((5, 0), 0)).logged[0] <= 105
    numbers = write(tally, on_their_way)
    assert accounting.expected(numbers, Logged((5, 0), 0)).logged[0] == 105
    assert accounting.expected(numbers, Logged((9, 0), 0)).logged[0] == 109


def test_the_daemons_requests_are_numbered_anew(tally: Tally) -> None:
    tally.recorded.numbers[Cell.REQUEST] = 40
    tally.recorded.commit()
    Accounting(tally).begin(None, (), NO_FLOWS)
    assert tally.recorded.read()[Cell.REQUEST] == 0


def begin_ends(tally: Tally, recorded: int, alive: Alive) -> int:
    return Accounting(tally).begin(Logged(NOTHING_LOGGED, 0, recorded), (FLOW_ENDS,), alive)


def test_the_ends_that_nobody_heard_are_lost_and_the_flows_that_live_on_are_not(tally: Tally) -> None:
    Accounting(tally).begin(None, (), NO_FLOWS)
    assert begin_ends(tally, 100, Alive(70, 70)) == 30
    assert untold(tally) == 30
    assert begin_ends(tally, 100, Alive(70, 70)) == 0


def test_flows_that_begin_while_they_are_counted_are_lost_neither_now_nor_at_the_next_start(tally: Tally) -> None:
    """The kernel counted 100 flows, of which 90 had begun before; 25 more were alive when they were listed again."""
    Accounting(tally).begin(None, (), NO_FLOWS)
    assert begin_ends(tally, 100, Alive(90, 125)) == 0
    assert begin_ends(tally, 125, Alive(125, 125)) == 0


def test_the_ends_of_flows_of_a_table_made_anew_are_not_lost(tally: Tally) -> None:
    Accounting(tally).begin(None, (), NO_FLOWS)
    assert begin_ends(tally, 100, Alive(100, 100)) == 0
    assert begin_ends(tally, 5, Alive(105, 105)) == 0
    assert begin_ends(tally, 15, Alive(105, 105)) == 10
