"""From one ruleset to another, as nft transactions.

Each transaction is applied whole or not at all: text for chains and rules, and changes of elements, which go to the
kernel as bytes (kernel/nft_messages.py). A change of policy adds beside the old what is new, and fills it; one
transaction of elements then switches the verdict maps; what nothing refers to any more goes out last. New sets and the
switch in one transaction lost packets when it was measured, and so did replacing the whole table.

With the switch the generation is out of force (policy/skeleton.py), so that every flow is asked anew: the set is
emptied then, and before it the rules lose it that have it as a number, since to look it up costs a packet 50 ns more.
The next generation comes with the last transactions, not with the switch: the kernel's concatenated sets show what a
transaction did to them a moment after its chains (net/netfilter/nft_set_pipapo.c, nft_pipapo_commit), and a packet
that meets new chains and old elements must not be marked as allowed by the new ruleset.

Chains that are there before and after with other rules, those that no policy decides, are rewritten after the switch:
until then they ask the new elements in the old way, which allows nothing that either ruleset would not.

Where there is no table, its base chains come when all else stands: nothing is decided by half of a policy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TypeVar

from wgd.plan import expiry
from wgd.plan.ruleset_text import (
    ADD_GENERATION_SET,
    DELETE_TABLE,
    TABLE,
    add_chain,
    add_counters,
    add_map,
    add_rules,
    add_set,
    names_generation,
    whole_table,
)
from wgd.plan.state import Action, ElementChange, Transaction
from wgd.policy.ruleset import (
    ANSWERED_WORD,
    GENERATION_SET,
    GENERATION_SHIFT,
    IN_FORCE_WORD,
    LAST_GENERATION,
    Chain,
    Element,
    KeySet,
    Ruleset,
    VerdictMap,
)

Value = TypeVar("Value")


def transactions(desired: Ruleset, actual: Ruleset | None, now: float) -> tuple[Transaction, ...]:
    """Return what leads from `actual` (None: no table) to `desired`, in this order; nothing when they are equal.

    `now` in POSIX seconds is when `actual` was read and they are applied; it is needed where a set has an end. A
    desired generation of 0 leaves the one in force. A change that must end flows needs one that no flow carries.
    """
    if actual is None:
        return _first_load(desired, now)
    actual = expiry.agreed(desired, actual, now)
    if not _compatible(desired, actual):
        return (f"{DELETE_TABLE}\n{whole_table(desired, now)}",)
    steps: tuple[Transaction, ...] = (
        _text(_add(desired, actual)),
        *_fill(desired, actual, now),
        _text(_rewrite_accepting(desired, actual)),
        (*_withdraw(desired, actual), *_switch(desired, actual, now)),
        # In one: whatever rules are added, the kernel follows every verdict of all maps to look for loops.
        _text((*_rewrite(desired, actual), *_rewrite_generation(desired, actual), *_remove(desired, actual))),
        tuple(_put_in_force(desired.generation)) if _changes_generation(desired, actual) else (),
    )
    return tuple(step for step in steps if step)


def touched(desired: Ruleset, actual: Ruleset | None, now: float) -> frozenset[str]:
    """Return the names of all that `transactions` adds, changes or removes."""
    found = {name.partition(" ")[2] for name in differences(desired, actual, now)}
    if actual is not None and _changes_generation(desired, actual):
        found |= set(_of_generation(desired))
    return frozenset(found)


def next_generation(current: int) -> int:
    """Return the generation after `current`: after the last comes the first."""
    return current % LAST_GENERATION + 1


def differences(desired: Ruleset, actual: Ruleset | None, now: float) -> tuple[str, ...]:
    """Return the names of the objects in which `actual` is not `desired`, each after its kind.

    `now` in POSIX seconds is when `actual` was read.
    """
    if actual is None:
        return ("table",)
    actual = expiry.agreed(desired, actual, now)
    found = [f"set {GENERATION_SET}"] if _changes_generation(desired, actual) else []
    found += [f"counter {name}" for name in sorted(desired.counters - actual.counters)]
    for kind, wanted, there in (
        ("chain", desired.chains, actual.chains),
        ("set", desired.sets, actual.sets),
        ("map", desired.maps, actual.maps),
    ):
        names = sorted(wanted.keys() | there.keys())
        found += [f"{kind} {name}" for name in names if wanted.get(name) != there.get(name)]
    return tuple(found)


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


def _first_load(desired: Ruleset, now: float) -> tuple[Transaction, ...]:
    nothing = Ruleset(generation=desired.generation)
    steps: tuple[Transaction, ...] = (
        _text((f"add table {TABLE}", ADD_GENERATION_SET, *_add(desired, nothing))),
        *_fill(desired, nothing, now),
        _text(_rewrite(desired, nothing)),
        tuple(_put_in_force(desired.generation)),
    )
    return tuple(step for step in steps if step)


def _add(desired: Ruleset, actual: Ruleset) -> Iterator[str]:
    """Add what is not there yet, without elements and base chains."""
    yield from add_counters(desired.counters - actual.counters)
    chains = [(name, chain) for name, chain in _new(desired.chains, actual.chains) if chain.hook is None]
    for name, chain in chains:
        yield add_chain(name, chain)
    for name, key_set in _new(desired.sets, actual.sets):
        yield add_set(name, key_set)
    for name, verdicts in _new(desired.maps, actual.maps):
        yield add_map(name, verdicts)
    for name, chain in chains:
        yield from add_rules(name, chain, actual.generation, _in_force(desired, actual))


def _fill(desired: Ruleset, actual: Ruleset, now: float) -> Iterator[tuple[ElementChange, ...]]:
    """Fill what `_add` has added, each in a transaction of its own: all in one take as much memory as they all are."""
    for name, key_set in _new(desired.sets, actual.sets):
        yield tuple(_added(name, key_set, key_set.elements, now))
    for name, verdicts in _new(desired.maps, actual.maps):
        yield tuple(_sent(name, verdicts, verdicts.elements))


def _in_force(desired: Ruleset, actual: Ruleset) -> int:
    """Return the generation that is accepted without asking until the change is through; 0 for none."""
    return 0 if _changes_generation(desired, actual) else actual.generation


def _rewrite_accepting(desired: Ruleset, actual: Ruleset) -> Iterator[str]:
    """Have the rules accept nothing without asking.

    Where only such rules have to go they are deleted, which costs the kernel nothing. Else they are the wanted ones at
    once: what they name is there.
    """
    if not _changes_generation(desired, actual):
        return
    for name, chain, there in _common(desired.chains, actual.chains):
        accepting = [index for index, rule in enumerate(chain.rules) if _accepts_without_asking(rule)]
        if accepting and chain == there and len(there.handles) == len(chain.rules):
            yield from (f"delete rule {TABLE} {name} handle {there.handles[index]}" for index in accepting)
        elif accepting:
            yield from _rules_anew(name, chain, actual.generation, 0)


def _accepts_without_asking(rule: str) -> bool:
    return IN_FORCE_WORD in rule or ANSWERED_WORD in rule


def _withdraw(desired: Ruleset, actual: Ruleset) -> Iterator[ElementChange]:
    """Take the generation out of force, whatever somebody has put there."""
    if _changes_generation(desired, actual):
        yield ElementChange(Action.FLUSH, GENERATION_SET)


def _put_in_force(generation: int) -> Iterator[ElementChange]:
    if generation:
        mark = generation << GENERATION_SHIFT
        yield ElementChange(Action.ADD, GENERATION_SET, ("mark",), (((mark, mark),),), interval=False)


def _switch(desired: Ruleset, actual: Ruleset, now: float) -> Iterator[ElementChange]:
    """Change the elements of what is there in both."""
    for name, new, old in _common(desired.sets, actual.sets):
        if new == old:
            continue
        if new.until is None:
            yield from _deleted(name, old.fields, old.elements - new.elements)
            yield from _added(name, new, new.elements - old.elements, now)
        else:
            # To delete an element that has just run out is an error; to flush is none.
            yield ElementChange(Action.FLUSH, name)
            yield from _added(name, new, new.elements, now)
    for name, to, was in _common(desired.maps, actual.maps):
        if to == was:
            continue
        gone = [key for key, chain in was.elements.items() if to.elements.get(key) != chain]
        come = {key: chain for key, chain in to.elements.items() if was.elements.get(key) != chain}
        yield from _deleted(name, was.fields, gone)
        yield from _sent(name, to, come)


def _deleted(name: str, fields: tuple[str, ...], elements: Collection[Element]) -> Iterator[ElementChange]:
    if elements:
        yield ElementChange(Action.DELETE, name, fields, elements)


def _added(name: str, key_set: KeySet, elements: Collection[Element], now: float) -> Iterator[ElementChange]:
    """Add elements, with what is left of their time; none when it is over."""
    timeout = None if key_set.until is None else key_set.until - now
    if elements and (timeout is None or timeout > 0):
        yield ElementChange(Action.ADD, name, key_set.fields, elements, timeout=timeout)


def _sent(name: str, verdicts: VerdictMap, elements: Mapping[Element, str]) -> Iterator[ElementChange]:
    if elements:
        yield ElementChange(Action.ADD, name, verdicts.fields, elements)


def _rewrite(desired: Ruleset, actual: Ruleset) -> Iterator[str]:
    """Give the chains that are there in both their new rules, all at once, and add base chains."""
    for name, chain, before in _common(desired.chains, actual.chains):
        if chain != before:
            yield from _rules_anew(name, chain, actual.generation, _in_force(desired, actual))
    for name, chain in _new(desired.chains, actual.chains):
        if chain.hook is not None:
            yield add_chain(name, chain)
            yield from add_rules(name, chain, actual.generation, _in_force(desired, actual))


def _rules_anew(name: str, chain: Chain, generation: int, in_force: int) -> Iterator[str]:
    """Replace the rules of a chain, all at once."""
    yield f"flush chain {TABLE} {name}"
    yield from add_rules(name, chain, generation, in_force)


def _of_generation(desired: Ruleset) -> Iterator[str]:
    """Yield the names of the chains that name the generation."""
    return (name for name, chain in desired.chains.items() if names_generation(chain))


def _rewrite_generation(desired: Ruleset, actual: Ruleset) -> Iterator[str]:
    """Have flows marked with the next generation, and its flows accepted without asking."""
    if _changes_generation(desired, actual):
        for name in _of_generation(desired):
            yield from _rules_anew(name, desired.chains[name], desired.generation, desired.generation)


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
