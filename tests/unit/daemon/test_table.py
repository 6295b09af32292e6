"""The generations over the life of a table: none comes into force while a flow may still carry it from before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wgd.daemon import table as module
from wgd.daemon.table import Table
from wgd.errors import KernelError
from wgd.plan.ruleset_text import DELETE_TABLE
from wgd.plan.state import Transaction
from wgd.policy.ruleset import LAST_GENERATION, Chain, KeySet, Ruleset

RULESETS = tuple(Ruleset({"allow": Chain.of("ct mark set $generation"), "c": Chain.of(rule)}) for rule in "ab")
LARGER = tuple(
    replace(ruleset, chains={**ruleset.chains, "d": Chain.of("d")}, sets={"s": KeySet(("ipv4_addr",), frozenset())})
    for ruleset in RULESETS
)
"""The same with what does not change."""


class Kernel:
    """A kernel with flows: `carried` are the generations that flows may be marked with.

    `asked` are the names of the chains and sets of which each reading asked, which are not vouched for.
    """

    def __init__(self) -> None:
        self.table: Ruleset | None = None
        self.changes = 1
        self.carried: set[int] = set()
        self.texts: list[Transaction] = []
        self.asked: list[set[str]] = []
        self.refuses = False

    def number(self) -> int:
        return self.changes

    def read(self, like: Ruleset, unchanged: Ruleset) -> Ruleset | None:
        del like
        if self.table is not None:
            names = self.table.chains.keys() | self.table.sets.keys()
            self.asked.append(set(names - unchanged.chains.keys() - unchanged.sets.keys()))
        return self.table

    def apply(self, steps: tuple[Transaction, ...], _planned: float | None = None) -> None:
        self.texts += steps
        self.changes += len(steps)
        if steps == (DELETE_TABLE,):
            self.table = None
        if self.refuses:
            raise KernelError("nftables", "no")

    def somebody_changes(self, table: Ruleset | None) -> None:
        self.table = table
        self.changes += 1

    def forget(self, *, upper: bool) -> None:
        self.carried = {number for number in self.carried if (number >= 16) != upper}

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


def test_a_restart_believes_no_chain_that_an_earlier_run_left_and_leaves_all_else(kernel: Kernel) -> None:
    change(Table(), kernel, RULESETS[0])
    kernel.texts.clear()
    assert change(Table(), kernel, RULESETS[0]) == 2
    text = "\n".join(step for step in kernel.texts if isinstance(step, str))
    assert {f"flush chain inet wgd {name}" for name in RULESETS[0].chains} <= set(text.splitlines())
    elements = [changed.name for step in kernel.texts if not isinstance(step, str) for changed in step]
    assert set(elements) <= {"generation"}


def test_a_second_look_at_what_was_just_set_changes_nothing(kernel: Kernel) -> None:
    table = Table()
    change(table, kernel, RULESETS[0])
    table.trust(table.read())
    kernel.texts.clear()
    table.set(RULESETS[0])
    assert (kernel.texts, table.applied.generation) == ([], 1)


def test_a_restart_with_another_config_goes_on_counting(kernel: Kernel) -> None:
    change(Table(), kernel, RULESETS[0])
    assert change(Table(), kernel, RULESETS[1]) == 2


def test_a_flushed_table_does_not_begin_again_at_one(kernel: Kernel) -> None:
    table = Table()
    for ruleset in RULESETS:
        change(table, kernel, ruleset)
    kernel.somebody_changes(None)
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
    kernel.somebody_changes(replace(RULESETS[1], generation=1))
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


def test_a_table_that_nobody_has_touched_is_not_read_again(kernel: Kernel) -> None:
    table = Table()
    change(table, kernel, RULESETS[0])
    table.trust(table.read())
    kernel.asked.clear()
    assert change(table, kernel, RULESETS[1]) == 2
    assert kernel.asked == []


def test_after_a_change_only_what_it_touched_is_read(kernel: Kernel) -> None:
    table = Table()
    change(table, kernel, LARGER[0])
    table.trust(table.read())
    kernel.asked.clear()
    change(table, kernel, LARGER[1])
    table.read()
    assert kernel.asked == [{"allow", "c"}]


def test_what_the_kernel_ends_by_itself_is_read_every_time(kernel: Kernel) -> None:
    table = Table()
    ending = replace(RULESETS[0], sets={"s": KeySet(("ipv4_addr",), frozenset(), until=9)})
    change(table, kernel, ending)
    table.read()
    kernel.asked.clear()
    table.read()
    assert kernel.asked == [{"s"}]


def test_a_table_that_somebody_may_have_touched_is_read(kernel: Kernel) -> None:
    table = Table()
    change(table, kernel, RULESETS[0])
    table.trust(table.read())
    kernel.somebody_changes(None)
    change(table, kernel, RULESETS[1])
    assert "add table inet wgd" in str(kernel.texts)


def test_all_of_it_is_read_when_somebody_changed_something_at_the_same_time(kernel: Kernel) -> None:
    table = Table()
    change(table, kernel, LARGER[0])
    table.trust(table.read())
    change(table, kernel, LARGER[1])
    kernel.somebody_changes(kernel.table)
    kernel.asked.clear()
    table.read()
    assert kernel.asked == [{"allow", "c", "d", "s"}]
    assert not table.is_as_trusted()
