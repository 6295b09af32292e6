"""One entry of a rule's `allow` or `allow_from` list.

There can be a million of them, so each is one plain call, not a schema.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from ipaddress import IPv4Network, IPv6Network
from typing import Any, NamedTuple

import voluptuous

from wgd.config.addresses import network
from wgd.config.schema import RefusedError, flat, one_or_more
from wgd.config.tree import Tree
from wgd.config.values import ports, protocol
from wgd.model import ICMP, ICMPV6, IPV6_EXTENSION_HEADERS, PORT_PROTOCOLS, PROTOCOLS, Network, PortRange

_OTHER_FIELDS: dict[str, Callable[[Tree], Any]] = {"proto": protocol, "ports": one_or_more(ports)}
_FIELDS = {end: {end: network, **_OTHER_FIELDS} for end in ("to", "from")}
_ENDS = {"to": "the destination", "from": "the source"}
IPV4, IPV6 = 4, 6

_WITH_PORTS = ", ".join(word for word, number in PROTOCOLS.items() if number in PORT_PROTOCOLS)


class Allowed(NamedTuple):
    """An entry without its place; the fields are AllowRule's."""

    to: Network
    proto: int | None = None
    ports: tuple[PortRange, ...] = ()


def allow_entry(value: Tree) -> Allowed:
    """Return an entry, written as a network or as {to, proto, ports}; raise voluptuous.Invalid with every problem."""
    return _entry(value, "to")


def allow_from_entry(value: Tree) -> Allowed:
    """Return the same for an entry that says `from` where the other says `to`."""
    return _entry(value, "from")


def _entry(value: Tree, end: str) -> Allowed:
    if isinstance(value, str):
        return Allowed(network(value))
    if isinstance(value, list):
        raise RefusedError(f"must be a network, or {{{end}: NETWORK, proto: …, ports: […]}}, not a list")
    fields = _FIELDS[end]
    values: dict[str, Any] = {}
    errors: list[voluptuous.Invalid] = []
    for key, item in value.items():
        validator = fields.get(key)
        try:
            if validator is None:
                raise RefusedError(_unknown_key(key, fields))
            values[key] = validator(item)
        except voluptuous.Invalid as error:
            error.prepend([key])
            errors += flat(error)
    if end not in value:
        errors.append(RefusedError("is required", [end]))
    errors += _contradictions(values, end, proto_given="proto" in value)
    if errors:
        raise voluptuous.MultipleInvalid(errors)
    to: Network = values[end]
    proto: int | None = values.get("proto")
    if proto is not None:
        proto = family_protocol(to.version, proto)
    return Allowed(to, proto, tuple(values.get("ports", ())))


def family_protocol(version: int, proto: int) -> int:
    """Return the protocol as IP `version` has it: a written `icmp` is ICMPv6 for IPv6."""
    return ICMPV6 if proto == ICMP and version == IPV6 else proto


def _contradictions(values: dict[str, Any], end: str, *, proto_given: bool) -> list[RefusedError]:
    """Return what single values cannot show. A key whose value was wrong is absent and judged no further."""
    errors = []
    proto = values.get("proto")
    if "ports" in values and proto is None and not proto_given:
        errors.append(RefusedError("need a protocol: add proto: tcp or proto: udp", ["ports"]))
    elif "ports" in values and proto is not None and proto not in PORT_PROTOCOLS:
        errors.append(RefusedError(f"exist only with {_WITH_PORTS}: remove them or change proto", ["ports"]))
    if proto in IPV6_EXTENSION_HEADERS and isinstance(values.get(end), IPv6Network):
        errors.append(
            RefusedError(
                "is an extension header in IPv6, which the kernel looks past: write what follows it", ["proto"]
            )
        )
    if proto == ICMPV6 and isinstance(values.get(end), IPv4Network):
        errors.append(RefusedError(f"is IPv6's and {_ENDS[end]} is IPv4: write icmp", ["proto"]))
    return errors


def _unknown_key(key: str, fields: Collection[str]) -> str:
    near = difflib.get_close_matches(key, fields, 1)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; known are {', '.join(fields)}"
