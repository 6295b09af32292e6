"""Sets whose elements the kernel drops at a time: what is still there to expect of them.

The kernel counts seconds from when an element was added, on a clock that nobody sets; the config names a time of day.
When the two drift apart by more than SLACK, as after a step of the clock, the set is not what it should be.
"""

from __future__ import annotations

from dataclasses import replace

from wgd.policy.ruleset import KeySet, Ruleset

SLACK = 2.0
"""Seconds. nft lists whole ones, and reading takes a while."""
SECONDS_A_DAY = 86400


def agreed(desired: Ruleset, actual: Ruleset, now: float) -> Ruleset:
    """Return `actual`, read at `now`, with those sets as `desired` has them that hold what is left of it by then."""
    same = {
        name: wanted
        for name, wanted in desired.sets.items()
        if wanted.until is not None and name in actual.sets and _agrees(wanted, actual.sets[name], now)
    }
    return replace(actual, sets={**actual.sets, **same}) if same else actual


def _agrees(wanted: KeySet, found: KeySet, now: float) -> bool:
    if wanted.until is None or found.until is None or found.fields != wanted.fields:
        return False
    if now >= wanted.until + SLACK:
        return not found.elements
    if now > wanted.until - SLACK:
        return found.elements <= wanted.elements
    return found.elements == wanted.elements and abs(found.until - wanted.until) <= SLACK


def timeout(seconds: float) -> str:
    """Return a duration as nft reads it; the days apart because nft takes few digits of any unit."""
    days, rest = divmod(seconds, SECONDS_A_DAY)
    # At least a millisecond: nft takes a timeout of 0 for none at all.
    milliseconds = max(1, int(rest * 1000)) if not days else int(rest * 1000)
    return f"{int(days)}d{milliseconds // 1000}s{milliseconds % 1000}ms"
