import struct
from ipaddress import ip_network

import pytest

from wgd.kernel.route_dump import _routes
from wgd.plan.state import Route

NAMES = {3: "wgd0"}
INET, INET6 = 2, 10
CLONED = 0x200


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def read(family: int, length: int, *attributes: bytes, table: int = 254, flags: int = 0) -> list[Route]:
    message = struct.pack("=BBBBBBBBI", family, length, 0, 0, table, 119, 0, 1, flags) + b"".join(attributes)
    return list(_routes(message, NAMES))


DST, OIF, PRIORITY = attribute(1, bytes([10, 1, 0, 0])), attribute(4, struct.pack("=I", 3)), 6


def test_a_route_has_its_table_from_the_attribute_that_holds_large_ones() -> None:
    found = read(INET, 16, DST, OIF, attribute(15, struct.pack("=I", 7780)), table=252)
    assert found == [Route(ip_network("10.1.0.0/16"), 7780, device="wgd0")]


def test_what_the_kernel_learned_of_a_path_is_no_route() -> None:
    assert read(INET, 16, DST, OIF, flags=CLONED) == []


def test_a_link_that_has_gone_is_known_by_its_number() -> None:
    (route,) = read(INET, 16, DST, attribute(4, struct.pack("=I", 9)))
    assert route.device == "#9"


@pytest.mark.parametrize(("metric", "read_as"), [(1024, 0), (50, 50)])
def test_the_default_metric_of_ipv6_is_none(metric: int, read_as: int) -> None:
    (route,) = read(INET6, 0, OIF, attribute(PRIORITY, struct.pack("=I", metric)))
    assert (route.destination, route.metric) == (ip_network("::/0"), read_as)


def test_an_attribute_without_a_length_ends_the_message() -> None:
    assert read(INET, 16, DST, bytes(8)) == [Route(ip_network("10.1.0.0/16"), 254)]
