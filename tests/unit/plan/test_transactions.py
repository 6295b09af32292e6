from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given

from tests.unit.policy.policy_examples import CLIENTS, allow, configs, rule, server_config
from wgd.model import ServerConfig
from wgd.plan import ruleset as plan
from wgd.plan.ruleset_text import whole_table
from wgd.plan.state import Action, ElementChange, Transaction
from wgd.policy.ruleset import GENERATION_SET, Chain, KeySet, Ruleset, VerdictMap
from wgd.policy.table import desired_ruleset

NONE_HELD = frozenset[int]()
NOW = 1_000_000.0


def transactions(desired: Ruleset, actual: Ruleset | None) -> tuple[Transaction, ...]:
    return plan.transactions(desired, actual, NOW)


def differences(desired: Ruleset, actual: Ruleset | None) -> tuple[str, ...]:
    return plan.differences(desired, actual, NOW)


def lines(steps: Iterable[Transaction]) -> list[str]:
    """Return the lines of all steps that are text."""
    return [line for step in steps if isinstance(step, str) for line in step.splitlines()]


def changes(steps: Iterable[Transaction]) -> list[ElementChange]:
    """Return the changes of all steps that are about elements."""
    return [change for step in steps if not isinstance(step, str) for change in step]


def ruleset(*grants: str) -> Ruleset:
    return desired_ruleset(server_config(rule(*map(allow, grants), clients=CLIENTS[:2])), NONE_HELD)


@given(configs())
def test_equal_rulesets_need_nothing(config: ServerConfig) -> None:
    wanted = desired_ruleset(config, NONE_HELD)
    assert transactions(wanted, desired_ruleset(config, NONE_HELD)) == ()
    assert differences(wanted, desired_ruleset(config, NONE_HELD)) == ()


def test_an_absent_table_is_made_without_deleting_anything() -> None:
    steps = transactions(ruleset("10.20.0.0/24"), None)
    assert lines(steps)[0] == "add table inet wgd"
    assert not [line for line in lines(steps) if not line.startswith("add ")]
    assert {change.action for change in changes(steps)} == {Action.ADD}


def test_the_base_chains_of_a_new_table_come_when_all_that_they_ask_is_there() -> None:
    *before, last = transactions(ruleset("10.20.0.0/24"), None)
    assert not [line for line in lines(before) if " hook " in line]
    assert isinstance(last, str)
    assert " hook " in last


def test_each_set_of_a_new_table_is_filled_by_itself() -> None:
    steps = transactions(ruleset("10.20.0.0/24"), None)
    filled = [{change.name for change in step} for step in steps if not isinstance(step, str)]
    assert [len(names) for names in filled] == [1] * len(filled)
    assert len(filled) > 2


def test_a_change_of_policy_adds_and_fills_then_switches_then_removes() -> None:
    added, *filled, switched, removed = transactions(ruleset("10.20.0.1/32"), ruleset("10.20.0.2/32"))
    assert {line.split()[0] for line in lines([added])} == {"add"}
    assert {change.action for change in changes(filled)} == {Action.ADD}
    assert all(change.name.startswith(("policy_", "own_")) for change in changes(filled))
    assert {change.action for change in changes([switched])} == {Action.DELETE, Action.ADD}
    assert {line.split()[0] for line in lines([removed])} == {"flush", "delete"}


def test_every_verdict_is_switched_in_the_same_transaction() -> None:
    *_, switched, _ = transactions(ruleset("10.20.0.1/32"), ruleset("10.20.0.2/32"))
    # The grants name hosts, so that the gateway's own addresses are asked for too.
    assert {change.name for change in changes([switched])} == {
        f"{purpose}{family}" for purpose in ("out", "in", "related", "own_out", "own_in") for family in (4, 6)
    }


def test_a_policy_that_goes_takes_its_rules_before_its_chains_and_its_chains_before_its_sets() -> None:
    *_, removed = transactions(ruleset(), ruleset("10.20.0.1/32"))
    kinds = [tuple(line.split()[:2]) for line in lines([removed])]
    order = [("flush", "chain"), ("delete", "chain"), ("delete", "set")]
    assert all(order.index(one) <= order.index(next_one) for one, next_one in pairwise(kinds))
    assert set(kinds) == set(order)


def test_a_fixed_chain_is_rewritten_whole_in_one_transaction() -> None:
    config = server_config()
    (text,) = transactions(desired_ruleset(config, frozenset({4})), desired_ruleset(config, NONE_HELD))
    first, *rest = lines([text])
    assert first == "flush chain inet wgd unmarked"
    assert all(line.startswith("add rule inet wgd unmarked ") for line in rest)


def test_a_fixed_chain_asks_the_new_elements_from_then_on() -> None:
    before = desired_ruleset(server_config(rule(allow("10.20.0.0/24"), clients=CLIENTS)), NONE_HELD)
    after = desired_ruleset(server_config(rule(allow("10.20.0.0/24"), clients=CLIENTS[:2])), frozenset({4}))
    switched, rewritten = transactions(after, before)
    assert changes([switched])
    assert lines([rewritten])[0] == "flush chain inet wgd unmarked"


def test_an_element_is_all_that_changes_with_a_client() -> None:
    one = desired_ruleset(server_config(rule(allow("10.20.0.0/24"), clients=CLIENTS)), NONE_HELD)
    other = desired_ruleset(server_config(rule(allow("10.20.0.0/24"), clients=CLIENTS[:2])), NONE_HELD)
    (step,) = transactions(other, one)
    assert {change.action for change in changes([step])} == {Action.DELETE}


def test_what_is_touched_is_what_a_change_adds_changes_or_removes() -> None:
    before, after = numbered(ruleset("10.20.0.1/32"), 7), numbered(ruleset("10.20.0.2/32"), 9)
    steps = transactions(after, before)
    named = {line.split()[4] for line in lines(steps)} | {change.name for change in changes(steps)}
    assert plan.touched(after, before, NOW) == named


TYPED = (
    Ruleset(sets={"s": KeySet(("ipv4_addr",), frozenset())}),
    Ruleset(maps={"s": VerdictMap(("ipv4_addr",), {})}),
    Ruleset(chains={"s": Chain.of("accept", hook="type filter hook input priority 0; policy accept;")}),
)
RETYPED = (
    Ruleset(sets={"s": KeySet(("ipv6_addr",), frozenset())}),
    Ruleset(maps={"s": VerdictMap(("ipv6_addr",), {})}),
    Ruleset(chains={"s": Chain.of("accept", hook="type filter hook input priority 5; policy accept;")}),
)


@pytest.mark.parametrize(("before", "after"), zip(TYPED, RETYPED, strict=True), ids=["set", "map", "chain"])
def test_what_no_delta_can_change_replaces_the_table_in_one_transaction(before: Ruleset, after: Ruleset) -> None:
    (text,) = transactions(after, before)
    assert lines([text])[:2] == ["delete table inet wgd", "add table inet wgd"]


def test_a_chains_first_rule_carries_its_mark() -> None:
    chain = Chain.of("counter", "accept")
    assert lines(transactions(Ruleset({"c": chain}), Ruleset())) == [
        "add chain inet wgd c",
        f'add rule inet wgd c counter comment "{chain.mark}"',
        "add rule inet wgd c accept",
    ]


def test_elements_are_written_as_nft_reads_them() -> None:
    key_set = KeySet(("inet_service", "inet_proto", "ipv6_addr"), frozenset({((80, 90), (6, 6), (1, 2**128 - 1))}))
    one = "0000:0000:0000:0000:0000:0000:0000:0001"
    assert whole_table(Ruleset(sets={"s": key_set}), NOW).splitlines()[2:] == [
        "add set inet wgd s { type inet_service . inet_proto . ipv6_addr; flags interval; }",
        f"add element inet wgd s {{ 80-90 . 6 . {one}-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff }}",
    ]


def test_differences_name_what_is_gone_changed_and_too_much() -> None:
    wanted = Ruleset({"a": Chain.of("accept"), "b": Chain.of("accept")}, {"s": KeySet(("ipv4_addr",), frozenset())})
    actual = Ruleset({"b": Chain.of("drop"), "c": Chain.of("accept")}, maps={"m": VerdictMap(("ipv4_addr",), {})})
    assert differences(wanted, actual) == ("chain a", "chain b", "chain c", "set s", "map m")


def test_a_missing_table_is_one_difference() -> None:
    assert differences(ruleset(), None) == ("table",)


def numbered(found: Ruleset, generation: int) -> Ruleset:
    return replace(found, generation=generation)


def test_a_change_takes_the_generation_out_of_force_with_the_switch_and_brings_the_next_one_last() -> None:
    before, after = numbered(ruleset("10.20.0.1/32"), 7), numbered(ruleset("10.20.0.2/32"), 9)
    *first, withdrawn, switched, removed, opened = transactions(after, before)
    assert GENERATION_SET not in {change.name for change in changes(first)}
    accepting = [line for line in lines([withdrawn]) if "ct mark &" in line]
    assert accepting
    assert all("== 0x00000001" in line for line in accepting)
    assert not any("0x00000001" in line for line in lines([removed]))
    assert [change.action for change in changes([switched]) if change.name == GENERATION_SET] == [Action.FLUSH]
    assert any("ct mark set" in line and "0x12000000" in line for line in lines([removed]))
    mark = ((9 << 25, 9 << 25),)
    assert changes([opened]) == [ElementChange(Action.ADD, GENERATION_SET, ("mark",), (mark,), interval=False)]


def test_nothing_is_marked_with_a_generation_before_its_rules_are_in_force() -> None:
    before, after = numbered(ruleset("10.20.0.1/32"), 7), numbered(ruleset("10.20.0.2/32"), 9)
    without = replace(before, chains={name: chain for name, chain in before.chains.items() if name != "allow"})
    *others, _, _ = transactions(after, without)
    assert not [line for line in lines(others) if "0x12000000" in line]


def test_a_change_that_keeps_the_generation_leaves_it_in_force() -> None:
    before = numbered(ruleset("10.20.0.1/32"), 9)
    chain = before.chains["prerouting"]
    changed = {**before.chains, "prerouting": Chain.of(*chain.rules, "accept", hook=chain.hook)}
    found = lines(transactions(replace(before, chains=changed, generation=0), before))
    assert any("ct mark & 0x3e000000 == 0x12000000" in line for line in found)
    assert not any("0x00000001" in line for line in found)


def test_a_new_table_has_its_generation_when_all_stands() -> None:
    wanted = numbered(ruleset("10.20.0.1/32"), 3)
    *before, last = transactions(wanted, None)
    assert [change.elements for change in changes([last])] == [(((3 << 25, 3 << 25),),)]
    assert not [line for line in lines(before) if "$" in line]
    assert any("ct mark & 0x3e000000 == 0x06000000" in line for line in lines(before))
    assert "add element inet wgd generation { 0x06000000 }" in whole_table(wanted, NOW).splitlines()


def test_a_generation_that_is_not_the_wanted_one_is_a_difference() -> None:
    wanted = numbered(ruleset("10.20.0.1/32"), 3)
    assert differences(wanted, numbered(wanted, 2)) == ("set generation",)
    assert differences(ruleset("10.20.0.1/32"), numbered(wanted, 2)) == ()


def test_rules_that_accept_without_asking_are_deleted_by_their_handles_where_their_chain_is_as_wanted() -> None:
    before, after = numbered(ruleset("10.20.0.1/32"), 7), numbered(ruleset("10.20.0.2/32"), 8)
    chain = before.chains["prerouting"]
    read = replace(
        before, chains={**before.chains, "prerouting": replace(chain, handles=tuple(range(chain.rule_count)))}
    )
    withdrawn = [line for line in lines(transactions(after, read)) if line.startswith("delete rule")]
    accepting = [index for index, rule in enumerate(chain.rules) if "$in_force" in rule or "$answered" in rule]
    assert withdrawn == [f"delete rule inet wgd prerouting handle {index}" for index in accepting]
    assert withdrawn
