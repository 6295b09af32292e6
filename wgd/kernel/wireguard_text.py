"""The lines of WireGuard's UAPI, https://www.wireguard.com/xplatform/, to and from values."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_network

from wgd.errors import KernelError
from wgd.model import KEY_BYTES, Endpoint, Network, PublicKey, SecretKey
from wgd.plan.state import Device, DevicePeer, PeerChange

NO_KEY = bytes(KEY_BYTES)
"""An all-zero preshared key means that there is none."""

MOST_PEERS = 1 << 16
"""How many peers' AllowedIPs are kept as values."""

_Fields = dict[str, str]


def encode_peer(peer: PeerChange) -> Iterator[str]:
    """Give the lines of a `set` that make the change of one peer.

    `update_only` comes first: wireguard-go creates the peer at its `public_key` line and takes it back there.
    """
    yield f"public_key={peer.public_key.raw.hex()}"
    if not peer.create:
        yield "update_only=true"
    if peer.remove:
        yield "remove=true"
        return
    if peer.preshared_key is not None or peer.clear_preshared_key:
        yield f"preshared_key={(peer.preshared_key.raw if peer.preshared_key else NO_KEY).hex()}"
    if peer.endpoint is not None:
        yield f"endpoint={peer.endpoint}"
    if peer.persistent_keepalive is not None:
        yield f"persistent_keepalive_interval={peer.persistent_keepalive}"
    if peer.replace_allowed_ips:
        yield "replace_allowed_ips=true"
    for network in peer.allowed_ips:
        yield f"allowed_ip={network}"


def decode_device(name: str, text: str) -> Device:
    """Return the device that the lines of a `get` describe; raise KernelError where a known key has no sane value.

    Unknown keys are passed over, as the protocol asks. `last_handshake` comes as seconds and nanoseconds.
    """
    device: _Fields = {}
    peers: list[tuple[_Fields, list[str]]] = []
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "public_key":
            peers.append(({key: value}, []))
        elif key == "allowed_ip" and peers:
            peers[-1][1].append(value)
        else:
            (peers[-1][0] if peers else device)[key] = value
    try:
        return Device(
            name=name,
            private_key=_secret(device, "private_key"),
            listen_port=int(device.get("listen_port", "0")),
            peers=tuple(_peer(fields, allowed_ips) for fields, allowed_ips in peers),
            fwmark=int(device.get("fwmark", "0")),
        )
    except ValueError:
        # The cause would quote the value, which can be a key.
        raise KernelError(name, "the userspace WireGuard's answer cannot be read; look at its log") from None


def _peer(fields: _Fields, allowed_ips: list[str]) -> DevicePeer:
    seconds, nanoseconds = fields.get("last_handshake_time_sec", "0"), fields.get("last_handshake_time_nsec", "0")
    return DevicePeer(
        public_key=PublicKey(_key(fields["public_key"])),
        allowed_ips=_networks(tuple(allowed_ips)),
        preshared_key=_secret(fields, "preshared_key"),
        endpoint=_endpoint(fields["endpoint"]) if "endpoint" in fields else None,
        persistent_keepalive=int(fields.get("persistent_keepalive_interval", "0")),
        last_handshake=int(seconds) + int(nanoseconds) / 1e9,
        rx_bytes=int(fields.get("rx_bytes", "0")),
        tx_bytes=int(fields.get("tx_bytes", "0")),
    )


@lru_cache(MOST_PEERS)
def _networks(texts: tuple[str, ...]) -> frozenset[Network]:
    """Return the AllowedIPs of a peer; they are read again and again, and hardly ever change."""
    return frozenset(map(ip_network, texts))


def _key(text: str) -> bytes:
    raw = bytes.fromhex(text)
    if len(raw) != KEY_BYTES:
        raise ValueError("key length")
    return raw


def _secret(fields: _Fields, name: str) -> SecretKey | None:
    raw = _key(fields[name]) if name in fields else NO_KEY
    return None if raw == NO_KEY else SecretKey(raw)


def _endpoint(text: str) -> Endpoint:
    """Return `1.2.3.4:5` or `[fe80::1%eth0]:5` as a value; the host stays the text that it was."""
    host, _, port = text.rpartition(":")
    return Endpoint(host.removeprefix("[").removesuffix("]"), int(port))
