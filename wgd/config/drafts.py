"""What one server file says by itself, before the files are joined: typed where it is right, None where it is not.

Fragments depend on nothing but their file, so that the fragment of an unchanged file can be used again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wgd.errors import Problem
from wgd.model import Address, AddressWithPrefix, AllowRule, Network, Peer, Place, PublicKey

Reference = PublicKey | str
"""Whom a rule means: a public key, a peer's name, or `group:NAME`."""
References = tuple[tuple[Reference, Place], ...]


@dataclass(frozen=True)
class PeerDraft:
    """A peer as written; `peer` is None when something about it is wrong."""

    name: str | None
    name_place: Place
    public_key: PublicKey | None
    key_place: Place
    allowed_ips: tuple[tuple[Network, Place], ...]
    peer: Peer | None


@dataclass(frozen=True)
class RuleDraft:
    """A policy rule whose clients are not resolved yet."""

    name: str | None
    clients: References
    allow: tuple[AllowRule, ...]
    allow_from: tuple[AllowRule, ...]
    until: int | None
    place: Place
    name_place: Place


@dataclass(frozen=True)
class PolicyTestDraft:
    """A policy test whose clients are not resolved yet."""

    clients: References
    to: Address
    proto: int
    port: int | None
    expect: bool
    incoming: bool
    place: Place


@dataclass(frozen=True)
class Fragment:
    """One file: `settings` are the scalars by key path, `given` the places of all that were written, right or wrong.

    `complete` is False when the file could not be read as YAML, so that nothing is known about what it would say.
    """

    file: str
    name: str
    problems: tuple[Problem, ...]
    complete: bool
    settings: Mapping[tuple[str, ...], Any] = field(default_factory=dict)
    given: Mapping[tuple[str, ...], Place] = field(default_factory=dict)
    addresses: tuple[tuple[AddressWithPrefix, Place], ...] = ()
    masquerade: tuple[tuple[str, Place], ...] = ()
    peers: tuple[PeerDraft, ...] = ()
    groups: tuple[tuple[str, References], ...] = ()
    rules: tuple[RuleDraft, ...] = ()
    tests: tuple[PolicyTestDraft, ...] = ()
