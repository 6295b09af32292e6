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

ALL_PORTS: Interval = (0, 65535)


def merge(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Return the union of `intervals`, sorted, with neighbours joined."""
    merged: list[Interval] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def subtract(intervals: tuple[Interval, ...], taken: tuple[Interval, ...]) -> tuple[Interval, ...]:
    """Return what of `intervals` is not in `taken`; both are merged, and so is the result."""
    left: list[Interval] = []
    for first, last in intervals:
        start = first
        for taken_first, taken_last in taken:
            if taken_last < start or taken_first > last:
                continue
            if taken_first > start:
                left.append((start, taken_first - 1))
            start = taken_last + 1
        if start <= last:
            left.append((start, last))
    return tuple(left)


def network_interval(network: Network) -> Interval:
    """Return the first and last address of `network` as integers."""
    return int(network.network_address), int(network.broadcast_address)


def disjoint(grants: Iterable[tuple[Network, Interval]]) -> Iterator[tuple[Interval, Interval]]:
    """Yield (addresses, ports) that grant the same as `grants`, all of one family, and do not overlap."""
    ports_of: dict[Interval, list[Interval]] = defaultdict(list)
    for network, ports in grants:
        ports_of[network_interval(network)].append(ports)
    around: list[tuple[Interval, tuple[Interval, ...]]] = []
    for addresses in sorted(ports_of, key=lambda interval: (interval[0], -interval[1])):
        while around and around[-1][0][1] < addresses[0]:
            around.pop()
        granted_around = around[-1][1] if around else ()
        granted = merge(ports_of[addresses])
        for ports in subtract(granted, granted_around):
            yield addresses, ports
        around.append((addresses, merge((*granted, *granted_around))))


def outermost(networks: Iterable[Network]) -> Iterator[Interval]:
    """Yield the address intervals of those `networks`, all of one family, that lie in no other."""
    return (addresses for addresses, _ in disjoint((network, ALL_PORTS) for network in networks))
