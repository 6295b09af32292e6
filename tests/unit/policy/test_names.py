from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.events.nflog_messages import ALICE, BOB, config, some_names
from wgd.events.names_book import KEPT, NamesBook
from wgd.model import AllowRule, Policy, PortRange, Rule
from wgd.policy.names import Names, names


def label(
    client: str, to: str, protocol: int | None = 6, port: int | None = 443, *, to_gateway: bool = False
) -> str | None:
    known = some_names()
    found = known.client(ip_address(client).packed)
    assert found is not None
    return known.rule(found, ip_address(to).packed, protocol, port, to_gateway=to_gateway)


@pytest.mark.parametrize(
    ("address", "name"),
    [("10.80.0.2", "alice"), ("fd80::2", "alice"), ("10.81.255.255", "bob"), ("10.82.0.0", None), ("fd80::3", None)],
)
def test_an_address_belongs_to_the_peer_whose_allowed_ips_hold_it(address: str, name: str | None) -> None:
    client = some_names().client(ip_address(address).packed)
    assert (client.name if client is not None else None) == name


def test_a_client_has_the_base64_form_of_its_public_key() -> None:
    client = some_names().client(ip_address("10.80.0.2").packed)
    assert client is not None
    assert client.public_key == str(ALICE)


def test_the_longest_of_nested_allowed_ips_wins() -> None:
    nested = config()
    alice, bob = nested.peers
    nested = replace(nested, peers=(replace(alice, allowed_ips=(ip_network("10.81.7.0/24"),)), bob))
    client = names(nested, "x").client(ip_address("10.81.7.1").packed)
    assert client is not None
    assert client.name == "alice"


@pytest.mark.parametrize(
    ("to", "protocol", "port", "expected"),
    [
        ("10.20.0.10", 6, 443, "staff to web[0]"),
        ("10.20.0.10", 6, 8000, "staff to web[0]"),
        ("10.20.0.10", 6, 8999, "staff to web[0]"),
        ("10.20.0.10", 6, 9000, None),
        ("10.20.0.10", 6, None, None),
        ("10.20.0.10", 17, 443, None),
        ("10.20.1.7", 47, None, "staff to web[1]"),
        ("10.20.1.7", None, None, "staff to web[1]"),
        ("10.20.1.7", 1, None, "staff to web[1]"),
        ("10.20.9.9", 1, None, "staff to web[2]"),
        ("fd20::1", 58, None, "staff to web[3]"),
        ("fd20::10", 6, 22, "server.d/alice.yaml:policy.rules[0].allow[0]"),
        ("10.99.0.1", 6, 443, None),
    ],
)
def test_the_rule_is_the_first_that_covers(
    to: str, protocol: int | None, port: int | None, expected: str | None
) -> None:
    assert label("10.80.0.2", to, protocol, port) == expected


def test_a_rule_of_another_client_does_not_count() -> None:
    assert label("10.80.0.3", "fd20::10", 6, 22) is None


def test_icmp_towards_ipv6_is_icmpv6() -> None:
    rule = Rule("ping", (ALICE,), (AllowRule(ip_network("fd20::/64"), 1),))
    known = names(replace(config(), policy=Policy((rule,))), "x")
    assert known.rule(known.clients[0], ip_address("fd20::1").packed, 58, None) == "ping[0]"


def test_only_a_rule_that_names_one_host_opens_the_gateway_itself() -> None:
    assert label("10.80.0.2", "10.20.1.7", to_gateway=True) is None
    assert label("10.80.0.2", "10.20.0.10", to_gateway=True) == "staff to web[0]"


def test_names_cross_as_json() -> None:
    known = some_names()
    again = Names.from_json(known.to_json())
    assert again == known
    assert again.client(ip_address("fd80::2").packed) == known.client(ip_address("fd80::2").packed)


def test_equal_allow_lists_and_policies_are_held_once() -> None:
    allow = (AllowRule(ip_network("10.20.0.0/16")),)
    rules = (Rule("all", (ALICE, BOB), allow), Rule("again", (BOB, ALICE), allow))
    known = names(replace(config(), policy=Policy(rules)), "x")
    assert len(known.destinations) == 1
    assert len(known.policies) == 1


def test_a_book_keeps_the_last_policies_and_forgets_the_oldest() -> None:
    book = NamesBook()
    for number in range(KEPT + 1):
        book.add(Names(f"{number:08x}", "wgd0"))
    assert book.get("00000000") is None
    assert book.get("00000001") is not None


networks = st.sampled_from(["10.20.0.0/24", "10.20.0.0/30", "10.20.0.1/32", "0.0.0.0/0", "fd20::/64", "fd20::1/128"])
allows = st.builds(
    AllowRule,
    networks.map(ip_network),
    st.sampled_from([None, 1, 6, 17, 58]),
    st.lists(st.sampled_from([PortRange(1, 1), PortRange(5, 9), PortRange(65535, 65535)]), max_size=2).map(tuple),
)
some_rules = st.lists(
    st.tuples(st.sampled_from([(ALICE,), (BOB,), (ALICE, BOB)]), st.lists(allows, min_size=1, max_size=4)), max_size=4
)


@given(
    some_rules,
    st.sampled_from(["10.20.0.1", "10.20.0.2", "10.20.0.9", "192.0.2.1", "fd20::1", "fd20::2"]),
    st.sampled_from([1, 6, 17, 47, 58]),
    st.sampled_from([None, 1, 4, 5, 9, 10, 65535]),
)
def test_the_rule_is_the_first_that_covers_in_file_order(
    drawn: list[tuple[tuple, list[AllowRule]]], to: str, protocol: int, port: int | None
) -> None:
    rules = tuple(
        Rule(f"rule {number}", clients, tuple(replace(a, ports=a.ports if a.proto in (6, 17) else ()) for a in allow))
        for number, (clients, allow) in enumerate(drawn)
        if all(a.to.version == (6 if a.proto == 58 else 4) or a.proto not in (1, 58) for a in allow)
    )
    made = replace(config(), policy=Policy(rules))
    known = names(made, "x")
    plainly = (
        rule.label(index)
        for rule in rules
        if ALICE in rule.clients
        for index, allow in enumerate(rule.allow)
        if ip_address(to) in allow.to
        and allow.proto in (None, protocol)
        and (not allow.ports or (port is not None and any(r.first <= port <= r.last for r in allow.ports)))
    )
    assert known.rule(known.clients[0], ip_address(to).packed, protocol, port) == next(plainly, None)
