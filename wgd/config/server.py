"""The gateway's config: the main file and its drop-ins, each read to a fragment, joined and checked as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wgd.config.clients import Clients
from wgd.config.drafts import Fragment, PeerDraft, References
from wgd.config.fragment import read_fragment
from wgd.config.interface import check_addresses, read_interface
from wgd.config.peers import check_peers, problem_at, repeated, where
from wgd.config.shown import shown
from wgd.config.text import SourceFile
from wgd.errors import ConfigError, Problem
from wgd.model import (
    AddressWithPrefix,
    DenyWith,
    Forwarding,
    Logging,
    Peer,
    Place,
    Policy,
    Routing,
    ServerConfig,
)
from wgd.policy.remembered import remembered

__all__ = ["SourceFile", "join", "load_server", "read_fragment"]

_JOINED = {
    ("interface",),
    ("interface", "address"),
    ("logging",),
    ("routing",),
    ("peers",),
    ("policy",),
    ("masquerade",),
}
"""The keys that several files may give: lists and mappings are joined."""
_REQUIRED = {
    ("interface", "name"): "is required, as in wgd0",
    ("interface", "address"): "is required: the gateway's address inside the tunnel, as in 10.80.0.1/24",
    ("interface", "listen_port"): "is required: the UDP port that clients send to, 51820 by custom",
    ("authz_mode",): "is required: choose enforce (drop what no rule allows) or observe (forward all and report it)",
}


def load_server(files: Sequence[SourceFile]) -> ServerConfig:
    """Return the config that the main file and its drop-ins, in this order, give; `files` is not empty.

    Raises ConfigError with every problem of all files.
    """
    return join([read_fragment(file) for file in files])


def join(fragments: Sequence[Fragment]) -> ServerConfig:
    """Return the config that fragments, the main file's first, give together; raise ConfigError with every problem."""
    problems = [problem for fragment in fragments for problem in fragment.problems]
    if all(fragment.complete for fragment in fragments):
        problems += _missing(fragments, {problem.path for problem in problems})
    problems += _given_twice(fragments)
    settings = {path: value for fragment in fragments for path, value in fragment.settings.items()}
    given = _first_given(fragments)
    addresses = [located for fragment in fragments for located in fragment.addresses]
    problems += check_addresses(addresses, _part(settings, "interface").get("mtu"), given.get(("interface", "mtu")))
    drafts = tuple(fragment.peers for fragment in fragments)
    peers, problems_of_peers = _peers(drafts, tuple(fragment.addresses for fragment in fragments))
    problems += problems_of_peers
    groups = tuple(fragment.groups for fragment in fragments)
    clients = _clients(drafts, groups, all(fragment.complete for fragment in fragments))
    rules, tests, problems_of_policy = clients.policy(fragments)
    problems += problems_of_policy
    problems += _rule_names(fragments)
    outside = [located for fragment in fragments for located in fragment.masquerade]
    problems += _masquerade(outside, _part(settings, "interface").get("name"))
    if problems:
        raise ConfigError(problems)
    return ServerConfig(
        interface=read_interface(_part(settings, "interface"), addresses, given["interface",]),
        authz_mode=settings["authz_mode",],
        peers=peers,
        policy=Policy(rules, tests),
        logging=_logging(settings),
        routing=Routing(**_part(settings, "routing")),
        forwarding=settings.get(("forwarding",), Forwarding.AUTO),
        deny_with=settings.get(("deny_with",), DenyWith.DROP),
        masquerade=tuple(dict.fromkeys(name for name, _place in outside)),
    )


def _first_given(fragments: Sequence[Fragment]) -> dict[tuple[str, ...], Place]:
    """Return where every key was first written."""
    return {path: place for fragment in reversed(fragments) for path, place in fragment.given.items()}


def _part(settings: Mapping[tuple[str, ...], Any], section: str) -> dict[str, Any]:
    """Return the settings of one section by their names."""
    return {path[1]: value for path, value in settings.items() if path[0] == section and len(path) > 1}


def _given_twice(fragments: Sequence[Fragment]) -> Iterator[Problem]:
    written = [(path, place) for fragment in fragments for path, place in fragment.given.items() if path not in _JOINED]
    for _path, place, first in repeated(written):
        yield problem_at(place, f"is given already in {where(first)}: keep one of the two")


def _missing(fragments: Sequence[Fragment], wrong: set[str]) -> Iterator[Problem]:
    """Yield what no file gives. A section that is missing or wrong as a whole is told once, not key by key."""
    given = _first_given(fragments)
    top = Place(fragments[0].file, 1, "")
    if ("interface",) not in given:
        yield Problem(
            top.file,
            top.line,
            "interface",
            "is required: the gateway's WireGuard interface, with name, address, listen_port",
        )
    for path, text in _REQUIRED.items():
        holder = given.get(path[:-1], top)
        if path not in given and (len(path) == 1 or path[:-1] in given) and holder.path not in (wrong - {""}):
            yield Problem(holder.file, holder.line, ".".join(path), text)


@remembered
def _peers(
    drafts: tuple[tuple[PeerDraft, ...], ...], addresses: tuple[tuple[tuple[AddressWithPrefix, Place], ...], ...]
) -> tuple[tuple[Peer, ...], tuple[Problem, ...]]:
    """Return the peers of all files that are right, and what is wrong with them together."""
    joined = tuple(draft for of_file in drafts for draft in of_file)
    own = [address for of_file in addresses for address, _place in of_file]
    return tuple(draft.peer for draft in joined if draft.peer is not None), tuple(check_peers(joined, own))


@remembered
def _clients(
    drafts: tuple[tuple[PeerDraft, ...], ...],
    groups: tuple[tuple[tuple[str, References], ...], ...],
    complete: bool,  # noqa: FBT001 - `remembered` takes what has a place
) -> Clients:
    return Clients(drafts, groups, complete=complete)


def _rule_names(fragments: Sequence[Fragment]) -> Iterator[Problem]:
    names = [
        (draft.name, draft.name_place) for fragment in fragments for draft in fragment.rules if draft.name is not None
    ]
    for name, place, first in repeated(names):
        yield problem_at(
            place, f"the name {shown(name)} is taken by the rule at {where(first)}: events could not tell them apart"
        )


def _masquerade(outside: Sequence[tuple[str, Place]], tunnel: str | None) -> Iterator[Problem]:
    for name, place in outside:
        if name == tunnel:
            yield problem_at(place, "is the tunnel itself: name the interfaces by which its traffic leaves")


def _logging(settings: Mapping[tuple[str, ...], Any]) -> Logging:
    part = _part(settings, "logging")
    known = {key: part[key] for key in ("path", "nflog_group", "record", "journal") if key in part}
    return Logging(enabled=settings.get(("logging_enabled",), False), **known)
