from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given

from tests.unit.policy.policy_examples import CLIENTS, allow, configs, rule, server_config
from wgd.model import ServerConfig
from wgd.plan.ruleset import differences, transactions
from wgd.policy.ruleset import Chain, KeySet, Ruleset, VerdictMap
from wgd.policy.table import desired_ruleset

NONE_HELD = frozenset[int]()


def ruleset(*grants: str) -> Ruleset:
    return desired_ruleset(server_config(rule(*map(allow, grants), clients=CLIENTS[:2])), NONE_HELD)


@given(configs())
def test_equal_rulesets_need_nothing(config: ServerConfig) -> None:
    wanted = desired_ruleset(config, NONE_HELD)
    assert transactions(wanted, desired_ruleset(config, NONE_HELD)) == ()
    assert differences(wanted, desired_ruleset(config, NONE_HELD)) == ()


def test_an_absent_table_is_made_in_one_transaction_that_deletes_nothing() -> None:
    (text,) = transactions(ruleset("10.20.0.0/24"), None)
    assert text.splitlines()[0] == "add table inet wgd"
    assert not [line for line in text.splitlines() if not line.startswith("add ")]


def test_a_change_of_policy_adds_then_switches_then_removes() -> None:
    added, switched, removed = transactions(ruleset("10.20.0.1/32"), ruleset("10.20.0.2/32"))
    assert {line.split()[0] for line in added.splitlines()} == {"add"}
    assert {tuple(line.split()[:2]) for line in switched.splitlines()} == {("delete", "element"), ("add", "element")}
    assert {line.split()[0] for line in removed.splitlines()} == {"flush", "delete"}


def test_every_verdict_is_switched_in_the_same_transaction() -> None:
    _, switched, _ = transactions(ruleset("10.20.0.1/32"), ruleset("10.20.0.2/32"))
    asked = {line.split()[4] for line in switched.splitlines()}
    # The grants name hosts, so that the gateway's own addresses are asked for too.
    assert asked == {
        f"{purpose}{family}" for purpose in ("out", "in", "related", "own_out", "own_in") for family in (4, 6)
    }


def test_a_policy_that_goes_takes_its_rules_before_its_chains_and_its_chains_before_its_sets() -> None:
    *_, removed = transactions(ruleset(), ruleset("10.20.0.1/32"))
    kinds = [tuple(line.split()[:2]) for line in removed.splitlines()]
    order = [("flush", "chain"), ("delete", "chain"), ("delete", "set")]
    assert all(order.index(one) <= order.index(next_one) for one, next_one in pairwise(kinds))
    assert set(kinds) == set(order)


def test_a_fixed_chain_is_rewritten_whole_in_one_transaction() -> None:
    config = server_config()
    (text,) = transactions(desired_ruleset(config, frozenset({4})), desired_ruleset(config, NONE_HELD))
    first, *rest = text.splitlines()
    assert first == "flush chain inet wgd unmarked"
    assert all(line.startswith("add rule inet wgd unmarked ") for line in rest)


def test_an_element_is_all_that_changes_with_a_client() -> None:
    one = desired_ruleset(server_config(rule(allow("10.20.0.0/24"), clients=CLIENTS)), NONE_HELD)
    other = desired_ruleset(server_config(rule(allow("10.20.0.0/24"), clients=CLIENTS[:2])), NONE_HELD)
    (text,) = transactions(other, one)
    assert {tuple(line.split()[:2]) for line in text.splitlines()} == {("delete", "element")}


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
    assert text.splitlines()[:2] == ["delete table inet wgd", "add table inet wgd"]


def test_a_chains_first_rule_carries_its_mark() -> None:
    chain = Chain.of("counter", "accept")
    (text,) = transactions(Ruleset({"c": chain}), Ruleset())
    assert text.splitlines() == [
        "add chain inet wgd c",
        f'add rule inet wgd c counter comment "{chain.mark}"',
        "add rule inet wgd c accept",
    ]


def test_elements_are_written_as_nft_reads_them() -> None:
    key_set = KeySet(("inet_service", "inet_proto", "ipv6_addr"), frozenset({((80, 90), (6, 6), (1, 2**128 - 1))}))
    one = "0000:0000:0000:0000:0000:0000:0000:0001"
    (text,) = transactions(Ruleset(sets={"s": key_set}), Ruleset())
    assert text.splitlines() == [
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


def test_a_change_takes_the_generation_out_of_force_with_the_switch_and_brings_the_next_one_after_it() -> None:
    before, after = numbered(ruleset("10.20.0.1/32"), 7), numbered(ruleset("10.20.0.2/32"), 8)
    added, switched, removed = transactions(after, before)
    assert "generation" not in added
    assert "flush set inet wgd generation" in switched.splitlines()
    assert "0x08000000" not in switched
    assert "add element inet wgd generation { 0x08000000 }" in removed.splitlines()
    assert any("ct mark set" in line and "0x08000000" in line for line in removed.splitlines())


def test_nothing_is_marked_with_a_generation_before_it_is_in_force() -> None:
    before, after = numbered(ruleset("10.20.0.1/32"), 7), numbered(ruleset("10.20.0.2/32"), 8)
    without = replace(before, chains={name: chain for name, chain in before.chains.items() if name != "allow"})
    assert not [text for text in transactions(after, without)[:-1] if "0x08000000" in text]


def test_a_new_table_has_its_generation_at_once() -> None:
    (text,) = transactions(numbered(ruleset("10.20.0.1/32"), 3), None)
    assert "add element inet wgd generation { 0x03000000 }" in text.splitlines()
    assert "$generation" not in text


def test_a_generation_that_is_not_the_wanted_one_is_a_difference() -> None:
    wanted = numbered(ruleset("10.20.0.1/32"), 3)
    assert differences(wanted, numbered(wanted, 2)) == ("set generation",)
    assert differences(ruleset("10.20.0.1/32"), numbered(wanted, 2)) == ()
