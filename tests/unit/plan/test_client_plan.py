from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from wgd.errors import ConflictError
from wgd.model import Backend, ClientConfig, Endpoint, Interface, PublicKey, Routes, SecretKey, ServerPeer
from wgd.plan.client import (
    Actual,
    Desired,
    bypasses,
    describe,
    desired,
    desired_routes,
    missing,
    our_routes,
    refuse_conflicts,
    refuse_loop,
)
from wgd.plan.state import CLIENT_PROTOCOL, Link, Route

SERVER = PublicKey(b"s" * 32)
PRIVATE = SecretKey(b"\xff" * 32)
KERNEL = 2
CONFIG = ClientConfig(
    "office",
    Interface("wgd-office", (ip_interface("10.80.0.2/32"),), None, "/k", 1380, Backend.AUTO),
    ServerPeer(SERVER, (Endpoint("192.0.2.1", 51820),), (ip_network("10.20.0.0/24"), ip_network("fd20::/64"))),
)
LAN = ip_network("10.20.0.0/24")


def foreign(to: str, **fields: object) -> Route:
    return Route(ip_network(to), **{"table": 254, "device": "eth0", "protocol": KERNEL, **fields})


@pytest.fixture
def wanted() -> Desired:
    return desired(CONFIG, PRIVATE, None)


@pytest.fixture
def reached(wanted: Desired) -> Actual:
    link = Link(7, "wgd-office", "wireguard", 1380, up=True)
    return Actual(link, wanted.device, wanted.addresses, (foreign("0.0.0.0/0"), *wanted.routes))


def test_the_private_key_is_wanted_as_it_reads_back(wanted: Desired) -> None:
    assert wanted.device.private_key == PRIVATE.clamped()


def test_a_literal_first_endpoint_is_set_at_once(wanted: Desired) -> None:
    assert wanted.device.peers[0].endpoint == Endpoint("192.0.2.1", 51820)


def test_a_name_is_left_for_the_resolver() -> None:
    named = replace(CONFIG, server=replace(CONFIG.server, endpoints=(Endpoint("gw.example", 1),)))
    assert desired(named, PRIVATE, None).device.peers[0].endpoint is None


def test_another_endpoint_changes_nothing_else(wanted: Desired) -> None:
    other = Endpoint("192.0.2.2", 51820)
    moved = wanted.with_endpoint(other)
    assert moved.device.peers[0] == replace(wanted.device.peers[0], endpoint=other)
    assert replace(moved, device=wanted.device) == wanted


def test_every_allowed_ip_has_a_route_with_the_configs_table_and_metric() -> None:
    routes = desired_routes(replace(CONFIG, routes=Routes(table=100, metric=7)))
    assert [(route.destination, route.table, route.metric, route.device) for route in routes] == [
        (network, 100, 7, "wgd-office") for network in CONFIG.server.allowed_ips
    ]
    assert {route.protocol for route in routes} == {CLIENT_PROTOCOL}


def test_the_metric_that_ipv6_has_by_itself_is_wanted_as_it_reads_back() -> None:
    routes = desired_routes(replace(CONFIG, routes=Routes(metric=1024)))
    assert [route.metric for route in routes] == [1024, 0]


def test_nothing_is_missing_from_a_kernel_that_holds_it_all(wanted: Desired, reached: Actual) -> None:
    assert list(missing(wanted, reached)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"link": None}, "interface wgd-office is gone"),
        ({"device": None}, "interface wgd-office is gone"),
        ({"link": Link(7, "wgd-office", "wireguard", 1380, up=False)}, "interface wgd-office is down"),
        (
            {"link": Link(7, "wgd-office", "wireguard", 1420, up=True)},
            "interface wgd-office has MTU 1420 instead of 1380",
        ),
        ({"addresses": ()}, "address 10.80.0.2/32 is gone"),
    ],
)
def test_what_is_missing_is_said_in_words(
    wanted: Desired, reached: Actual, changes: dict[str, object], words: str
) -> None:
    assert list(missing(wanted, replace(reached, **changes))) == [words]


def test_a_missing_peer_and_route_are_said_in_words(wanted: Desired, reached: Actual) -> None:
    actual = replace(reached, device=replace(wanted.device, peers=()), routes=reached.routes[:-1])
    assert list(missing(wanted, actual)) == [
        "the keys, the listen port or the server peer of wgd-office differ",
        "route to fd20::/64 is gone",
    ]


def test_our_own_routes_are_no_conflict(wanted: Desired) -> None:
    refuse_conflicts(CONFIG, wanted.routes)


@pytest.mark.parametrize(
    ("route", "words"),
    [
        (foreign("10.20.0.0/24"), "dev eth0"),
        (foreign("10.20.0.0/24", gateway=ip_address("192.0.2.254"), metric=7), "via 192.0.2.254 dev eth0 metric 7"),
        (foreign("fd20::/64", kind="blackhole", device=None), "blackhole"),
        (foreign("10.20.0.0/24", device="wgd-office", gateway=ip_address("10.20.0.1")), "via 10.20.0.1 dev wgd-office"),
    ],
)
def test_a_route_with_another_device_or_gateway_is_refused_and_named(route: Route, words: str) -> None:
    with pytest.raises(ConflictError) as raised:
        refuse_conflicts(CONFIG, [foreign("0.0.0.0/0"), route])
    assert str(raised.value).startswith(f"route to {route.destination}: exists already ({words}): remove it, or take")
    assert describe(route) == words


@pytest.mark.parametrize("route", [foreign("10.20.0.0/24", table=100), foreign("10.20.0.0/25"), foreign("10.0.0.0/8")])
def test_a_route_of_another_table_or_network_is_no_conflict(route: Route) -> None:
    refuse_conflicts(CONFIG, [route])


@pytest.mark.parametrize("inside", ["10.20.0.0", "10.20.0.255", "fd20::1"])
def test_an_endpoint_inside_allowed_ips_is_refused(inside: str) -> None:
    with pytest.raises(ConflictError, match="would go into the tunnel"):
        refuse_loop(CONFIG, ip_address(inside))


@pytest.mark.parametrize("outside", ["10.20.1.0", "10.19.255.255", "fd20:0:0:1::"])
def test_an_endpoint_outside_allowed_ips_is_fine(outside: str) -> None:
    refuse_loop(CONFIG, ip_address(outside))


def test_a_route_to_a_part_of_allowed_ips_is_told() -> None:
    (told,) = bypasses(CONFIG, [foreign("10.20.0.0/25"), foreign("0.0.0.0/0"), foreign("fd21::/65")])
    assert told == "10.20.0.0/25 goes around the tunnel, by a route of the host (dev eth0)"


def test_a_route_to_just_the_same_network_is_a_conflict_and_no_bypass() -> None:
    assert list(bypasses(CONFIG, [foreign("10.20.0.0/24")])) == []


def test_a_route_through_the_tunnel_or_in_another_table_goes_around_nothing() -> None:
    through, elsewhere = foreign("10.20.0.0/25", device="wgd-office"), foreign("10.20.0.0/25", table=100)
    assert list(bypasses(CONFIG, [through, elsewhere])) == []


def test_the_kernels_and_other_clients_routes_are_not_ours(wanted: Desired) -> None:
    others = (
        foreign("10.20.0.0/24", device="wgd-office"),
        replace(wanted.routes[0], device="wgd-home"),
        foreign("10.20.0.0/24"),
    )
    assert our_routes("wgd-office", (*wanted.routes, *others)) == wanted.routes
