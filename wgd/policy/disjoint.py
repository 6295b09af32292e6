"""Grants made disjoint.

The kernel finds overlapping elements of a concatenated set only sometimes: depending on their order it answers
EEXIST or takes both. So none may overlap. Networks are either nested or apart, so one pass over them in address
order, with the stack of the networks around the current one, is enough: what an outer network already grants is
taken from the inner one. The number of elements never grows with the depth of nesting.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from wgd.model import Network
from wgd.policy.ruleset import Interval


def merge(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Return the union of `intervals`, sorted, with neighbours joined."""
    merged: list[Interval] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            if last > merged[-1][1]:
                merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return tuple(merged)


def subtract(intervals: tuple[Interval, ...], taken: tuple[Interval, ...]) -> tuple[Interval, ...]:
    """Return what of `intervals` is not in `taken`, in one pass over both; both are merged, and so is the result."""
    left: list[Interval] = []
    at = 0
    for first, last in intervals:
        start = first
        while at < len(taken) and taken[at][1] < start:
            at += 1
        # The last one that overlaps may reach into the next interval, so `at` stays on it.
        while at < len(taken) and taken[at][0] <= last:
            taken_first, taken_last = taken[at]
            if taken_first > start:
                left.append((start, taken_first - 1))
            start = taken_last + 1
            if start > last:
                break
            at += 1
        if start <= last:
            left.append((start, last))
    return tuple(left)


def network_interval(network: Network) -> Interval:
    """Return the first and last address of `network` as integers."""
    first = int(network.network_address)
    return first, first | (1 << network.max_prefixlen - network.prefixlen) - 1


def by_address(interval: Interval) -> Interval:
    """Sort by first address, and what is around before what lies in it."""
    return interval[0], -interval[1]


def disjoint(grants: Iterable[tuple[Network, Interval]]) -> Iterator[tuple[Interval, Interval]]:
    """Yield (addresses, ports) that grant the same as `grants`, all of one family, and do not overlap."""
    ports_of: dict[Interval, list[Interval]] = defaultdict(list)
    for network, ports in grants:
        ports_of[network_interval(network)].append(ports)
    around: list[tuple[Interval, tuple[Interval, ...]]] = []
    for addresses in sorted(ports_of, key=by_address):
        while around and around[-1][0][1] < addresses[0]:
            around.pop()
        granted = merge(ports_of[addresses])
        if around:
            granted_around = around[-1][1]
            new = subtract(granted, granted_around)
            granted = merge((*new, *granted_around)) if new else granted_around
        else:
            new = granted
        for ports in new:
            yield addresses, ports
        around.append((addresses, granted))


def outermost(networks: Iterable[Network]) -> Iterator[Interval]:
    """Yield the address intervals of those `networks`, all of one family, that lie in no other."""
    end = -1
    for first, last in sorted(map(network_interval, networks), key=by_address):
        if last > end:
            yield first, last
            end = last


def joined(granted: Iterable[tuple[Interval, Interval]]) -> Iterator[tuple[Interval, Interval]]:
    """Yield disjoint (addresses, ports) with neighbouring addresses that have the same ports made one."""
    addresses_of: dict[Interval, list[Interval]] = defaultdict(list)
    for addresses, ports in granted:
        addresses_of[ports].append(addresses)
    for ports, found in addresses_of.items():
        for addresses in merge(found):
            yield addresses, ports
