from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.policy.policy_examples import TUNNEL, server_config
from wgd.errors import ConflictError
from wgd.model import AuthzMode, Routing
from wgd.plan.routing import (
    PREFIXES_AT_MOST,
    change,
    covering,
    desired_addresses,
    desired_routes,
    desired_rules,
    refuse_collisions,
)
from wgd.plan.state import PROTOCOL, Route, RoutingRule

STATIC = 4
ENFORCE, OBSERVE = server_config(), server_config(mode=AuthzMode.OBSERVE)
MARK = Routing().mark


def rules_of(family: int, config: object = ENFORCE) -> tuple[RoutingRule, ...]:
    return tuple(rule for rule in desired_rules(config) if rule.family == family)


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_a_change_leads_from_what_is_there_to_what_is_wanted(desired: list[int], actual: list[int]) -> None:
    found = change(desired, actual)
    assert (set(actual) | set(found.add)) - set(found.remove) == set(desired)
    assert not set(found.add) & set(actual)
    assert bool(found) == (set(desired) != set(actual))


@pytest.mark.parametrize("family", [4, 6])
def test_enforce_refuses_unmarked_packets_of_clients_before_every_look_up(family: int) -> None:
    narrow = replace(ENFORCE, peers=ENFORCE.peers[:2])
    refuse, marked, own, mirror = rules_of(family, narrow)
    assert refuse == RoutingRule(family, 7780, "prohibit", mark=0, mask=MARK, incoming="wgd0")
    clients = ip_network({4: "10.80.0.0/24", 6: "fd80::/64"}[family])
    assert marked == RoutingRule(family, 7781, "lookup", 7780, MARK, MARK, to=clients)
    assert own == RoutingRule(family, 7782, "lookup", 7780, incoming="lo", to=clients)
    assert mirror == RoutingRule(family, 7783, "lookup", 7781, to=clients)


NETWORKS = st.builds(
    lambda network, up: network.supernet(new_prefix=max(0, network.max_prefixlen - up)),
    st.one_of(st.ip_addresses(), st.sampled_from(["10.80.0.2", "10.80.0.9", "10.81.0.1", "fd80::2"])).map(ip_network),
    st.integers(0, 128),
)


@given(st.lists(st.lists(NETWORKS, max_size=4), max_size=9))
def test_few_prefixes_cover_every_client_and_none_another(networks: list[list[IPv4Network | IPv6Network]]) -> None:
    peers = tuple(replace(ENFORCE.peers[0], allowed_ips=tuple(found)) for found in networks)
    config = replace(ENFORCE, peers=peers)
    for family in (4, 6):
        found = covering(family, config)
        assert len(found) <= PREFIXES_AT_MOST
        assert not [pair for pair in combinations(found, 2) if pair[0].overlaps(pair[1])]
        for network in [network for owned in networks for network in owned if network.version == family]:
            assert any(network.subnet_of(prefix) for prefix in found)


@pytest.mark.parametrize(
    ("clients", "expected"),
    [
        (["10.80.0.2/32", "10.80.0.9/32"], ["10.80.0.0/24"]),
        (["10.80.0.2/32", "192.168.7.0/24"], ["10.80.0.0/24", "192.168.7.0/24"]),
        (
            ["10.80.1.2/32", "172.16.0.0/24", "172.16.1.2/32", "172.16.9.0/24", "192.168.7.0/24"],
            ["10.80.0.0/23", "172.16.0.0/23", "172.16.9.0/24", "192.168.7.0/24"],
        ),
        (["0.0.0.0/1", "128.0.0.0/1"], [None]),
    ],
)
def test_neighbours_share_a_prefix(clients: list[str], expected: list[str | None]) -> None:
    peers = tuple(replace(ENFORCE.peers[0], allowed_ips=(ip_network(network),)) for network in clients)
    rules = [rule for rule in rules_of(4, replace(ENFORCE, peers=peers)) if rule.priority == 7781]
    assert [None if rule.to is None else str(rule.to) for rule in rules] == expected


@pytest.mark.parametrize("family", [4, 6])
def test_observe_refuses_nothing_so_that_a_flushed_table_still_forwards(family: int) -> None:
    rules = rules_of(family, OBSERVE)
    assert {rule.action for rule in rules} == {"lookup"}
    assert {rule.table for rule in rules} == {7780}
    assert any((rule.mark, rule.mask, rule.incoming) == (0, 0, None) for rule in rules)


def test_table_mark_and_priority_are_the_operators() -> None:
    rules = desired_rules(replace(ENFORCE, routing=Routing(table=100, mark=0x40, priority=5)))
    assert {rule.priority for rule in rules} == {5, 6, 7, 8}
    assert {rule.table for rule in rules if rule.action == "lookup"} == {100, 101}
    assert {rule.mask for rule in rules} == {0, 0x40}


def test_every_network_of_a_client_has_a_route_and_a_refusal_behind_it() -> None:
    routes = desired_routes(ENFORCE)
    wanted = {network for peer in ENFORCE.peers for network in peer.allowed_ips}
    through = [route for route in routes if route.kind == "unicast"]
    refused = [route for route in routes if route.kind == "prohibit"]
    assert {route.destination for route in through} == {route.destination for route in refused} == wanted
    assert {(route.table, route.device) for route in through} == {(7780, "wgd0")}
    assert {(route.table, route.device) for route in refused} == {(7781, None)}


def test_addresses_bring_no_route_of_their_own() -> None:
    addresses = desired_addresses(ENFORCE)
    assert [str(found.address.ip) for found in addresses] == list(TUNNEL)
    assert all(found.noprefixroute for found in addresses)


def refuse(*found: RoutingRule | Route) -> None:
    rules = [value for value in found if isinstance(value, RoutingRule)]
    refuse_collisions(ENFORCE, rules, [value for value in found if isinstance(value, Route)])


def test_what_wgd_left_behind_is_no_collision() -> None:
    refuse(*desired_rules(ENFORCE), *desired_routes(ENFORCE))


@pytest.mark.parametrize("priority", [7780, 7783])
def test_a_foreign_rule_among_our_priorities_is_refused(priority: int) -> None:
    with pytest.raises(ConflictError, match=r"routing rule \d+ \(IPv6\): .*choose another routing\.priority"):
        refuse(RoutingRule(6, priority, "lookup", 254, protocol=STATIC))


@pytest.mark.parametrize("priority", [0, 7779, 7784, 32766])
def test_a_foreign_rule_beside_our_priorities_is_none_of_ours(priority: int) -> None:
    refuse(RoutingRule(4, priority, "lookup", 254, protocol=STATIC))


def test_a_foreign_rule_that_asks_for_our_bit_is_refused() -> None:
    with pytest.raises(ConflictError, match=r"our bit 0x10000000: choose another routing\.mark"):
        refuse(RoutingRule(4, 100, "lookup", 100, 0x10000001, 0xFFFFFFFF, protocol=STATIC))


@pytest.mark.parametrize(("mark", "mask"), [(1, 0xFF), (0xCA6C, 0xFFFFFFFF), (0, 0), (MARK, 0xFF)])
def test_a_foreign_rule_about_other_bits_is_none_of_ours(mark: int, mask: int) -> None:
    refuse(RoutingRule(4, 100, "lookup", 100, mark, mask, protocol=STATIC))


@pytest.mark.parametrize("table", [7780, 7781])
def test_a_foreign_route_in_our_tables_is_refused_and_named(table: int) -> None:
    foreign = Route(ip_network("192.0.2.0/24"), table, gateway=ip_address("198.51.100.1"), protocol=STATIC)
    with pytest.raises(ConflictError, match=r"192\.0\.2\.0/24 that is not ours: choose another routing\.table"):
        refuse(foreign)


def test_a_foreign_route_in_another_table_is_none_of_ours() -> None:
    refuse(Route(ip_network("10.80.0.0/24"), 254, device="eth0", protocol=PROTOCOL + 1))
