"""What a reload has changed, for the event log: from one config to the next, without a look at the kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wgd.model import ServerConfig
from wgd.plan.preview import grants, listed, settings


@dataclass(frozen=True)
class Reloaded:
    """Changes of one kind: `object` as in wgd-events(5), None where none of its words fits; how many there were."""

    object: str | None
    action: str
    detail: str
    count: int


def reloaded(wanted: ServerConfig, before: ServerConfig) -> tuple[Reloaded, ...]:
    """Return what makes `wanted` differ from `before`; a detail names the first few of each kind."""
    return tuple(_changes(wanted, before))


def _changes(wanted: ServerConfig, before: ServerConfig) -> Iterator[Reloaded]:
    for change in settings(wanted, before):
        yield Reloaded("forwarding" if change.detail.startswith("forwarding:") else None, "changed", change.detail, 1)
    for name in ("listen_port", "mtu"):
        old, new = getattr(before.interface, name), getattr(wanted.interface, name)
        if old != new:
            yield Reloaded("link", "changed", f"{name}: {old or 'any'} -> {new or 'any'}", 1)
    new_addresses, old_addresses = (tuple(map(str, config.interface.address)) for config in (wanted, before))
    yield from _kind("address", "removed", (each for each in old_addresses if each not in new_addresses))
    yield from _kind("address", "added", (each for each in new_addresses if each not in old_addresses))
    yield from _peers(wanted, before)
    changed = tuple(grants(wanted, before))
    for action in ("removed", "added"):
        yield from _kind("rule", action, (change.detail for change in changed if change.action == action))


def _peers(wanted: ServerConfig, before: ServerConfig) -> Iterator[Reloaded]:
    new, old = ({peer.public_key: peer for peer in config.peers} for config in (wanted, before))
    yield from _kind("peer", "removed", (peer.name for key, peer in old.items() if key not in new))
    yield from _kind("peer", "added", (peer.name for key, peer in new.items() if key not in old))
    yield from _kind("peer", "changed", (peer.name for key, peer in new.items() if old.get(key, peer) != peer))


def _kind(object_: str, action: str, found: Iterable[str]) -> Iterator[Reloaded]:
    names = list(found)
    if names:
        yield Reloaded(object_, action, listed(names), len(names))
