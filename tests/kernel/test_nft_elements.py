"""Elements as bytes against nft itself: it lists what we write, and we read what it writes."""

import json
import re
import subprocess
import time
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.unit.policy.policy_examples import CLIENTS, allow, configs, rule, server_config
from wgd.errors import KernelError
from wgd.kernel.nft import Nft
from wgd.model import ServerConfig
from wgd.plan.ruleset import differences, transactions
from wgd.plan.ruleset_text import whole_table
from wgd.plan.state import Action, ElementChange
from wgd.policy.ruleset import Element, Ruleset
from wgd.policy.table import desired_ruleset


def command(text: str) -> str:
    return subprocess.run(["nft", "-f", "-"], input=text, check=True, capture_output=True, text=True).stdout


def listing() -> dict[str, Any]:
    """Return what nft lists of each object, without handles; elements in an order of their own."""
    listed = subprocess.run(["nft", "-j", "list", "table", "inet", "wgd"], check=True, capture_output=True, text=True)
    found: dict[str, Any] = {}
    for each in json.loads(listed.stdout)["nftables"]:
        for kind, content in each.items():
            content.pop("handle", None)
            content["elem"] = sorted(map(untimed, map(json.dumps, content.get("elem", []))))
            found.setdefault(f"{kind} {content.get('chain') or content.get('name')}", []).append(content)
    return found


def untimed(element: str) -> str:
    """Return a listed element without what is left of its time."""
    return re.sub(r'"(?:timeout|expires)": \d+', "", element)


def load(nft: Nft, desired: Ruleset) -> None:
    nft.delete()
    nft.apply(transactions(desired, None, time.time()))


def test_what_passes_between_plan_and_kernel_is_taken_off_the_timeouts(namespace: Nft) -> None:
    """The transactions of a large table take seconds: the grant ends at its time all the same."""
    until = int(time.time()) + 100
    ending = server_config(replace(rule(allow("10.20.0.0/24", 6, 80)), until=until))
    desired, planned = desired_ruleset(ending, frozenset()), time.time() - 10
    namespace.delete()
    namespace.apply(transactions(desired, None, planned), planned)
    assert differences(desired, namespace.read(), time.time()) == ()


def same_either_way(nft: Nft, desired: Ruleset) -> None:
    load(nft, desired)
    ours = listing()
    assert differences(desired, nft.read(), time.time()) == ()
    command(f"delete table inet wgd\n{whole_table(desired, time.time())}")
    assert listing() == ours
    assert differences(desired, nft.read(), time.time()) == ()


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(configs())
def test_nft_lists_and_we_read_the_same_whoever_wrote_it(namespace: Nft, config: ServerConfig) -> None:
    namespace.delete()
    same_either_way(namespace, desired_ruleset(config, frozenset()))


def test_so_with_elements_of_every_kind_of_set(nft: Nft) -> None:
    everything = rule(
        *(allow(to, *rest) for to in ("10.20.0.0/24", "10.30.0.1/32") for rest in ((), (6,), (6, 80), (6, (90, 99)))),
        *(allow(to, *rest) for to in ("fd20::/64", "fd30::1/128") for rest in ((), (6,), (6, 80), (6, (90, 99)))),
        clients=CLIENTS[1:3],
    )
    alone = rule(*everything.allow[:-1])
    desired = desired_ruleset(server_config(everything, alone), frozenset())
    keys = {key_set.fields for key_set in desired.sets.values()}
    for family in ("ipv4_addr", "ipv6_addr"):
        shared = {(family,), ("inet_proto", family), ("inet_service", "inet_proto", family)}
        assert keys >= shared | {(family, *fields) for fields in shared}
    same_either_way(nft, desired)


def interval(first: str, last: str | None = None) -> Element:
    return ((int(ip_address(first)), int(ip_address(last or first))),)


@pytest.mark.parametrize(
    ("kind", "elements"),
    [
        ("ipv4_addr", [interval("0.0.0.0", "255.255.255.255")]),
        ("ipv4_addr", [interval("0.0.0.0"), interval("255.255.255.255")]),
        ("ipv4_addr", [interval("10.0.0.2"), interval("10.0.0.3"), interval("10.0.0.4", "10.0.0.6")]),
        ("ipv6_addr", [interval("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]),
        ("ipv6_addr", [interval("::"), interval("fd20::", "fd20::ffff"), interval("fd20::1:0")]),
    ],
)
def test_intervals_at_the_ends_of_a_family_and_beside_each_other(nft: Nft, kind: str, elements: list[Element]) -> None:
    nft.apply((f"add table inet wgd\nadd set inet wgd s {{ type {kind}; flags interval; }}",))
    nft.apply(((ElementChange(Action.ADD, "s", (kind,), elements),),))
    ours = nft.read()
    assert ours is not None
    assert ours.sets["s"].elements == set(elements)
    shown = listing()
    ranges = ", ".join(
        f"{first}-{last}" for ((a, b),) in elements for first, last in [(shown_as(kind, a), shown_as(kind, b))]
    )
    command(f"flush set inet wgd s\nadd element inet wgd s {{ {ranges} }}")
    assert listing() == shown
    assert nft.read() == ours
    nft.apply(((ElementChange(Action.DELETE, "s", (kind,), elements[:1]),),))
    assert nft.read().sets["s"].elements == set(elements[1:])


def shown_as(kind: str, value: int) -> str:
    length = 32 if kind == "ipv4_addr" else 128
    return str(ip_network((value, length)).network_address)


def test_a_transaction_of_elements_is_taken_whole_or_not_at_all(nft: Nft) -> None:
    nft.apply(("add table inet wgd\nadd set inet wgd s { type ipv4_addr; flags interval; }",))
    there, absent = [interval("10.0.0.1")], [interval("10.0.0.9")]
    add = ElementChange(Action.ADD, "s", ("ipv4_addr",), there)
    with pytest.raises(KernelError, match="elements of s: No such file or directory"):
        nft.apply(((add, ElementChange(Action.DELETE, "s", ("ipv4_addr",), absent)),))
    assert nft.read().sets["s"].elements == frozenset()
    with pytest.raises(KernelError, match="elements of t: No such file or directory"):
        nft.apply(((add, ElementChange(Action.ADD, "t", ("ipv4_addr",), there)),))
    assert nft.read().sets["s"].elements == frozenset()
    nft.apply(((add,),))
    assert nft.read().sets["s"].elements == set(there)


def test_more_elements_than_one_message_holds_are_one_transaction(nft: Nft) -> None:
    many = [((2 * value, 2 * value),) for value in range(20_000)]
    nft.apply(("add table inet wgd\nadd set inet wgd s { type ipv4_addr; flags interval; }",))
    number = nft.number()
    nft.apply(((ElementChange(Action.ADD, "s", ("ipv4_addr",), many),),))
    assert nft.number() == number + 1
    assert nft.read().sets["s"].elements == set(many)


def test_every_step_is_one_change_of_the_rulesets_number(nft: Nft) -> None:
    before = desired_ruleset(server_config(rule(allow("10.20.0.0/24", 6, 80))), frozenset())
    after = desired_ruleset(server_config(rule(allow("10.20.0.0/24", 6, 81))), frozenset({4}))
    for desired, actual in ((before, None), (after, before)):
        number, steps = nft.number(), transactions(desired, actual, time.time())
        nft.apply(steps)
        assert nft.number() == number + len(steps)


def test_what_is_vouched_for_is_not_read_and_what_is_gone_is_gone(nft: Nft) -> None:
    desired = desired_ruleset(server_config(rule(allow("10.20.0.0/24", 6, 80))), frozenset())
    load(nft, desired)
    command("delete element inet wgd clients4 { 10.80.0.2 }\nflush chain inet wgd forward\n")
    command("add chain inet wgd theirs\nadd set inet wgd s { type mark; }\n")
    assert differences(desired, nft.read(desired, desired), time.time()) == ("chain theirs", "set s")
    assert set(differences(desired, nft.read(), time.time())) == {
        "chain theirs", "set s", "chain forward", "set clients4",
    }  # fmt: skip


def test_what_was_read_before_is_read_anew_when_its_elements_have_changed(nft: Nft) -> None:
    desired = desired_ruleset(server_config(rule(allow("10.20.0.0/24", 6, 80))), frozenset())
    load(nft, desired)
    assert nft.read(desired) == desired
    for text in ("delete element inet wgd clients4 { 10.80.0.2 }", "add element inet wgd clients4 { 10.80.0.2 }"):
        command(text)
        found = nft.read(desired)
        assert (found == desired) == text.startswith("add")
