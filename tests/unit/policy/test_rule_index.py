"""The index gives what the plain search through Names gives, for every packet."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from wgd.policy.names import Client, Destination, NamedRule, Names, Prefix
from wgd.policy.rule_index import RuleIndex

KEY = "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="
PROTOCOLS = [None, 1, 6, 17, 58]
PORTS = [None, 0, 1, 79, 80, 81, 443, 65534, 65535]


def prefix(bits: int, first: int, length: int) -> Prefix:
    shift = bits - length
    return Prefix(bits, first >> shift << shift, length)


# Few bits differ, at both ends of the addresses: prefixes that begin or end together, nested and side by side.
FIRSTS = {bits: [0, 1, 2, 3, (1 << bits) - 1, (1 << bits) - 2, (1 << bits) - 4, 1 << (bits - 1)] for bits in (32, 128)}
PREFIXES = st.one_of(
    *(
        st.builds(
            prefix, st.just(bits), st.sampled_from(FIRSTS[bits]), st.sampled_from([0, 1, *range(bits - 3, bits + 1)])
        )
        for bits in (32, 128)
    )
)
RANGES = st.tuples(st.sampled_from(PORTS[1:]), st.sampled_from(PORTS[1:])).map(lambda ends: (min(ends), max(ends)))
DESTINATIONS = st.builds(Destination, PREFIXES, st.sampled_from(PROTOCOLS), st.lists(RANGES, max_size=3).map(tuple))
LISTS = st.lists(st.lists(DESTINATIONS, max_size=6).map(tuple), min_size=1, max_size=4)
NOW = 100
UNTILS = st.sampled_from([None, NOW - 1, NOW, NOW + 1])


@st.composite
def policies(draw: Any) -> Names:
    """Names with one client, whose policy is all rules."""
    destinations = tuple(draw(LISTS))
    rules = tuple(NamedRule(f"r{number}", number, draw(UNTILS)) for number in range(len(destinations)))
    numbers = tuple(draw(st.permutations(range(len(rules)))))
    middle = len(numbers) // 2
    return Names(
        "", "wgd0", (Client(KEY, "alice", 0, ()),), (numbers[:middle],), rules, destinations, (numbers[middle:],)
    )


@given(policies(), st.sampled_from([{}, {"to_gateway": True}, {"incoming": True}]))
def test_the_first_rule_that_covers_a_packet_is_found(names: Names, kind: dict[str, bool]) -> None:
    for bits in (32, 128):
        addresses = {(first + step) % (1 << bits) for first in FIRSTS[bits] for step in (-1, 0, 1)}
        for protocol in (*PROTOCOLS, 47):
            index = RuleIndex(names, 0, bits, protocol, now=NOW, **kind)
            for other_end in (address.to_bytes(bits // 8, "big") for address in addresses):
                for port in PORTS:
                    expected = names.rule(names.clients[0], other_end, protocol, port, now=NOW, **kind)
                    assert index.rule(other_end, port) == expected


def test_a_policy_without_rules_covers_nothing() -> None:
    names = Names("", "wgd0", (Client(KEY, "alice", 0, ()),), ((),))
    for kind in ({}, {"incoming": True}):
        assert RuleIndex(names, 0, 32, 6, now=NOW, **kind).rule(b"\x0a\0\0\1", 443) is None
