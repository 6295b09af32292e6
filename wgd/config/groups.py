"""In which order nested groups can be resolved, and which of them contain themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wgd.config.drafts import Reference
from wgd.model import Place

Members = Sequence[tuple[Reference, Place]]
_GROUP = "group:"


def nesting_order(groups: Mapping[str, Members]) -> tuple[list[str], list[tuple[list[str], Place]]]:
    """Return the groups with inner ones before outer ones, and the cycles among them.

    Groups that contain each other come in any order. The place of a cycle is the member that closes it. No depth of
    nesting exhausts a stack.
    """
    inner = {group: _inner_groups(members, groups) for group, members in groups.items()}
    order: list[str] = []
    cycles: list[tuple[list[str], Place]] = []
    finished: set[str] = set()
    for start in groups:
        trail = [start] if start not in finished else []
        on_trail = dict.fromkeys(trail)
        while trail:
            group = trail[-1]
            if not inner[group]:
                finished.add(trail.pop())
                del on_trail[group]
                order.append(group)
                continue
            name, place = next(iter(inner[group].items()))
            del inner[group][name]
            if name in on_trail:
                cycles.append((trail[trail.index(name) :], place))
            elif name not in finished:
                trail.append(name)
                on_trail[name] = None
    return order, cycles


def _inner_groups(members: Members, groups: Mapping[str, Members]) -> dict[str, Place]:
    """Return the other groups that are members, each with the first place that names it."""
    found: dict[str, Place] = {}
    for reference, place in members:
        if isinstance(reference, str) and reference.startswith(_GROUP):
            name = reference.removeprefix(_GROUP)
            if name in groups:
                found.setdefault(name, place)
    return found
