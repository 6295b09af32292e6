"""Listings as libnftables-json(5) describes them, in the forms in which nft 1.0.6 prints our table."""

from ipaddress import ip_address
from typing import Any

import pytest

from wgd.kernel.nft import parse_listing
from wgd.policy.ruleset import Chain, KeySet, Ruleset, VerdictMap


def number(text: str) -> int:
    return int(ip_address(text))


def key_set(kind: str | list[str], *elements: Any) -> KeySet:
    listed = {"set": {"family": "inet", "name": "s", "table": "wgd", "type": kind, "elem": list(elements)}}
    return parse_listing([listed]).sets["s"]


def verdict_map(*elements: Any, kind: str = "ipv4_addr", target: str = "verdict") -> VerdictMap:
    listed = {"map": {"name": "m", "type": kind, "map": target, "elem": [list(pair) for pair in elements]}}
    return parse_listing([listed]).maps["m"]


def test_an_empty_table_is_an_empty_ruleset() -> None:
    assert parse_listing([{"metainfo": {"version": "1.0.6"}}, {"table": {"name": "wgd"}}]) == Ruleset()


def test_a_base_chain_has_its_hook_and_a_regular_one_has_none() -> None:
    base = {"name": "in", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}
    late = {**base, "name": "pre", "hook": "prerouting", "prio": 1000}
    found = parse_listing([{"chain": base}, {"chain": late}, {"chain": {"name": "allow"}}]).chains
    assert {name: chain.hook for name, chain in found.items()} == {
        "in": "type filter hook input priority filter; policy accept;",
        "pre": "type filter hook prerouting priority 1000; policy accept;",
        "allow": None,
    }


def test_a_chain_is_known_by_the_comment_of_its_first_rule_and_the_number_of_its_rules() -> None:
    rules = [{"rule": {"chain": "c", "expr": [], **extra}} for extra in ({"comment": "abc"}, {}, {"comment": "x"})]
    assert parse_listing([{"chain": {"name": "c"}}, *rules]).chains["c"] == Chain(None, "abc", 3)


def test_a_chain_whose_first_rule_has_no_comment_has_no_mark() -> None:
    rules = [{"rule": {"chain": "c", "expr": []}}, {"rule": {"chain": "c", "expr": [], "comment": "abc"}}]
    assert parse_listing([{"chain": {"name": "c"}}, *rules]).chains["c"] == Chain(None, "", 2)


@pytest.mark.parametrize(
    ("listed", "interval"),
    [
        ("10.0.0.1", (number("10.0.0.1"), number("10.0.0.1"))),
        ({"prefix": {"addr": "10.0.0.0", "len": 8}}, (number("10.0.0.0"), number("10.255.255.255"))),
        ({"prefix": {"addr": "0.0.0.0", "len": 0}}, (0, 2**32 - 1)),
        ({"range": ["10.0.0.1", "10.0.0.9"]}, (number("10.0.0.1"), number("10.0.0.9"))),
        ({"elem": {"val": "10.0.0.1", "comment": "by hand"}}, (number("10.0.0.1"), number("10.0.0.1"))),
        ({"elem": {"val": {"prefix": {"addr": "10.0.0.0", "len": 8}}, "timeout": 9}}, (10 << 24, (11 << 24) - 1)),
    ],
)
def test_an_address_may_be_listed_in_every_form(listed: Any, interval: tuple[int, int]) -> None:
    assert key_set("ipv4_addr", listed) == KeySet(("ipv4_addr",), frozenset({(interval,)}))


@pytest.mark.parametrize(
    ("listed", "interval"),
    [
        ("::ffff:10.0.0.1", (number("::ffff:10.0.0.1"),) * 2),
        ({"prefix": {"addr": "fd20::", "len": 64}}, (number("fd20::"), number("fd20::ffff:ffff:ffff:ffff"))),
        ({"prefix": {"addr": "::", "len": 0}}, (0, 2**128 - 1)),
    ],
)
def test_an_ipv6_address_too(listed: Any, interval: tuple[int, int]) -> None:
    assert key_set("ipv6_addr", listed).elements == {(interval,)}


def test_the_fields_of_a_concatenation_keep_their_order() -> None:
    listed = {"concat": [{"range": [80, 90]}, 6, {"prefix": {"addr": "10.20.0.0", "len": 24}}]}
    assert key_set(["inet_service", "inet_proto", "ipv4_addr"], listed) == KeySet(
        ("inet_service", "inet_proto", "ipv4_addr"),
        frozenset({((80, 90), (6, 6), (number("10.20.0.0"), number("10.20.0.255")))}),
    )


def test_a_set_without_elements_has_none() -> None:
    assert key_set("ipv4_addr") == KeySet(("ipv4_addr",), frozenset())


def test_a_verdict_map_gives_the_chains_that_are_jumped_to() -> None:
    found = verdict_map(("10.80.0.2", {"jump": {"target": "out_1"}}))
    assert found == VerdictMap(("ipv4_addr",), {((number("10.80.0.2"),) * 2,): "out_1"})


@pytest.mark.parametrize("verdict", [{"accept": None}, {"goto": {"target": "out_1"}}, 5])
def test_what_is_no_jump_equals_no_wish(verdict: Any) -> None:
    assert "out_1" not in verdict_map(("10.80.0.2", verdict)).elements.values()


def test_a_map_element_with_a_comment_is_read_too() -> None:
    found = verdict_map(({"elem": {"val": "10.80.0.2", "comment": "x"}}, {"jump": {"target": "out_1"}}))
    assert list(found.elements.values()) == ["out_1"]


@pytest.mark.parametrize(
    ("kind", "element"), [("ifname", "eth0"), ("ether_addr", "02:00:00:00:00:01"), ("ct_state", "new"), ("mark", 5)]
)
def test_a_set_of_a_type_that_is_not_ours_is_there_and_equals_none_of_ours(kind: str, element: Any) -> None:
    assert key_set(kind, element) == KeySet((kind,), frozenset())


def test_a_typed_description_of_newer_nft_is_no_type_of_ours() -> None:
    assert not set(key_set({"typeof": {"ct": {"key": "state"}}}, "new").fields) & {"ipv4_addr", "ipv6_addr"}
