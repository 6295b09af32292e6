"""The first config: valid, safe, and in nobody's way."""

import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from wgd.config.server import SourceFile, join, read_fragment
from wgd.model import AuthzMode
from wgd.plan import first
from wgd.plan.state import Route

TEMPLATE = (Path(__file__).parents[3] / "packaging/first/server.yaml").read_text()
IPV4, IPV6 = first.TUNNELS


def route(destination: str) -> Route:
    return Route(ip_network(destination), 254, device="eth0")


@pytest.mark.parametrize(
    ("routes", "chosen", "why"),
    [
        ([], "10.80.0.1/24", ""),
        (["0.0.0.0/0", "::/0", "192.168.1.0/24", "fd80::/16"], "10.80.0.1/24", ""),
        (["10.80.0.128/25"], "10.81.0.1/24", "10.80.0.0/24 overlaps the route to 10.80.0.128/25 by eth0"),
        (["10.0.0.0/8"], "172.31.80.1/24", "10.80.0.0/24 overlaps the route to 10.0.0.0/8 by eth0"),
        (["10.0.0.0/8", "172.16.0.0/12"], "192.168.180.1/24", "10.80.0.0/24 overlaps the route to 10.0.0.0/8 by eth0"),
        (["0.0.0.0/1"], "172.31.80.1/24", "10.80.0.0/24 overlaps the route to 0.0.0.0/1 by eth0"),
    ],
)
def test_a_network_is_taken_that_no_route_overlaps(routes: list[str], chosen: str, why: str) -> None:
    address, said = first.tunnel(IPV4, map(route, routes))
    assert (str(address), said) == (chosen, why)


def test_ipv6_has_its_own_choice() -> None:
    address, _ = first.tunnel(IPV6, [route("10.0.0.0/8"), route("fd80::/32")])
    assert str(address) == "fd81::1/64"


def test_none_is_taken_when_all_are_in_the_way() -> None:
    address, why = first.tunnel(IPV4, [route("0.0.0.0/1"), route("128.0.0.0/1")])
    assert address is None
    assert why == "10.80.0.0/24 overlaps the route to 0.0.0.0/1 by eth0"


def test_a_port_is_taken_that_is_free() -> None:
    assert first.port([]) == 51820
    assert first.port([51820, 51821]) == 51822


@pytest.mark.parametrize("addresses", [(IPV4[0],), (IPV6[0],), (IPV4[0], IPV6[0])], ids=["ipv4", "ipv6", "both"])
def test_it_is_valid_and_lets_nobody_in(addresses: tuple) -> None:
    text = first.config(TEMPLATE, addresses, 51820)
    config = join([read_fragment(SourceFile("server.yaml", "server.yaml", text.encode()))])
    assert config.authz_mode is AuthzMode.ENFORCE
    assert config.peers == ()
    assert config.policy.rules == ()
    assert config.interface.address == addresses
    assert config.logging.enabled


def test_what_it_suggests_is_valid_too() -> None:
    """A reader takes the marks of the comments away and puts in the key."""
    begin, end = TEMPLATE.index("# peers:"), TEMPLATE.index("# Interfaces by which")
    suggested = re.findall("^# ([a-z ].*)$", TEMPLATE[begin:end], re.MULTILINE)
    example = "\n".join([TEMPLATE[:begin], *suggested])
    text = first.config(example, (IPV4[0], IPV6[0]), 51820).replace("…", "YWxpY2UuLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4=")
    config = join([read_fragment(SourceFile("server.yaml", "server.yaml", text.encode()))])
    assert [peer.name for peer in config.peers] == ["alice"]
    assert len(config.policy.tests) == 2
