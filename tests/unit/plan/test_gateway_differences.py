from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from tests.unit.policy.policy_examples import CLIENTS, allow, rule, server_config
from wgd.model import Endpoint, Policy, SecretKey
from wgd.plan.gateway import (
    ALL_PARTS,
    Actual,
    Desired,
    Difference,
    Keys,
    Part,
    changed_parts,
    desired,
    differences,
    our_routes,
    our_rules,
    routes_in_charge,
)
from wgd.plan.state import DeviceAddress, Link, Route, RoutingRule
from wgd.policy.ruleset import Chain

PRIVATE, PRESHARED = SecretKey(b"p" * 32), SecretKey(b"s" * 32)
SETTINGS = {
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/all/src_valid_mark": "0",
}
ORIGINALS = {"ipv4/ip_forward": "0", "ipv6/conf/all/forwarding": "0"}


@pytest.fixture
def wanted() -> Desired:
    config = server_config(rule(allow("10.20.0.0/24", 6, 80)))
    config = replace(config, interface=replace(config.interface, mtu=1380))
    return desired(config, Keys(PRIVATE, {CLIENTS[1]: PRESHARED}), frozenset({4, 6}))


@pytest.fixture
def reached(wanted: Desired) -> Actual:
    """A kernel that holds exactly what is wanted."""
    link = Link(7, "wgd0", "wireguard", 1380, up=True)
    return Actual(link, wanted.device, wanted.addresses, wanted.routes, wanted.rules, wanted.ruleset, SETTINGS)


NOW = 1_000_000.0


def found(wanted: Desired, actual: Actual) -> list[Difference]:
    return list(differences(wanted, actual, ORIGINALS, NOW))


def test_the_device_has_every_peer_with_its_preshared_key(wanted: Desired) -> None:
    peers = wanted.device.peers
    assert [peer.public_key for peer in peers] == list(CLIENTS)
    assert [peer.preshared_key for peer in peers] == [None, PRESHARED, None]
    assert (wanted.device.private_key, wanted.device.listen_port) == (PRIVATE, 51820)


def test_a_kernel_that_holds_everything_differs_in_nothing(wanted: Desired, reached: Actual) -> None:
    assert found(wanted, reached) == []


def test_what_clients_do_is_no_difference(wanted: Desired, reached: Actual) -> None:
    busy = replace(wanted.device.peers[0], endpoint=Endpoint("192.0.2.9", 4711), last_handshake=9.0, rx_bytes=5)
    device = replace(wanted.device, peers=(busy, *wanted.device.peers[1:]))
    assert found(wanted, replace(reached, device=device)) == []


def test_a_missing_table_is_one_difference_and_the_first(wanted: Desired, reached: Actual) -> None:
    assert found(wanted, replace(reached, ruleset=None, routes=()))[0] == Difference("table", "table")


def test_each_missing_rule_is_named(wanted: Desired, reached: Actual) -> None:
    (difference,) = found(wanted, replace(reached, rules=reached.rules[1:]))
    assert difference == Difference("rule", "routing rule 7780 (IPv4) is missing")


def test_a_rule_of_ours_that_nothing_wants_is_left_over(wanted: Desired, reached: Actual) -> None:
    extra = RoutingRule(6, 7780, "lookup", 254)
    (difference,) = found(wanted, replace(reached, rules=(*reached.rules, extra)))
    assert difference == Difference("rule", "routing rule 7780 (IPv6) is left over")


def test_what_is_wrong_in_the_table_is_told_by_its_kind(wanted: Desired, reached: Actual) -> None:
    held = wanted.ruleset
    (clients, elements), *_ = held.sets.items()
    (out, verdicts), *_ = held.maps.items()
    changed = replace(
        held,
        chains={**held.chains, "forward": replace(held.chains["forward"], rule_count=1), "extra": Chain(None, "", 0)},
        sets={**held.sets, clients: replace(elements, elements=frozenset())},
        maps={**held.maps, out: replace(verdicts, elements={})},
    )
    assert found(wanted, replace(reached, ruleset=changed)) == [
        Difference("rule", "chain extra"),
        Difference("rule", "chain forward"),
        Difference("set", f"set {clients}"),
        Difference("set", f"map {out}"),
    ]


@pytest.mark.parametrize("link", [None, Link(7, "wgd0", "wireguard", 1380, up=False)])
def test_what_goes_with_the_link_is_not_told_beside_it(wanted: Desired, reached: Actual, link: Link | None) -> None:
    prohibits = tuple(route for route in wanted.routes if route.kind == "prohibit")
    bare = replace(reached, link=link, routes=prohibits, addresses=())
    assert [difference.object for difference in found(wanted, bare)] == ["link"]
    assert [difference.object for difference in found(wanted, replace(bare, routes=prohibits[1:]))] == ["route", "link"]


@pytest.mark.parametrize(
    ("part", "objects"),
    [
        (Part.RULESET, ["table"]),
        (Part.RULES, ["rule"]),
        (Part.ROUTES, ["route"]),
        (Part.LINK, ["address"]),
        (Part.DEVICE, ["peer"]),
        (Part.FORWARDING, ["forwarding"]),
    ],
)
def test_only_the_parts_that_are_asked_for_are_compared(
    wanted: Desired, reached: Actual, part: Part, objects: list[str]
) -> None:
    wrong = replace(
        reached,
        ruleset=None,
        rules=reached.rules[1:],
        routes=reached.routes[1:],
        addresses=reached.addresses[1:],
        device=replace(wanted.device, peers=wanted.device.peers[1:]),
        settings={**SETTINGS, "ipv4/ip_forward": "0"},
    )
    told = differences(wanted, wrong, ORIGINALS, NOW, parts=frozenset({part}))
    assert [difference.object for difference in told] == objects


def test_missing_and_left_over_routes_are_named(wanted: Desired, reached: Actual) -> None:
    extra = Route(ip_network("10.99.0.0/24"), 7780, device="wgd0")
    details = [difference.detail for difference in found(wanted, replace(reached, routes=(*reached.routes[1:], extra)))]
    assert details == [
        "unicast 10.80.0.2/32 in table 7780 is missing",
        "unicast 10.99.0.0/24 in table 7780 does not belong there",
    ]


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"link": None}, "wgd0 is missing"),
        ({"link": Link(7, "wgd0", "wireguard", 1380, up=False)}, "wgd0 is down"),
        ({"link": Link(7, "wgd0", "wireguard", 1420, up=True)}, "wgd0 has MTU 1420 instead of 1380"),
    ],
)
def test_a_link_that_is_not_as_it_should_be_is_named(
    wanted: Desired, reached: Actual, changes: dict[str, object], detail: str
) -> None:
    assert found(wanted, replace(reached, **changes)) == [Difference("link", detail)]


@pytest.mark.parametrize("changes", [{"private_key": SecretKey(b"x" * 32)}, {"listen_port": 1}, {"private_key": None}])
def test_another_key_or_port_is_told_without_the_key(
    wanted: Desired, reached: Actual, changes: dict[str, object]
) -> None:
    device = replace(wanted.device, **changes)
    assert found(wanted, replace(reached, device=device)) == [
        Difference("link", "wgd0 has another private key or listen port")
    ]


def test_a_missing_peer_is_named_by_its_public_key(wanted: Desired, reached: Actual) -> None:
    device = replace(wanted.device, peers=wanted.device.peers[1:])
    assert found(wanted, replace(reached, device=device)) == [Difference("peer", str(CLIENTS[0]))]


def test_a_missing_address_is_named_and_one_of_the_operators_is_not(wanted: Desired, reached: Actual) -> None:
    theirs = DeviceAddress(ip_interface("10.99.0.1/24"))
    actual = replace(reached, addresses=(theirs, *reached.addresses[1:]))
    assert found(wanted, actual) == [Difference("address", "10.80.0.1/24 is missing")]


def test_forwarding_that_somebody_switched_off_is_named(wanted: Desired, reached: Actual) -> None:
    actual = replace(reached, settings={**SETTINGS, "ipv4/ip_forward": "0"})
    assert found(wanted, actual) == [Difference("forwarding", "ipv4/ip_forward")]


def test_the_hosts_own_routes_and_rules_are_not_ours(wanted: Desired) -> None:
    foreign = Route(ip_network("10.80.0.0/24"), 7780, protocol=4), RoutingRule(4, 7780, "lookup", 254, protocol=0)
    assert our_routes((*wanted.routes, foreign[0])) == wanted.routes
    assert our_rules((*wanted.rules, foreign[1])) == wanted.rules


def test_a_route_of_the_hosts_in_our_tables_does_not_belong_there(wanted: Desired, reached: Actual) -> None:
    foreign = [Route(ip_network("10.80.0.0/24"), table, device="eth0", protocol=3) for table in (7780, 7781, 254)]
    routes = routes_in_charge((*wanted.routes, *foreign), wanted.config)
    assert routes == (*wanted.routes, *foreign[:2])
    details = [difference.detail for difference in found(wanted, replace(reached, routes=routes))]
    assert details == [f"unicast 10.80.0.0/24 in table {table} does not belong there" for table in (7780, 7781)]


def test_what_has_not_changed_is_taken_from_the_config_before() -> None:
    config = server_config(rule(allow("10.20.0.0/24")))
    keys = Keys(SecretKey(b"k" * 32), {})
    before = desired(config, keys, frozenset())
    other_rule = desired(replace(config, policy=Policy()), keys, frozenset(), before)
    assert other_rule.routes is before.routes
    assert changed_parts(other_rule, before) == ALL_PARTS - {Part.ROUTES, Part.DEVICE}
    other_peers = desired(replace(config, peers=config.peers[:1]), keys, frozenset(), before)
    assert len(other_peers.routes) < len(before.routes)
    assert changed_parts(other_peers, before) == changed_parts(before, None) == ALL_PARTS
