"""The generations over the life of a table: none comes into force while a flow may still carry it from before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wgd.daemon import table as module
from wgd.daemon.table import Table
from wgd.errors import KernelError
from wgd.plan.ruleset import DELETE_TABLE
from wgd.policy.ruleset import LAST_GENERATION, Chain, Ruleset

RULESETS = tuple(Ruleset({"allow": Chain.of("ct mark set $generation"), "c": Chain.of(rule)}) for rule in "ab")


class Kernel:
    """A kernel with flows: `carried` are the generations that flows may be marked with."""

    def __init__(self) -> None:
        self.table: Ruleset | None = None
        self.carried: set[int] = set()
        self.texts: list[str] = []
        self.refuses = False

    def read(self) -> Ruleset | None:
        return self.table

    def apply(self, texts: tuple[str, ...]) -> None:
        self.texts += texts
        if texts == (DELETE_TABLE,):
            self.table = None
        if self.refuses:
            raise KernelError("nftables", "no")

    def forget(self, *, upper: bool) -> None:
        self.carried = {number for number in self.carried if (number >= 32) != upper}

    def holds(self, ruleset: Ruleset) -> None:
        assert ruleset.generation not in self.carried, "a flow of an earlier generation would come back"
        self.table = ruleset
        self.carried.add(ruleset.generation)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(module, "Nft", lambda: made)
    monkeypatch.setattr(module, "forget_generations", made.forget)
    return made


def change(table: Table, kernel: Kernel, to: Ruleset) -> int:
    table.set(to)
    kernel.holds(table.applied)
    return table.applied.generation


def test_every_change_has_the_next_generation_and_none_revives_a_flow(kernel: Kernel) -> None:
    table = Table()
    used = [change(table, kernel, RULESETS[number % 2]) for number in range(3 * LAST_GENERATION)]
    assert used == [*range(1, LAST_GENERATION + 1)] * 3


def test_a_restart_with_an_unchanged_config_changes_nothing(kernel: Kernel) -> None:
    change(Table(), kernel, RULESETS[0])
    kernel.texts.clear()
    table = Table()
    table.set(RULESETS[0])
    assert (kernel.texts, table.applied.generation) == ([], 1)


def test_a_restart_with_another_config_goes_on_counting(kernel: Kernel) -> None:
    change(Table(), kernel, RULESETS[0])
    assert change(Table(), kernel, RULESETS[1]) == 2


def test_a_flushed_table_does_not_begin_again_at_one(kernel: Kernel) -> None:
    table = Table()
    for ruleset in RULESETS:
        change(table, kernel, ruleset)
    kernel.table = None
    assert change(table, kernel, RULESETS[1]) == 3


def test_where_there_is_no_table_and_no_memory_every_flow_is_unmarked_first(kernel: Kernel) -> None:
    kernel.carried = {1, 2, 200}
    assert change(Table(), kernel, RULESETS[0]) == 1
    assert kernel.carried == {1}


def test_a_table_whose_generation_nobody_knows_is_replaced(kernel: Kernel) -> None:
    kernel.carried = {1, 200}
    kernel.table = replace(RULESETS[0], generation=0)
    assert change(Table(), kernel, RULESETS[0]) == 1
    assert kernel.texts[0] == DELETE_TABLE


def test_another_generation_that_somebody_put_in_force_is_not_taken_over(kernel: Kernel) -> None:
    table = Table()
    for ruleset in RULESETS:
        change(table, kernel, ruleset)
    kernel.table = replace(RULESETS[1], generation=1)
    assert change(table, kernel, RULESETS[1]) == 3


def test_a_change_that_was_refused_has_used_its_generation(kernel: Kernel) -> None:
    table = Table()
    change(table, kernel, RULESETS[0])
    kernel.refuses = True
    with pytest.raises(KernelError):
        table.set(RULESETS[1])
    kernel.refuses = False
    kernel.carried.add(2)
    kernel.table = replace(RULESETS[0], generation=0)
    assert change(table, kernel, RULESETS[0]) == 3


def test_a_table_that_nobody_has_touched_is_not_read_again(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    number = 7
    monkeypatch.setattr(module, "ruleset_number", lambda: number)
    table = Table()
    change(table, kernel, RULESETS[0])
    table.trust(table.read())
    monkeypatch.setattr(kernel, "read", lambda: pytest.fail("the table was read"))
    assert change(table, kernel, RULESETS[1]) == 2


def test_a_table_that_somebody_may_have_touched_is_read(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100))
    monkeypatch.setattr(module, "ruleset_number", lambda: next(numbers))
    table = Table()
    change(table, kernel, RULESETS[0])
    table.trust(table.read())
    kernel.table = None
    change(table, kernel, RULESETS[1])
    assert kernel.texts[-1].startswith("add table")
