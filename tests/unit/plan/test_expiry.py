"""Sets that the kernel empties by itself: what is written, and what is still expected to be there."""

import pytest

from wgd.plan.expiry import SLACK, timeout
from wgd.plan.ruleset import differences, transactions
from wgd.plan.ruleset_text import whole_table
from wgd.plan.state import Action, ElementChange, Transaction
from wgd.policy.ruleset import KeySet, Ruleset

END = 1_000_000
ONE, OTHER = ((1, 1),), ((5, 9),)
WANTED = Ruleset(sets={"s": KeySet(("inet_service",), frozenset({ONE, OTHER}), END)})


def found(*elements: tuple, until: int | None = END) -> Ruleset:
    return Ruleset(sets={"s": KeySet(("inet_service",), frozenset(elements), until)})


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0001, "0d0s1ms"), (1.5, "0d1s500ms"), (86399.9, "0d86399s900ms"), (86400, "1d0s0ms"), (2e8, "2314d70400s0ms")],
)
def test_a_timeout_is_written_so_that_nft_reads_it_and_is_never_zero(seconds: float, expected: str) -> None:
    assert timeout(seconds) == expected


def added(steps: tuple[Transaction, ...]) -> list[ElementChange]:
    return [change for step in steps if not isinstance(step, str) for change in step if change.action is Action.ADD]


def test_elements_are_added_with_the_time_that_is_left() -> None:
    steps = transactions(WANTED, None, END - 60.5)
    assert "add set inet wgd s { type inet_service; flags interval,timeout; }" in str(steps[0])
    assert [(change.elements, change.timeout) for change in added(steps)] == [(frozenset({ONE, OTHER}), 60.5)]


def test_so_they_are_in_the_text_of_the_whole_table() -> None:
    text = whole_table(WANTED, END - 60)
    assert "add set inet wgd s { type inet_service; flags interval,timeout; }" in text
    assert "1 timeout 0d60s0ms" in text
    assert "5-9 timeout 0d60s0ms" in text


@pytest.mark.parametrize("now", [END, END + 1e6])
def test_elements_whose_time_is_over_are_not_added(now: float) -> None:
    steps = transactions(WANTED, None, now)
    assert "add set inet wgd s " in str(steps[0])
    assert added(steps) == []
    assert "element" not in whole_table(WANTED, now)


@pytest.mark.parametrize(
    ("now", "actual"),
    [
        (END - 60, found(ONE, OTHER)),
        (END - 60, found(ONE, OTHER, until=END + 2)),
        (END - SLACK / 2, found(ONE, OTHER)),
        (END, found(ONE)),
        (END + SLACK / 2, found(until=0)),
        (END + SLACK, found(until=0)),
    ],
)
def test_what_is_left_by_now_is_no_difference(now: float, actual: Ruleset) -> None:
    assert differences(WANTED, actual, now) == ()
    assert transactions(WANTED, actual, now) == ()


@pytest.mark.parametrize(
    ("now", "actual"),
    [
        (END - 60, found(ONE)),
        (END - 60, found(until=0)),
        (END - 60, found(ONE, OTHER, until=END + 3)),
        (END, found(((7, 7),))),
        (END + SLACK, found(ONE, OTHER, until=END + 9)),
    ],
    ids=["one is missing", "all are missing", "lives longer", "another element", "outlives its end"],
)
def test_anything_else_is_one_and_is_put_right_by_filling_the_set_anew(now: float, actual: Ruleset) -> None:
    assert differences(WANTED, actual, now) == ("set s",)
    (step,) = transactions(WANTED, actual, now)
    assert step[0] == ElementChange(Action.FLUSH, "s")
    assert [change.timeout for change in added((step,))] == ([END - now] if now < END else [])


def test_a_set_that_somebody_made_without_an_end_is_replaced_with_the_table() -> None:
    (text,) = transactions(WANTED, found(ONE, OTHER, until=None), END - 60)
    assert str(text).startswith("delete table inet wgd")
