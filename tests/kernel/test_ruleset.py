"""The rulesets that wgd writes, in a real kernel: what is read back is what was wanted, and nothing is left to do."""

import subprocess
import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.policy.hostile_policies import POLICIES
from tests.unit.policy.policy_examples import CLIENTS, allow, configs, rule, server_config
from wgd.errors import KernelError
from wgd.kernel.nft import Nft
from wgd.model import AuthzMode
from wgd.plan.ruleset import differences, transactions
from wgd.policy.ruleset import Ruleset
from wgd.policy.table import desired_ruleset

HELD = st.sampled_from([frozenset(), frozenset({4}), frozenset({4, 6})])
real_kernel = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def command(*words: str) -> str:
    """Run nft itself beside the door: an independent reader and writer."""
    return subprocess.run(["nft", *words], check=True, capture_output=True, text=True, timeout=60).stdout


def go_to(nft: Nft, desired: Ruleset) -> None:
    nft.apply(transactions(desired, nft.read(), time.time()))


@real_kernel
@given(configs(), HELD, configs(), HELD)
def test_from_any_ruleset_to_any_other_the_kernel_ends_with_what_was_wanted(
    namespace: Nft, before: object, held_before: frozenset[int], after: object, held_after: frozenset[int]
) -> None:
    namespace.delete()
    first, second = desired_ruleset(before, held_before), desired_ruleset(after, held_after)
    go_to(namespace, first)
    assert differences(first, namespace.read(), time.time()) == ()
    go_to(namespace, second)
    actual = namespace.read()
    assert differences(second, actual, time.time()) == ()
    assert transactions(second, actual, time.time()) == ()


def test_there_is_no_ruleset_where_nobody_made_one(nft: Nft) -> None:
    assert nft.read() is None


def test_delete_takes_our_table_alone_and_may_be_repeated(nft: Nft) -> None:
    command("add table inet neighbour")
    go_to(nft, desired_ruleset(server_config(), frozenset()))
    nft.delete()
    nft.delete()
    assert command("list", "tables") == "table inet neighbour\n"
    command("delete table inet neighbour")


def test_a_transaction_that_fails_changes_nothing_and_gives_the_words_of_nft(nft: Nft) -> None:
    desired = desired_ruleset(server_config(), frozenset())
    go_to(nft, desired)
    with pytest.raises(KernelError, match="No such file or directory") as raised:
        nft.apply(("flush chain inet wgd forward\ndelete set inet wgd absent",))
    assert "\n" not in str(raised.value)
    assert nft.read() == desired


@pytest.mark.parametrize(
    ("tamper", "changed"),
    [
        ("flush chain inet wgd forward", "chain forward"),
        ("insert rule inet wgd forward accept", "chain forward"),
        ("add rule inet wgd input accept", "chain input"),
        ("add chain inet wgd prerouting { policy drop; }", "chain prerouting"),
        ("delete element inet wgd clients4 { 10.80.0.2 }", "set clients4"),
        ("add element inet wgd clients4 { 192.0.2.0/24 }", "set clients4"),
        ("delete element inet wgd out4 { 10.80.0.2 }", "map out4"),
        ("add element inet wgd out4 { 10.80.0.3 : accept }", "map out4"),
        ("add chain inet wgd theirs", "chain theirs"),
        ("add set inet wgd theirs { type ifname; elements = { eth0 }; }", "set theirs"),
        ("add set inet wgd theirs { type ether_addr; elements = { 02:00:00:00:00:01 }; }", "set theirs"),
        ("add set inet wgd theirs { type ipv4_addr; flags timeout; elements = { 1.1.1.1 timeout 1h }; }", "set theirs"),
        ("add set inet wgd theirs { typeof ct state; elements = { new }; }", "set theirs"),
        ("add map inet wgd theirs { type ipv4_addr : mark; elements = { 1.1.1.1 : 5 }; }", "map theirs"),
    ],
)
def test_what_somebody_changes_by_hand_is_found_and_put_back(nft: Nft, tamper: str, changed: str) -> None:
    desired = desired_ruleset(server_config(rule(allow("10.20.0.0/24", 6, 80))), frozenset())
    go_to(nft, desired)
    command(tamper)
    assert differences(desired, nft.read(), time.time()) == (changed,)
    go_to(nft, desired)
    assert nft.read() == desired


def test_a_flushed_ruleset_is_found_as_a_missing_table(nft: Nft) -> None:
    desired = desired_ruleset(server_config(), frozenset())
    go_to(nft, desired)
    command("flush ruleset")
    assert differences(desired, nft.read(), time.time()) == ("table",)


def test_two_rules_that_overlap_in_every_way_load(nft: Nft) -> None:
    tangle = rule(
        *(allow(to, 6, (1, 65535)) for to in ("10.0.0.0/8", "0.0.0.0/0", "10.20.0.0/24")),
        *(allow("10.20.0.0/24", 6, (first, first + 10)) for first in range(80, 100, 3)),
        *(allow(to, proto) for to in ("::/0", "fd20::/64", "fd20::1/128") for proto in (None, 6, 58)),
    )
    desired = desired_ruleset(server_config(tangle), frozenset())
    go_to(nft, desired)
    assert nft.read() == desired


def test_a_change_of_one_clients_rule_touches_no_chain_of_the_others(nft: Nft) -> None:
    others = rule(allow("10.20.0.0/24"), clients=CLIENTS[1:])
    before = desired_ruleset(server_config(others, rule(allow("10.20.0.1/32", 6, 80))), frozenset())
    after = desired_ruleset(server_config(others, rule(allow("10.20.0.1/32", 6, 81))), frozenset())
    go_to(nft, before)
    texts = [step for step in transactions(after, nft.read(), time.time()) if isinstance(step, str)]
    kept = before.chains.keys() & after.chains.keys()
    assert len(kept) > len(after.chains) / 2
    assert kept.isdisjoint(word for text in texts for line in text.splitlines() for word in line.split()[:5])


def test_a_change_of_mode_takes_the_drops_away_and_brings_them_back(nft: Nft) -> None:
    enforce = server_config(rule(allow("10.20.0.0/24")), logging=True)
    observe = replace(enforce, authz_mode=AuthzMode.OBSERVE)
    for config in (enforce, observe, enforce):
        desired = desired_ruleset(config, frozenset())
        go_to(nft, desired)
        assert nft.read() == desired


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_that_nobody_expects_loads_and_is_read_back(nft: Nft, name: str) -> None:
    desired = desired_ruleset(server_config(rule(*POLICIES[name]())), frozenset())
    go_to(nft, desired)
    assert nft.read() == desired
