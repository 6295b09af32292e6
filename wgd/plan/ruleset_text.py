"""Our nftables table as text: what nft(8) reads, one command a line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from wgd.plan import expiry
from wgd.policy.limits import limit_sets
from wgd.policy.ruleset import (
    ANSWERED,
    ANSWERED_WORD,
    GENERATION_SET,
    GENERATION_WORD,
    IN_FORCE_WORD,
    NOBODYS_MARK,
    TABLE_NAME,
    Chain,
    Element,
    KeySet,
    Ruleset,
    VerdictMap,
    generation_mark,
)

TABLE = f"inet {TABLE_NAME}"
DELETE_TABLE = f"delete table {TABLE}"
# With a size the kernel takes its fastest kind of set (nft_set_hash.c).
ADD_GENERATION_SET = f"add set {TABLE} {GENERATION_SET} {{ type mark; size 2; }}"
_WORDS = re.compile("|".join(map(re.escape, (GENERATION_WORD, IN_FORCE_WORD, ANSWERED_WORD))))


def whole_table(desired: Ruleset, now: float) -> str:
    """Return what adds the whole table with all elements, in one transaction; `now` in POSIX seconds."""
    return "\n".join(_everything(desired, now))


def _everything(desired: Ruleset, now: float) -> Iterator[str]:
    """Chains come before the maps that name them: nft 1.0.6 finds them only so."""
    yield f"add table {TABLE}"
    yield ADD_GENERATION_SET
    yield from add_counters(desired.counters)
    for name, chain in desired.chains.items():
        yield add_chain(name, chain)
    for name, key_set in desired.sets.items():
        yield add_set(name, key_set)
        yield from _elements(name, _keys_with_time(key_set, now))
    for name, verdicts in desired.maps.items():
        yield add_map(name, verdicts)
        yield from _elements(name, _entries(verdicts))
    for name, chain in desired.chains.items():
        yield from add_rules(name, chain, desired.generation, desired.generation)
    if desired.generation:
        yield from _elements(GENERATION_SET, (generation_mark(desired.generation),))


def add_counters(names: Iterable[str]) -> Iterator[str]:
    """Add counters, and the sets in which the kernel counts what is limited."""
    limits = limit_sets()
    for name in sorted(names):
        yield f"add set {TABLE} {name} {{ {limits[name]} }}" if name in limits else f"add counter {TABLE} {name}"


def add_chain(name: str, chain: Chain) -> str:
    """Return what adds a chain without its rules."""
    return f"add chain {TABLE} {name}" + (f" {{ {chain.hook} }}" if chain.hook else "")


def add_set(name: str, key_set: KeySet) -> str:
    """Return what adds a set without its elements."""
    flags = "interval" if key_set.until is None else "interval,timeout"
    return f"add set {TABLE} {name} {{ type {' . '.join(key_set.fields)}; flags {flags}; }}"


def add_map(name: str, verdicts: VerdictMap) -> str:
    """Return what adds a verdict map without its elements."""
    return f"add map {TABLE} {name} {{ type {' . '.join(verdicts.fields)} : verdict; flags interval; }}"


def names_generation(chain: Chain) -> bool:
    """Tell whether the rules of a chain are others in another generation."""
    return any(_WORDS.search(rule) for rule in chain.rules)


def add_rules(name: str, chain: Chain, generation: int, in_force: int) -> Iterator[str]:
    """Add the rules of a chain; the first one carries the mark by which the chain is known when it is read back.

    They mark flows with `generation`, and accept without asking those of `in_force`, none where that is 0.
    """
    marks = {
        GENERATION_WORD: generation_mark(generation),
        IN_FORCE_WORD: generation_mark(in_force) if in_force else NOBODYS_MARK,
        ANSWERED_WORD: generation_mark(in_force, ANSWERED) if in_force else NOBODYS_MARK,
    }
    for index, rule in enumerate(chain.rules):
        comment = f' comment "{chain.mark}"' if index == 0 else ""
        text = _WORDS.sub(lambda found: marks[found[0]], rule)
        yield f"add rule {TABLE} {name} {text}{comment}"


def _elements(name: str, elements: Iterable[str]) -> Iterator[str]:
    listed = ", ".join(elements)
    if listed:
        yield f"add element {TABLE} {name} {{ {listed} }}"


def _keys(typed: KeySet | VerdictMap, elements: Iterable[Element]) -> Iterator[str]:
    shown = [_SHOW[field] for field in typed.fields]
    for element in elements:
        yield " . ".join(
            show(first) if first == last else f"{show(first)}-{show(last)}"
            for show, (first, last) in zip(shown, element, strict=True)
        )


def _keys_with_time(key_set: KeySet, now: float) -> Iterator[str]:
    """Yield a set's elements with what is left of their time; none when it is over."""
    if key_set.until is None:
        yield from _keys(key_set, key_set.elements)
    elif key_set.until > now:
        timeout = expiry.timeout(key_set.until - now)
        yield from (f"{key} timeout {timeout}" for key in _keys(key_set, key_set.elements))


def _entries(verdicts: VerdictMap) -> Iterator[str]:
    for key, chain in zip(_keys(verdicts, verdicts.elements), verdicts.elements.values(), strict=True):
        yield f"{key} : jump {chain}"


def _ipv4(value: int) -> str:
    return ".".join(map(str, value.to_bytes(4, "big")))


def _ipv6(value: int) -> str:
    """Return an address with all its zeros: written so in a tenth of the time, and nft reads it as well."""
    return value.to_bytes(16, "big").hex(":", 2)


_SHOW: Mapping[str, Callable[[int], str]] = {
    "ipv4_addr": _ipv4,
    "ipv6_addr": _ipv6,
    "inet_service": str,
    "inet_proto": str,
}
