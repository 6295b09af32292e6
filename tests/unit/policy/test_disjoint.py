from ipaddress import ip_network
from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from wgd.model import Network
from wgd.policy.disjoint import disjoint, merge, outermost, subtract
from wgd.policy.ruleset import Interval

ALL_PORTS: Interval = (0, 65535)
EDGES = (0, 1, 2, 3, 7, 8, 9, 10, 65534, 65535)
BASE = int(ip_network("10.0.0.0/8").network_address)


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    first, last = sorted((draw(st.sampled_from(EDGES)), draw(st.sampled_from(EDGES))))
    return first, last


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Give networks of the same 16 addresses, or everything around them."""
    length = draw(st.sampled_from((0, 8, 28, 29, 30, 31, 32)))
    return ip_network((BASE + draw(st.integers(0, 15)), length), strict=False)


grants = st.lists(st.tuples(networks(), intervals()), max_size=12)
merged = st.lists(intervals(), max_size=6).map(merge)


def members(found: tuple[Interval, ...]) -> set[int]:
    return {port for first, last in found for port in range(first, last + 1)}


def overlap(one: Interval, other: Interval) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


@given(grants)
def test_the_same_points_are_granted_as_before(given_grants: list[tuple[Network, Interval]]) -> None:
    result = list(disjoint(given_grants))
    for address in (0, BASE - 1, *range(BASE, BASE + 16), BASE + 16, 2**32 - 1):
        for port in EDGES:
            wanted = any(
                network.network_address <= ip_network(address).network_address <= network.broadcast_address
                and ports[0] <= port <= ports[1]
                for network, ports in given_grants
            )
            granted = any(
                addresses[0] <= address <= addresses[1] and ports[0] <= port <= ports[1] for addresses, ports in result
            )
            assert granted == wanted


@given(grants)
def test_no_two_results_overlap(given_grants: list[tuple[Network, Interval]]) -> None:
    for (addresses, ports), (other_addresses, other_ports) in combinations(disjoint(given_grants), 2):
        assert not (overlap(addresses, other_addresses) and overlap(ports, other_ports))


@given(grants, st.randoms())
def test_the_order_of_writing_makes_no_difference(given_grants: list[tuple[Network, Interval]], random: object) -> None:
    shuffled = list(given_grants)
    random.shuffle(shuffled)
    assert set(disjoint(shuffled)) == set(disjoint(given_grants))


def test_nesting_to_any_depth_gives_no_more_elements_than_grants() -> None:
    nested = [(ip_network((0, length)), (length, length + 1)) for length in range(0, 33, 2)]
    assert len(list(disjoint(nested))) == len(nested)


def test_a_grant_inside_an_equal_one_disappears() -> None:
    outer, inner = ip_network("10.0.0.0/8"), ip_network("10.0.0.1/32")
    assert [ports for _, ports in disjoint([(inner, (5, 6)), (outer, (1, 9))])] == [(1, 9)]


def test_an_inner_network_keeps_what_the_outer_one_does_not_grant() -> None:
    outer, inner = ip_network("10.0.0.0/8"), ip_network("10.0.0.1/32")
    found = list(disjoint([(outer, (5, 6)), (inner, (1, 9))]))
    assert sorted(ports for addresses, ports in found if addresses[0] == addresses[1]) == [(1, 4), (7, 9)]


def test_ipv6_goes_to_the_end_of_the_address_space() -> None:
    last = ip_network("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128")
    assert list(disjoint([(ip_network("::/0"), (1, 1)), (last, (2, 2))])) == [
        ((0, 2**128 - 1), (1, 1)),
        ((2**128 - 1, 2**128 - 1), (2, 2)),
    ]


@given(st.lists(intervals(), max_size=8))
def test_merge_gives_the_union_with_a_gap_between_each_two(given_intervals: list[Interval]) -> None:
    result = merge(given_intervals)
    assert members(result) == members(tuple(given_intervals))
    assert all(one[1] + 1 < other[0] for one, other in pairwise(result))


@given(merged, merged)
def test_subtract_leaves_what_is_not_taken(left: tuple[Interval, ...], taken: tuple[Interval, ...]) -> None:
    result = subtract(left, taken)
    assert members(result) == members(left) - members(taken)
    assert merge(result) == result


@given(st.lists(networks(), max_size=8))
def test_outermost_gives_the_networks_that_lie_in_no_other(found: list[Network]) -> None:
    wanted = {
        (int(one.network_address), int(one.broadcast_address))
        for one in found
        if not any(one != other and one.subnet_of(other) for other in found)
    }
    result = list(outermost(found))
    assert set(result) == wanted
    assert len(result) == len(wanted)


def test_all_ports_are_every_value_of_the_field() -> None:
    assert ALL_PORTS == (0, 65535)
