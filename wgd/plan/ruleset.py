"""From one ruleset to another, as nft transactions.

Each transaction is text, applied whole or not at all. A change of policy takes three: what is new goes in
beside the old, one transaction switches the verdict maps, and what nothing refers to any more goes out. New sets
and the switch in one transaction lost packets when it was measured, and so did replacing the whole table.

The switch also takes the generation out of force (policy/skeleton.py), so that every flow is asked anew. The next
generation comes with the last transaction, not with the switch: the kernel's concatenated sets show what a
transaction did to them a moment after its chains (net/netfilter/nft_set_pipapo.c, nft_pipapo_commit), and a packet
that meets new chains and old elements must not be marked as allowed by the new ruleset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from wgd.plan import expiry
from wgd.policy.ruleset import (
    GENERATION_SET,
    GENERATION_WORD,
    LAST_GENERATION,
    LIMITED,
    LOGGED,
    Chain,
    Element,
    KeySet,
    Ruleset,
    VerdictMap,
    generation_mark,
)

TABLE = "inet wgd"
DELETE_TABLE = f"delete table {TABLE}"
# With a size the kernel takes its fastest kind of set (nft_set_hash.c): every packet looks into this one.
ADD_GENERATION_SET = f"add set {TABLE} {GENERATION_SET} {{ type mark; size 2; }}"
ADD_COUNTERS = tuple(f"add counter {TABLE} {name}" for name in (*LOGGED, LIMITED))
"""Adding one that is there already is no error, and it goes on counting."""
Value = TypeVar("Value")


def transactions(desired: Ruleset, actual: Ruleset | None, now: float = 0.0) -> tuple[str, ...]:
    """Return the nft texts that lead from `actual` (None: no table) to `desired`; none when they are equal.

    `now` in POSIX seconds is when `actual` was read and they are applied; it is needed where a set has an end. A
    desired generation of 0 leaves the one in force. A change that must end flows needs one that no flow carries.
    """
    if actual is None:
        return (_text((f"add table {TABLE}", *_everything(desired, now))),)
    actual = expiry.agreed(desired, actual, now)
    if not _compatible(desired, actual):
        return (_text((DELETE_TABLE, f"add table {TABLE}", *_everything(desired, now))),)
    steps = (
        _add(desired, actual, actual.generation, now),
        (*_withdraw(desired, actual), *_switch(desired, actual, now)),
        (*_open(desired, actual), *_remove(desired, actual)),
    )
    return tuple(text for text in map(_text, steps) if text)


def next_generation(current: int) -> int:
    """Return the generation after `current`: after the last comes the first."""
    return current % LAST_GENERATION + 1


def differences(desired: Ruleset, actual: Ruleset | None, now: float = 0.0) -> tuple[str, ...]:
    """Return the names of the objects in which `actual` is not `desired`, as `chain NAME`, `set NAME`, `map NAME`.

    `now` in POSIX seconds is when `actual` was read.
    """
    if actual is None:
        return ("table",)
    actual = expiry.agreed(desired, actual, now)
    generation = (f"set {GENERATION_SET}",) if _changes_generation(desired, actual) else ()
    return generation + tuple(
        f"{kind} {name}"
        for kind, wanted, found in (
            ("chain", desired.chains, actual.chains),
            ("set", desired.sets, actual.sets),
            ("map", desired.maps, actual.maps),
        )
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    )


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _changes_generation(desired: Ruleset, actual: Ruleset) -> bool:
    return desired.generation not in (0, actual.generation)


def _compatible(desired: Ruleset, actual: Ruleset) -> bool:
    """Tell whether sets, maps and hooks of the same name have the same type, so that a delta is possible."""
    return (
        all(
            new.fields == old.fields and (new.until is None) == (old.until is None)
            for _, new, old in _common(desired.sets, actual.sets)
        )
        and all(new.fields == old.fields for _, new, old in _common(desired.maps, actual.maps))
        and all(new.hook == old.hook for _, new, old in _common(desired.chains, actual.chains))
    )


def _common(desired: Mapping[str, Value], actual: Mapping[str, Value]) -> Iterator[tuple[str, Value, Value]]:
    return ((name, value, actual[name]) for name, value in desired.items() if name in actual)


def _new(desired: Mapping[str, Value], actual: Mapping[str, Value]) -> list[tuple[str, Value]]:
    return [(name, value) for name, value in desired.items() if name not in actual]


def _everything(desired: Ruleset, now: float) -> Iterator[str]:
    """Add a whole table."""
    yield ADD_GENERATION_SET
    yield from _add(desired, Ruleset(), desired.generation, now)
    yield from _put_in_force(desired.generation)


def _put_in_force(generation: int) -> Iterator[str]:
    if generation:
        yield f"add element {TABLE} {GENERATION_SET} {{ {generation_mark(generation)} }}"


def _withdraw(desired: Ruleset, actual: Ruleset) -> Iterator[str]:
    """Take the generation out of force, whatever somebody has put there."""
    if _changes_generation(desired, actual):
        yield ADD_GENERATION_SET
        yield f"flush set {TABLE} {GENERATION_SET}"


def _open(desired: Ruleset, actual: Ruleset) -> Iterator[str]:
    """Put the next generation in force."""
    if _changes_generation(desired, actual):
        for name, chain in desired.chains.items():
            if any(GENERATION_WORD in rule for rule in chain.rules):
                yield f"flush chain {TABLE} {name}"
                yield from _rules(name, chain, desired.generation)
        yield from _put_in_force(desired.generation)


def _changed(desired: Ruleset, actual: Ruleset) -> Iterator[Chain]:
    """Yield the chains that are to be written, new ones and others."""
    return (chain for name, chain in desired.chains.items() if actual.chains.get(name) != chain)


def _add(desired: Ruleset, actual: Ruleset, generation: int, now: float) -> Iterator[str]:
    """Add what is not there yet. Chains come before the maps that name them: nft 1.0.6 finds them only so."""
    chains = _new(desired.chains, actual.chains)
    sets = _new(desired.sets, actual.sets)
    maps = _new(desired.maps, actual.maps)
    if any("counter name" in rule for chain in _changed(desired, actual) for rule in chain.rules):
        yield from ADD_COUNTERS
    for name, chain in chains:
        yield f"add chain {TABLE} {name}" + (f" {{ {chain.hook} }}" if chain.hook else "")
    for name, key_set in sets:
        flags = "interval" if key_set.until is None else "interval,timeout"
        yield f"add set {TABLE} {name} {{ type {' . '.join(key_set.fields)}; flags {flags}; }}"
    for name, verdicts in maps:
        yield f"add map {TABLE} {name} {{ type {' . '.join(verdicts.fields)} : verdict; flags interval; }}"
    for name, chain in chains:
        yield from _rules(name, chain, generation)
    for name, key_set in sets:
        yield from _elements("add", name, _new_keys(key_set, key_set.elements, now))
    for name, verdicts in maps:
        yield from _elements("add", name, _entries(verdicts, verdicts.elements))


def _switch(desired: Ruleset, actual: Ruleset, now: float) -> Iterator[str]:
    """Change what is there in both: elements by delta, the rules of a chain all at once."""
    for name, new, old in _common(desired.sets, actual.sets):
        if new.until is None:
            yield from _elements("delete", name, _keys(old, old.elements - new.elements))
            yield from _elements("add", name, _keys(new, new.elements - old.elements))
        elif new != old:
            # To delete an element that has just run out is an error; to flush is none.
            yield f"flush set {TABLE} {name}"
            yield from _elements("add", name, _new_keys(new, new.elements, now))
    for name, to, was in _common(desired.maps, actual.maps):
        gone = [key for key, chain in was.elements.items() if to.elements.get(key) != chain]
        come = {key: chain for key, chain in to.elements.items() if was.elements.get(key) != chain}
        yield from _elements("delete", name, _keys(was, gone))
        yield from _elements("add", name, _entries(to, come))
    for name, chain, before in _common(desired.chains, actual.chains):
        if chain != before:
            yield f"flush chain {TABLE} {name}"
            yield from _rules(name, chain, actual.generation)


def _remove(desired: Ruleset, actual: Ruleset) -> Iterator[str]:
    """Take away what nothing refers to any more: rules first, then chains, then sets."""
    chains = _new(actual.chains, desired.chains)
    maps = _new(actual.maps, desired.maps)
    for name, _ in chains:
        yield f"flush chain {TABLE} {name}"
    for name, _ in maps:
        yield f"delete map {TABLE} {name}"
    for name, _ in chains:
        yield f"delete chain {TABLE} {name}"
    for name, _ in _new(actual.sets, desired.sets):
        yield f"delete set {TABLE} {name}"


def _rules(name: str, chain: Chain, generation: int) -> Iterator[str]:
    """Add the rules of a chain; the first one carries the mark by which the chain is known when it is read back."""
    for index, rule in enumerate(chain.rules):
        comment = f' comment "{chain.mark}"' if index == 0 else ""
        yield f"add rule {TABLE} {name} {rule.replace(GENERATION_WORD, generation_mark(generation))}{comment}"


def _elements(verb: str, name: str, elements: Iterable[str]) -> Iterator[str]:
    listed = ", ".join(elements)
    if listed:
        yield f"{verb} element {TABLE} {name} {{ {listed} }}"


def _keys(typed: KeySet | VerdictMap, elements: Iterable[Element]) -> Iterator[str]:
    shown = [_SHOW[field] for field in typed.fields]
    for element in elements:
        yield " . ".join(
            show(first) if first == last else f"{show(first)}-{show(last)}"
            for show, (first, last) in zip(shown, element, strict=True)
        )


def _new_keys(key_set: KeySet, elements: Iterable[Element], now: float) -> Iterator[str]:
    """Yield elements to add, with what is left of their time; none when it is over."""
    if key_set.until is None:
        yield from _keys(key_set, elements)
    elif not now:
        raise ValueError("a set with an end cannot be filled without knowing the time")
    elif key_set.until > now:
        timeout = expiry.timeout(key_set.until - now)
        yield from (f"{key} timeout {timeout}" for key in _keys(key_set, elements))


def _entries(verdicts: VerdictMap, elements: Mapping[Element, str]) -> Iterator[str]:
    for key, chain in zip(_keys(verdicts, elements), elements.values(), strict=True):
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
