"""What to set on a WireGuard device so that it becomes the desired one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from wgd.model import Endpoint, Network, SecretKey
from wgd.plan.state import Device, DeviceChange, DevicePeer, PeerChange

_Peers = Mapping[bytes, DevicePeer]


def change(desired: Device, actual: Device, previous: Device | None = None) -> DeviceChange:
    """Return what turns `actual` into `desired`; it is false when there is nothing to set.

    `previous` is the device that was desired before, when there was one. With it a peer that has roamed
    keeps the endpoint it moved to: an endpoint is set again only where the desired one changed or the kernel has none.

    Peers that go are the first changes, so that what is revoked stops before anything new starts. An allowed ip that
    moves from one peer to another is only added to its new peer: WireGuard takes it from the old one in the same
    step, so that it is never without a peer. Allowed ips that go altogether are last, by a replacement of the peer's
    list, the one way to take them away that every kernel has. Whatever has not changed is left
    out, and with it the peers' sessions, handshakes and counters.
    """
    wanted, there = _by_key(desired.peers), _by_key(actual.peers)
    before = _by_key(previous.peers) if previous is not None else {}
    private_key, listen_port = desired.private_key, desired.listen_port
    return DeviceChange(
        private_key=None if _same_key(private_key, actual.private_key) else private_key,
        listen_port=None if listen_port == actual.listen_port else listen_port,
        peers=(*_removed(wanted, actual.peers), *_set(desired.peers, there, before)),
    )


def _same_key(wanted: SecretKey | None, there: SecretKey | None) -> bool:
    """Whether both are one private key: WireGuard clamps a key that it is given (RFC 7748, section 5)."""
    if wanted is None or there is None:
        return wanted == there
    return _clamped(wanted.raw) == _clamped(there.raw)


def _clamped(key: bytes) -> bytes:
    return bytes((key[0] & 248, *key[1:-1], key[-1] & 127 | 64))


def _by_key(peers: Iterable[DevicePeer]) -> dict[bytes, DevicePeer]:
    """Key by the raw bytes: they hash many times faster than a PublicKey, which 10,000 peers feel."""
    return {peer.public_key.raw: peer for peer in peers}


def _removed(wanted: _Peers, there: Iterable[DevicePeer]) -> Iterable[PeerChange]:
    return (PeerChange(peer.public_key, remove=True) for peer in there if peer.public_key.raw not in wanted)


def _set(wanted: Iterable[DevicePeer], there: _Peers, before: _Peers) -> Iterable[PeerChange]:
    """Give what is set and added first, then the allowed ips that nobody has taken over and that are to go."""
    gained: set[Network] = set()
    losing: list[tuple[DevicePeer, frozenset[Network]]] = []
    for peer in wanted:
        now = there.get(peer.public_key.raw)
        if now is None:
            gained |= peer.allowed_ips
            yield _new(peer)
            continue
        added: frozenset[Network] = frozenset()
        if peer.allowed_ips != now.allowed_ips:
            added = peer.allowed_ips - now.allowed_ips
            gained |= added
            losing.append((peer, now.allowed_ips - peer.allowed_ips))
        yield from _changed(peer, now, before.get(peer.public_key.raw), added)
    for peer, lost in losing:
        if not lost <= gained:
            yield PeerChange(peer.public_key, replace_allowed_ips=True, allowed_ips=_sorted(peer.allowed_ips))


def _new(peer: DevicePeer) -> PeerChange:
    return PeerChange(
        peer.public_key,
        create=True,
        preshared_key=peer.preshared_key,
        endpoint=peer.endpoint,
        persistent_keepalive=peer.persistent_keepalive or None,
        replace_allowed_ips=True,
        allowed_ips=_sorted(peer.allowed_ips),
    )


def _changed(
    peer: DevicePeer, now: DevicePeer, before: DevicePeer | None, added: frozenset[Network]
) -> Iterable[PeerChange]:
    """Give what is set on a peer that exists; `added` are the allowed ips that it gains."""
    endpoint = _endpoint(peer, now, before)
    keepalive = peer.persistent_keepalive
    same_keepalive, same_preshared_key = keepalive == now.persistent_keepalive, peer.preshared_key == now.preshared_key
    if endpoint is None and not added and same_keepalive and same_preshared_key:
        return
    yield PeerChange(
        peer.public_key,
        preshared_key=None if same_preshared_key else peer.preshared_key,
        clear_preshared_key=peer.preshared_key is None and not same_preshared_key,
        endpoint=endpoint,
        persistent_keepalive=None if same_keepalive else keepalive,
        allowed_ips=_sorted(added),
    )


def _endpoint(peer: DevicePeer, now: DevicePeer, before: DevicePeer | None) -> Endpoint | None:
    """Return the endpoint to set, or None to leave the kernel's."""
    if peer.endpoint is None:
        return None
    settled = now.endpoint if before is None or now.endpoint is None else before.endpoint
    return None if _same(peer.endpoint, settled) else peer.endpoint


def _same(one: Endpoint, other: Endpoint | None) -> bool:
    """Whether both mean the same address: IPv6 can be written in many ways, and the kernel reads back in one."""
    if one == other:
        return True
    return other is not None and one.port == other.port and one.address is not None and one.address == other.address


def _sorted(networks: Iterable[Network]) -> tuple[Network, ...]:
    return tuple(sorted(networks, key=lambda net: (net.version, int(net.network_address), net.prefixlen)))
