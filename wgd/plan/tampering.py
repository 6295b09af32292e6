"""Chains that somebody changed by hand and left the mark standing by which they are known.

Rules do not read back in a form that can be compared with what was set. What was read back after it was set can be
compared with what is read back later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from wgd.policy.ruleset import Ruleset


@dataclass(frozen=True)
class Known:
    """The rules of each chain, by its name and mark, as they were read back after they had been set.

    They hold for one generation: chains may name it.
    """

    generation: int = 0
    contents: Mapping[tuple[str, str], str] = field(default_factory=dict)


def known(actual: Ruleset | None) -> Known:
    """Return what `distrust` compares with, from a table that was read back after it had been set."""
    if actual is None:
        return Known()
    return Known(actual.generation, {(name, chain.mark): chain.content for name, chain in actual.chains.items()})


def distrust(actual: Ruleset | None, before: Known, *, any_generation: bool = False) -> Ruleset | None:
    """Return `actual` without the mark of each chain whose rules are not those that were set: it differs from any wish.

    Chains of another generation than the known one are all trusted, or with `any_generation` none of them.
    """
    if actual is None or (actual.generation != before.generation and not any_generation):
        return actual
    same = actual.generation == before.generation
    chains = {
        name: chain if same and before.contents.get((name, chain.mark)) == chain.content else replace(chain, mark="")
        for name, chain in actual.chains.items()
    }
    return replace(actual, chains=chains)
