"""The sweep over networks, held against comparing every pair."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

from hypothesis import given
from hypothesis import strategies as st

from wgd.config.overlap import Claim, overlaps
from wgd.model import NOWHERE, Network


def claim(text: str, owner: int) -> Claim:
    return Claim(ip_network(text), owner, NOWHERE)


def holds(outer: Network, inner: Network) -> bool:
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


# Few address bits, so that networks meet often.
ipv4 = st.builds(
    lambda bits, length: IPv4Network((bits << 27 & (0xFFFFFFFF << (32 - length)), length), strict=False),
    st.integers(0, 31),
    st.integers(0, 5) | st.just(32),
)
ipv6 = st.builds(
    lambda bits, length: IPv6Network(((bits << 123) >> (128 - length) << (128 - length), length)),
    st.integers(0, 31),
    st.integers(1, 5) | st.just(128),
)
claims_of_owners = st.lists(st.builds(Claim, ipv4 | ipv6, st.integers(0, 4), st.just(NOWHERE)), max_size=25)


@given(claims_of_owners)
def test_the_sweep_finds_exactly_what_comparing_all_pairs_finds(claims: list[Claim]) -> None:
    found = list(overlaps(claims))
    assert all(holds(outer.network, inner.network) and outer.owner != inner.owner for inner, outer in found)
    swept = {id(one) for pair in found for one in pair}
    for one in claims:
        inside = any(
            holds(other.network, one.network) and other.owner != one.owner and other.network != one.network
            for other in claims
        )
        assert not inside or id(one) in swept
    equal = {
        one.network for one in claims for other in claims if one.network == other.network and one.owner != other.owner
    }
    assert equal <= {inner.network for inner, _outer in found}


def test_the_narrowest_claim_of_another_owner_is_named() -> None:
    wide, own, inner = claim("10.0.0.0/8", 1), claim("10.1.0.0/16", 2), claim("10.1.1.0/24", 2)
    assert list(overlaps([inner, own, wide])) == [(own, wide), (inner, wide)]


def test_neighbours_and_other_families_do_not_overlap() -> None:
    texts = ["10.0.0.0/25", "10.0.0.128/25", "::a00:0/121", "0.0.0.0/32", "255.255.255.255/32", "::/128"]
    assert list(overlaps(claim(text, owner) for owner, text in enumerate(texts))) == []


def test_a_network_that_thousands_claim_takes_no_longer_than_its_number() -> None:
    # With a stack that keeps all of them this would be 20,000 squared comparisons.
    assert len(list(overlaps(claim("10.0.0.1/32", owner) for owner in range(20_000)))) == 19_999
