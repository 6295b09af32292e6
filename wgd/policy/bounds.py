"""Policies that the kernel would take minutes or hours to load, told before it is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from wgd.errors import Problem
from wgd.model import ServerConfig
from wgd.policy.ruleset import KeySet

MOST_ALIKE = 20_000
"""How many addresses may be granted with the same port and protocol: each that is added, the kernel compares with all
that are there (pipapo_get in net/netfilter/nft_set_pipapo.c). Measured: 10,000 in 2 s, 60,000 in 66 s."""


def too_large(config: ServerConfig, sets: Mapping[str, KeySet]) -> Iterator[Problem]:
    """Yield a problem where `sets`, which `config` compiles to, hold more than MOST_ALIKE elements that are alike."""
    most = max((_most_alike(key_set) for key_set in sets.values()), default=0)
    if most > MOST_ALIKE:
        rule = max(config.policy.rules, key=lambda rule: len(rule.allow) + len(rule.allow_from))
        yield Problem(
            rule.place.file,
            rule.place.line,
            rule.place.path,
            f"grants {most:,} networks apart from each other with the same port and protocol; the kernel would take"
            f" minutes or hours for more than {MOST_ALIKE:,}: grant the networks that they lie in",
        )


def _most_alike(key_set: KeySet) -> int:
    if len(key_set.fields) == 1 or len(key_set.elements) <= MOST_ALIKE:
        return 0
    return max(Counter(element[:-1] for element in key_set.elements).values())
