"""The `policy` section of one server file -> drafts of its groups, rules and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from wgd.config.addresses import literal_address
from wgd.config.allow import IPV4, Allowed, allow_entry, allow_from_entry, family_protocol
from wgd.config.drafts import PolicyTestDraft, References, RuleDraft
from wgd.config.schema import Reader, Section, mapping, sequence, some
from wgd.config.shown import dotted
from wgd.config.tree import Tree
from wgd.config.values import name, port, protocol, reference, rule_name, time, verdict
from wgd.model import ICMPV6, PORT_PROTOCOLS, AllowRule, Place

_POLICY = Section({"groups": mapping, "rules": sequence, "tests": sequence})
_RULE = Section(
    {
        "name": rule_name,
        "client_id": some,
        "allow": sequence,
        "allow_from": sequence,
        "until": time,
    },
    required=("client_id",),
)
_TEST = Section(
    {
        "client_id": some,
        "to": literal_address,
        "from": literal_address,
        "proto": protocol,
        "port": port,
        "expect": verdict,
    },
    required=("client_id", "proto", "expect"),
)


@dataclass(frozen=True)
class PolicyDraft:
    """What one file's `policy` says."""

    groups: tuple[tuple[str, References], ...]
    rules: tuple[RuleDraft, ...]
    tests: tuple[PolicyTestDraft, ...]


def read_policy(reader: Reader, tree: Tree) -> PolicyDraft:
    """Return the drafts of all that is right; what is wrong is noted in the reader."""
    values = reader.section(_POLICY, tree, ("policy",))
    return PolicyDraft(
        groups=tuple(_groups(reader, values.get("groups", {}))),
        rules=tuple(_rule(reader, item, index) for index, item in enumerate(values.get("rules", []))),
        tests=tuple(_tests(reader, values.get("tests", []))),
    )


def _groups(reader: Reader, tree: dict[str, Tree]) -> Iterator[tuple[str, References]]:
    for group, members in tree.items():
        path = ("policy", "groups", group)
        reader.value(name, group, path)
        yield group, tuple(reader.items(reference, reader.value(sequence, members, path) or [], path))


def _references(reader: Reader, values: dict[str, Any], path: tuple[str | int, ...]) -> References:
    if "client_id" not in values:
        return ()
    return tuple(reader.items(reference, values["client_id"], (*path, "client_id")))


def _rule(reader: Reader, item: Tree, index: int) -> RuleDraft:
    path = ("policy", "rules", index)
    values = reader.section(_RULE, item, path)
    if isinstance(item, dict) and not {"allow", "allow_from"} & item.keys():
        reader.problem((*path, "allow"), "is required, or allow_from")
    return RuleDraft(
        name=values.get("name"),
        clients=_references(reader, values, path),
        allow=tuple(_entries(reader, allow_entry, values.get("allow", []), (*path, "allow"))),
        allow_from=tuple(_entries(reader, allow_from_entry, values.get("allow_from", []), (*path, "allow_from"))),
        until=values.get("until"),
        place=reader.place(path),
        name_place=reader.place((*path, "name")),
    )


def _entries(
    reader: Reader, validator: Callable[[Tree], Allowed], items: list[Tree], path: tuple[str | int, ...]
) -> Iterator[AllowRule]:
    lines = reader.document.item_lines(path, len(items))
    file = reader.document.file
    prefix = f"{dotted(path)}["
    for index, item in enumerate(items):
        entry = reader.value(validator, item, (*path, index))
        if entry is not None:
            place = Place(file, lines[index], f"{prefix}{index}]")
            yield AllowRule(entry.to, entry.proto, entry.ports, place)


def _tests(reader: Reader, items: list[Tree]) -> Iterator[PolicyTestDraft]:
    for index, item in enumerate(items):
        path = ("policy", "tests", index)
        before = len(reader.problems)
        values = reader.section(_TEST, item, path)
        _check_port(reader, values, item, path)
        _check_ends(reader, item, path)
        ends = [values[key] for key in ("to", "from") if key in values]
        if ends and values.get("proto") == ICMPV6 and ends[0].version == IPV4:
            reader.problem((*path, "proto"), "is IPv6's and the destination is IPv4: write icmp")
        clients = _references(reader, values, path)
        if len(reader.problems) > before:
            continue
        yield PolicyTestDraft(
            clients=clients,
            to=ends[0],
            proto=family_protocol(ends[0].version, values["proto"]),
            port=values.get("port"),
            expect=values["expect"],
            incoming="from" in values,
            place=reader.place(path),
        )


def _check_ends(reader: Reader, item: Tree, path: tuple[str | int, ...]) -> None:
    if not isinstance(item, dict):
        return
    if "to" not in item and "from" not in item:
        reader.problem((*path, "to"), "is required, or from")
    if "to" in item and "from" in item:
        reader.problem((*path, "from"), "excludes to: the other end is the client itself")


def _check_port(reader: Reader, values: dict[str, Any], item: Tree, path: tuple[str | int, ...]) -> None:
    if "proto" not in values or not isinstance(item, dict):
        return
    if values["proto"] in PORT_PROTOCOLS and "port" not in item:
        reader.problem((*path, "port"), "is required with this protocol")
    if values["proto"] not in PORT_PROTOCOLS and "port" in item:
        reader.problem((*path, "port"), "does not exist in this protocol: remove it")
