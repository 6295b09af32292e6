"""What a reload would change, in words for a person.

It compares what is wanted with what the kernel holds, as the reload itself does, and, for what the kernel does not
know by name (rules, modes), with what was wanted before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from wgd.model import PROTOCOLS, AllowRule, PublicKey, ServerConfig
from wgd.plan import forwarding, peers, routing, ruleset
from wgd.plan.gateway import Actual, Desired
from wgd.plan.ruleset_text import TABLE
from wgd.plan.state import Device, PeerChange, RoutingRule
from wgd.policy.ruleset import KeySet, Ruleset, VerdictMap

MOST_NAMES = 5
"""How many peers a line names before it counts the rest."""
PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


@dataclass(frozen=True)
class Change:
    """One thing that would change: `object` a word for its kind, `action` added, removed or changed."""

    object: str
    action: str
    detail: str


def preview(
    wanted: Desired, before: Desired, actual: Actual, originals: Mapping[str, str], now: float = 0.0
) -> tuple[Change, ...]:
    """Return what leads from `actual`, read at `now`, to `wanted`; `originals` and `now` as in `differences`."""
    return tuple(_changes(wanted, before, actual, originals, now))


def _changes(
    wanted: Desired, before: Desired, actual: Actual, originals: Mapping[str, str], now: float
) -> Iterator[Change]:
    yield from settings(wanted.config, before.config)
    if actual.device is not None:
        yield from _device(wanted, before, actual.device)
    yield from grants(wanted.config, before.config)
    yield from _ruleset(wanted.ruleset, actual.ruleset, now)
    yield from _routing(wanted, before, actual)
    yield from _link(wanted, actual)
    given_back = forwarding.no_longer_held(wanted.config, actual.settings, originals)
    for name, value in (given_back | forwarding.desired_settings(wanted.config, actual.settings, originals)).items():
        yield Change("forwarding", "changed", f"{name}: {actual.settings.get(name, 'absent')} -> {value}")


def settings(wanted: ServerConfig, before: ServerConfig) -> Iterator[Change]:
    """Yield the settings that are not of peers, rules or the interface and have another value."""
    for name, old, new in (
        ("authz_mode", before.authz_mode.value, wanted.authz_mode.value),
        ("event log", _log(before), _log(wanted)),
        ("forwarding", before.forwarding.value, wanted.forwarding.value),
        ("routing", _routing_words(before), _routing_words(wanted)),
    ):
        if old != new:
            yield Change("config", "changed", f"{name}: {old} -> {new}")


def _log(config: ServerConfig) -> str:
    logging = config.logging
    return f"{logging.path} from group {logging.nflog_group}" if logging.enabled else "off"


def _routing_words(config: ServerConfig) -> str:
    return f"table {config.routing.table}, mark 0x{config.routing.mark:x}, priority {config.routing.priority}"


def _device(wanted: Desired, before: Desired, actual: Device) -> Iterator[Change]:
    change = peers.change(wanted.device, actual, before.device)
    names = _names(before.config) | _names(wanted.config)
    if change.private_key is not None:
        yield Change("link", "changed", "private key: every session begins anew")
    if change.listen_port is not None:
        yield Change("link", "changed", f"listen port: {actual.listen_port} -> {change.listen_port}")
    by_peer: dict[PublicKey, list[PeerChange]] = {}
    for peer in change.peers:
        by_peer.setdefault(peer.public_key, []).append(peer)
    for public_key, changes in by_peer.items():
        name = f"{names.get(public_key, 'unknown')} ({public_key})"
        if any(peer.remove for peer in changes):
            yield Change("peer", "removed", name)
        elif any(peer.create for peer in changes):
            yield Change("peer", "added", name)
        else:
            yield Change("peer", "changed", f"{name}: {', '.join(_what(changes))}")
    old = _names(before.config)
    for public_key, name in _names(wanted.config).items():
        if old.get(public_key, name) != name:
            yield Change("peer", "changed", f"{old[public_key]} is now called {name}")


def _what(changes: list[PeerChange]) -> Iterator[str]:
    """Yield what of a peer would change; never a key."""
    if any(change.allowed_ips or change.replace_allowed_ips for change in changes):
        yield "allowed_ips"
    if any(change.endpoint is not None for change in changes):
        yield "endpoint"
    if any(change.persistent_keepalive is not None for change in changes):
        yield "persistent_keepalive"
    if any(change.preshared_key is not None or change.clear_preshared_key for change in changes):
        yield "preshared key"


def _names(config: ServerConfig) -> dict[PublicKey, str]:
    return {peer.public_key: peer.name for peer in config.peers}


def grants(wanted: ServerConfig, before: ServerConfig) -> Iterator[Change]:
    """Yield the allow rules that come and go. A rule for other clients than before has gone and come."""
    same: frozenset[int] = frozenset()
    if wanted.peers is before.peers or _names(wanted) == _names(before):
        # The files that have not changed give the same objects: of a large policy only the rest is put into words.
        same = frozenset(map(id, before.policy.rules)) & frozenset(map(id, wanted.policy.rules))
    old, new = _granted(before, same), _granted(wanted, same)
    yield from (Change("policy", "removed", detail) for detail in old if detail not in new)
    yield from (Change("policy", "added", detail) for detail in new if detail not in old)


def _granted(config: ServerConfig, but: frozenset[int]) -> dict[str, None]:
    """Return in words what each rule grants, without those whose ids are in `but`."""
    names = _names(config)
    found: dict[str, None] = {}
    for rule in config.policy.rules:
        if id(rule) in but:
            continue
        clients = listed([names[client] for client in rule.clients])
        until = f" until {datetime.fromtimestamp(rule.until, UTC).isoformat()}" if rule.until is not None else ""
        for index, allow in enumerate(rule.allow):
            found[f"{rule.label(index)}: {clients} to {_end(allow)}{until}"] = None
        for index, allow in enumerate(rule.allow_from):
            found[f"{rule.label_from(index)}: {_end(allow)} to {clients}{until}"] = None
    return found


def listed(names: list[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _end(allow: AllowRule) -> str:
    """Return the other end of what a client may, with protocol and ports."""
    protocol = "" if allow.proto is None else f" {PROTOCOL_NAMES.get(allow.proto, f'protocol {allow.proto}')}"
    ports = f" {','.join(map(str, allow.ports))}" if allow.ports else ""
    return f"{allow.to}{protocol}{ports}"


def _ruleset(wanted: Ruleset, actual: Ruleset | None, now: float) -> Iterator[Change]:
    """Yield the objects of the nftables table; sets and maps with the number of elements that come and go."""
    if actual is None:
        yield Change("table", "added", TABLE)
        return
    for difference in ruleset.differences(wanted, actual, now):
        kind, _, name = difference.partition(" ")
        if kind == "chain":
            yield Change("table", _action(name, wanted.chains, actual.chains), difference)
            continue
        new: Mapping[str, KeySet | VerdictMap] = {**wanted.sets, **wanted.maps}
        old: Mapping[str, KeySet | VerdictMap] = {**actual.sets, **actual.maps}
        come, gone = _elements(new.get(name)), _elements(old.get(name))
        counts = f"{len(come - gone)} elements come, {len(gone - come)} go"
        yield Change("set", _action(name, new, old), f"{difference}: {counts}")


def _elements(typed: KeySet | VerdictMap | None) -> frozenset[Any]:
    if isinstance(typed, VerdictMap):
        return frozenset(typed.elements.items())
    return frozenset() if typed is None else frozenset(typed.elements)


def _action(name: str, new: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    return "added" if name not in old else "changed" if name in new else "removed"


def _routing(wanted: Desired, before: Desired, actual: Actual) -> Iterator[Change]:
    rules = routing.change(wanted.rules, actual.rules)
    for added, some_rules in (("added", rules.add), ("removed", rules.remove)):
        yield from (Change("rule", added, _rule(rule)) for rule in some_rules)
    routes = routing.change(wanted.routes, actual.routes)
    for added, some_routes in (("added", routes.add), ("removed", routes.remove)):
        for route in some_routes:
            yield Change("route", added, f"{route.kind} {route.destination} in table {route.table}")
    addresses = routing.change(wanted.addresses, actual.addresses)
    yield from (Change("address", "added", str(address.address)) for address in addresses.add)
    for address in addresses.remove:
        # What somebody else added stays.
        if address in before.addresses:
            yield Change("address", "removed", str(address.address))


def _rule(rule: RoutingRule) -> str:
    what = f"lookup {rule.table}" if rule.action == "lookup" else rule.action
    return f"routing rule {rule.priority} (IPv{rule.family}): {what}"


def _link(wanted: Desired, actual: Actual) -> Iterator[Change]:
    name, mtu = wanted.device.name, wanted.config.interface.mtu
    if actual.link is None:
        yield Change("link", "added", name)
    elif not actual.link.up:
        yield Change("link", "changed", f"{name} is set up")
    elif mtu is not None and actual.link.mtu != mtu:
        yield Change("link", "changed", f"MTU: {actual.link.mtu} -> {mtu}")
