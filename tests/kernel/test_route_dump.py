"""Routes are read as the kernel has them: every kind, both families, as `ip` shows them."""

import os
import subprocess
from ipaddress import ip_address, ip_network

import pytest
from pyroute2 import netns

from wgd.kernel.links import Links
from wgd.plan.state import Route

SETUP = """
link add one type veth peer name other
link set one up
link set other up
link set lo up
address add 192.0.2.1/24 dev one
address add fd00::1/64 dev one nodad
-4 route add 10.1.0.0/16 dev one table 7780 proto 119
-4 route add 10.2.0.0/16 via 192.0.2.9 metric 7
-4 route add default via 192.0.2.9 table 100
-4 route add prohibit 10.3.0.0/24 table 7781 proto 119
-4 route add blackhole 10.4.0.0/24
-4 route add 10.5.0.0/24 nexthop via 192.0.2.7 nexthop via 192.0.2.8
-6 route add fd01::/64 dev one table 7780 proto 119
-6 route add fd02::/64 via fd00::9 metric 7
-6 route add default via fd00::9 table 100
-6 route add prohibit fd03::/64 table 7781 proto 119
-6 route add unreachable fd04::/64
"""
BOOT, OURS = 3, 119
V4, V6 = ip_address("192.0.2.9"), ip_address("fd00::9")
EXPECTED = {
    Route(ip_network("10.1.0.0/16"), 7780, device="one", protocol=OURS),
    Route(ip_network("10.2.0.0/16"), 254, device="one", gateway=V4, metric=7, protocol=BOOT),
    Route(ip_network("0.0.0.0/0"), 100, device="one", gateway=V4, protocol=BOOT),
    Route(ip_network("10.3.0.0/24"), 7781, "prohibit", protocol=OURS),
    Route(ip_network("10.4.0.0/24"), 254, "blackhole", protocol=BOOT),
    Route(ip_network("10.5.0.0/24"), 254, device="one", gateway=ip_address("192.0.2.7"), protocol=BOOT),
    Route(ip_network("10.5.0.0/24"), 254, device="one", gateway=ip_address("192.0.2.8"), protocol=BOOT),
    Route(ip_network("fd01::/64"), 7780, device="one", protocol=OURS),
    Route(ip_network("fd02::/64"), 254, device="one", gateway=V6, metric=7, protocol=BOOT),
    Route(ip_network("::/0"), 100, device="one", gateway=V6, protocol=BOOT),
    Route(ip_network("fd03::/64"), 7781, "prohibit", protocol=OURS),
    Route(ip_network("fd04::/64"), 254, "unreachable", protocol=BOOT),
}


@pytest.fixture(scope="module")
def namespace():
    name = f"wgdt{os.getpid()}routes"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture(scope="module")
def links(namespace):
    for line in SETUP.strip().splitlines():
        subprocess.run(["ip", "-n", namespace, *line.split()], check=True)
    netns.pushns(namespace)
    made = Links()
    yield made
    made.close()
    netns.popns()


def test_every_kind_of_route_is_read(links):
    found = [route for route in links.routes() if route.protocol in (BOOT, OURS)]
    assert len(found) == len(EXPECTED)
    assert set(found) == EXPECTED


def test_the_kernels_own_routes_are_read_too(links):
    local = [route for route in links.routes() if route.kind == "local"]
    assert ip_network("192.0.2.1/32") in [route.destination for route in local]
    assert ip_network("fd00::1/128") in [route.destination for route in local]


def test_what_is_read_can_be_removed(links):
    route = Route(ip_network("10.6.0.0/16"), 7780, device="one")
    links.add_route(route)
    assert route in links.routes()
    links.remove_route(route)
    assert route not in links.routes()


def test_as_many_as_ten_thousand_are_read_whole(links, namespace):
    lines = [f"route add prohibit 10.{64 + number // 256}.{number % 256}.0/24 table 9" for number in range(10_000)]
    subprocess.run(["ip", "-n", namespace, "-batch", "-"], input="\n".join(lines), text=True, check=True)
    assert len({route.destination for route in links.routes() if route.table == 9}) == 10_000


def test_routes_that_nobody_has_changed_are_the_very_same_objects(links):
    def ours():
        return {id(route): route for route in links.routes() if route.table == 7780}

    before = ours()
    assert before
    assert ours().keys() == before.keys()
    route = Route(ip_network("10.7.0.0/16"), 7780, device="one")
    links.add_route(route)
    assert [found for key, found in ours().items() if key not in before] == [route]
    links.remove_route(route)
    assert ours().keys() == before.keys()
