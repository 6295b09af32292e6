"""Whom rules and tests mean: peer names, public keys and groups resolved to public keys."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from wgd.config.drafts import Fragment, PeerDraft, Reference, References
from wgd.config.groups import Members, nesting_order
from wgd.config.shown import shown
from wgd.errors import Problem
from wgd.model import Place, PolicyTest, PublicKey, Rule

_GROUP = "group:"
_MOST_COMPARED = 100
"""Among more names than this none is suggested: comparing costs 0.1 ms a pair."""


class Resolved(NamedTuple):
    """A file's rules and tests with their clients, and what is wrong with these."""

    fragment: Fragment
    rules: tuple[Rule, ...]
    tests: tuple[PolicyTest, ...]
    problems: tuple[Problem, ...]


class Clients:
    """The peers and groups of all files; finds the keys that references mean, and tells those that mean nobody.

    A reference to something that a broken peer or an unreadable file may well have defined is not called a mistake.
    `complete` is whether all files could be read.
    """

    def __init__(
        self,
        drafts: tuple[tuple[PeerDraft, ...], ...],
        groups: tuple[tuple[tuple[str, References], ...], ...],
        *,
        complete: bool,
    ) -> None:
        peers = [draft for of_file in drafts for draft in of_file]
        self._peer_names = {draft.name: draft.public_key for draft in peers if draft.name is not None}
        self._keys = {draft.public_key for draft in peers if draft.public_key is not None}
        self._all_names_known = complete and all(draft.name is not None for draft in peers)
        self._all_keys_known = complete and all(draft.public_key is not None for draft in peers)
        self._all_groups_known = complete
        self._groups: dict[str, tuple[PublicKey, ...]] = {}
        self._resolved: dict[int, Resolved] = {}
        self._problems: list[Problem] = []
        members: dict[str, list[tuple[Reference, Place]]] = {}
        for of_file in groups:
            for group, references in of_file:
                members.setdefault(group, []).extend(references)
        self._expand(members)

    def policy(
        self, fragments: Sequence[Fragment]
    ) -> tuple[tuple[Rule, ...], tuple[PolicyTest, ...], tuple[Problem, ...]]:
        """Return the rules and tests of all files, and what is wrong with groups and references.

        A file that was resolved last time is not resolved again.
        """
        known = self._resolved
        self._resolved = {
            id(fragment): known[id(fragment)] if id(fragment) in known else self._resolve(fragment)
            for fragment in fragments
        }
        found = tuple(self._resolved[id(fragment)] for fragment in fragments)
        problems = (*self._problems, *(problem for each in found for problem in each.problems))
        rules = tuple(rule for each in found for rule in each.rules)
        return rules, tuple(test for each in found for test in each.tests), problems

    def _resolve(self, fragment: Fragment) -> Resolved:
        before = len(self._problems)
        rules = tuple(
            Rule(
                draft.name,
                self.resolve(draft.clients),
                draft.allow,
                fragment.name,
                draft.place,
                draft.allow_from,
                draft.until,
            )
            for draft in fragment.rules
        )
        tests = tuple(
            PolicyTest(client, draft.to, draft.proto, draft.port, draft.expect, draft.place, incoming=draft.incoming)
            for draft in fragment.tests
            for client in self.resolve(draft.clients)
        )
        problems = tuple(self._problems[before:])
        del self._problems[before:]
        return Resolved(fragment, rules, tests, problems)

    def resolve(self, references: Iterable[tuple[Reference, Place]]) -> tuple[PublicKey, ...]:
        """Return the keys that the references mean, in order and each once."""
        return tuple(dict.fromkeys(key for reference, place in references for key in self._keys_of(reference, place)))

    def _expand(self, members: Mapping[str, Members]) -> None:
        """Fill in every group's keys, inner groups before the outer ones that use them."""
        self._groups = dict.fromkeys(members, ())
        order, cycles = nesting_order(members)
        for cycle, place in cycles:
            path = " -> ".join(shown(group) for group in [*cycle, cycle[0]])
            self._problem(place, f"the groups contain each other: {path}; take one of them out")
        for group in order:
            self._groups[group] = self.resolve(members[group])

    def _keys_of(self, reference: Reference, place: Place) -> tuple[PublicKey, ...]:
        if isinstance(reference, PublicKey):
            if reference in self._keys:
                return (reference,)
            if self._all_keys_known:
                self._problem(place, "is the public key of no peer: add the peer or correct the key")
        elif reference.startswith(_GROUP):
            return self._keys_of_group(reference.removeprefix(_GROUP), place)
        elif reference in self._peer_names:
            key = self._peer_names[reference]
            return () if key is None else (key,)
        elif self._all_names_known:
            self._problem(place, f"no peer is named {shown(reference)}{_nearest(reference, self._peer_names)}")
        return ()

    def _keys_of_group(self, group: str, place: Place) -> tuple[PublicKey, ...]:
        if group in self._groups:
            return self._groups[group]
        if self._all_groups_known:
            self._problem(place, f"there is no group {shown(group)}{_nearest(group, self._groups)}")
        return ()

    def _problem(self, place: Place, text: str) -> None:
        self._problems.append(Problem(place.file, place.line, place.path, text))


def _nearest(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, 1) if len(known) <= _MOST_COMPARED else []
    return f"; did you mean {near[0]}?" if near else ""
