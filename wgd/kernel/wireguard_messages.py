"""The peers in WireGuard's generic netlink messages, to and from bytes, as linux/wireguard.h lays them out.

An attribute is its length (4 for this header, and the payload), its type and the payload, padded to 4 bytes
(linux/netlink.h, struct nlattr). Numbers are in host order, ports and addresses in network order.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from wgd.errors import KernelError
from wgd.model import KEY_BYTES, Endpoint, Network, PublicKey, SecretKey
from wgd.plan.state import DevicePeer, PeerChange

# linux/netlink.h
NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
# linux/wireguard.h: enum wgpeer_flag, wgpeer_attribute, wgallowedip_attribute
_REMOVE_ME, _REPLACE_ALLOWEDIPS, _UPDATE_ONLY = 1, 2, 4
_PUBLIC_KEY, _PRESHARED_KEY, _FLAGS, _ENDPOINT, _KEEPALIVE = 1, 2, 3, 4, 5
_LAST_HANDSHAKE, _RX_BYTES, _TX_BYTES, _ALLOWEDIPS = 6, 7, 8, 9
_FAMILY, _IPADDR, _CIDR_MASK = 1, 2, 3

_HEADER = struct.Struct("=HH")
_U16, _U32, _U64 = struct.Struct("=H"), struct.Struct("=I"), struct.Struct("=Q")
_TIMESPEC = struct.Struct("=qq")
_PORT = struct.Struct("!H")
_SOCKADDR_IN_PADDING, _NO_FLOWINFO = bytes(8), bytes(4)

NO_KEY = bytes(KEY_BYTES)
"""An all-zero key means that there is none."""

BATCH_PEERS = 500
BATCH_BYTES = 60_000
"""The most that one payload holds: it is an attribute's, whose length has 16 bits."""
_PIECE_ALLOWED_IPS = 1000
MOST_PEERS = 1 << 16
"""How many peers' AllowedIPs are kept as values."""

_Fields = dict[int, bytes]


def encode_peers(peers: Iterable[PeerChange]) -> Iterator[bytes]:
    """Give the payloads of WGDEVICE_A_PEERS, one a message, that make these changes in this order.

    Raises KernelError where an endpoint is not a literal address or names an interface that does not exist.
    """
    batch, count = bytearray(), 0
    for piece in (piece for peer in peers for piece in _pieces(peer)):
        if batch and (count == BATCH_PEERS or len(batch) + len(piece) > BATCH_BYTES):
            yield bytes(batch)
            batch, count = bytearray(), 0
        batch += piece
        count += 1
    if batch:
        yield bytes(batch)


def decode_peers(payloads: Iterable[bytes]) -> tuple[DevicePeer, ...]:
    """Return the peers of a dump from its WGDEVICE_A_PEERS payloads, in the kernel's order.

    A peer whose allowed ips did not fit into one message goes on in the next with its key and more of them: the two
    are joined. Raises ValueError where the bytes are not what linux/wireguard.h says.
    """
    joined: list[tuple[_Fields, list[bytes]]] = []
    for payload in payloads:
        for _, nest in _attributes(payload):
            fields = dict(_attributes(nest))
            allowed_ips = fields.pop(_ALLOWEDIPS, b"")
            if joined and joined[-1][0][_PUBLIC_KEY] == fields.get(_PUBLIC_KEY):
                joined[-1][1].append(allowed_ips)
            elif _PUBLIC_KEY in fields:
                joined.append((fields, [allowed_ips]))
            else:
                raise ValueError("a peer without a public key")
    try:
        return tuple(_peer(fields, allowed_ips) for fields, allowed_ips in joined)
    except (struct.error, KeyError) as error:
        raise ValueError("a peer's attribute is missing or too short") from error


def _pieces(peer: PeerChange) -> Iterator[bytes]:
    """Give the change of one peer in pieces that each fit into a payload.

    Only the first has the peer's other fields and WGPEER_F_REPLACE_ALLOWEDIPS, as linux/wireguard.h asks; the
    others have WGPEER_F_UPDATE_ONLY, so that none brings back a peer that somebody removed in between.
    """
    fields = _settings(peer)
    rest = peer.allowed_ips
    while True:
        entries = b"".join(map(_allowed_ip, rest[:_PIECE_ALLOWED_IPS]))
        rest = rest[_PIECE_ALLOWED_IPS:]
        yield _attribute(NLA_F_NESTED, fields + (_attribute(_ALLOWEDIPS | NLA_F_NESTED, entries) if entries else b""))
        if not rest:
            return
        fields = _attribute(_PUBLIC_KEY, peer.public_key.raw) + _attribute(_FLAGS, _U32.pack(_UPDATE_ONLY))


def _settings(peer: PeerChange) -> bytes:
    flags = 0 if peer.create else _UPDATE_ONLY
    flags |= _REMOVE_ME if peer.remove else 0
    flags |= _REPLACE_ALLOWEDIPS if peer.replace_allowed_ips else 0
    settings = _attribute(_PUBLIC_KEY, peer.public_key.raw) + _attribute(_FLAGS, _U32.pack(flags))
    if peer.preshared_key is not None or peer.clear_preshared_key:
        settings += _attribute(_PRESHARED_KEY, peer.preshared_key.raw if peer.preshared_key else NO_KEY)
    if peer.endpoint is not None:
        settings += _attribute(_ENDPOINT, _sockaddr(peer.public_key, peer.endpoint))
    if peer.persistent_keepalive is not None:
        settings += _attribute(_KEEPALIVE, _U16.pack(peer.persistent_keepalive))
    return settings


def _attribute(kind: int, payload: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(payload), kind) + payload + bytes(-len(payload) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give type, without its flags, and payload of every attribute."""
    offset = 0
    while offset < len(data):
        if len(data) - offset < _HEADER.size:
            raise ValueError("an attribute is cut short")
        length, kind = _HEADER.unpack_from(data, offset)
        if not _HEADER.size <= length <= len(data) - offset:
            raise ValueError("an attribute's length is wrong")
        yield kind & _NLA_TYPE_MASK, data[offset + _HEADER.size : offset + length]
        offset += length + -length % 4


def _allowed_ip(network: Network) -> bytes:
    family = socket.AF_INET if isinstance(network, IPv4Network) else socket.AF_INET6
    return _attribute(
        NLA_F_NESTED,
        _attribute(_FAMILY, _U16.pack(family))
        + _attribute(_IPADDR, network.network_address.packed)
        + _attribute(_CIDR_MASK, bytes((network.prefixlen,))),
    )


@lru_cache(MOST_PEERS)
def _networks(entries: bytes) -> frozenset[Network]:
    """Return the AllowedIPs of a peer; they are read again and again, and hardly ever change."""
    return frozenset(_each_network(entries))


def _each_network(entries: bytes) -> Iterator[Network]:
    for _, nest in _attributes(entries):
        fields = dict(_attributes(nest))
        prefix = (fields[_IPADDR], fields[_CIDR_MASK][0])
        (family,) = _U16.unpack(fields[_FAMILY])
        yield IPv4Network(prefix) if family == socket.AF_INET else IPv6Network(prefix)


def _sockaddr(peer: PublicKey, endpoint: Endpoint) -> bytes:
    """Return a struct sockaddr_in or sockaddr_in6 (linux/in.h, linux/in6.h)."""
    address = endpoint.address
    if isinstance(address, IPv4Address):
        head = _U16.pack(socket.AF_INET) + _PORT.pack(endpoint.port)
        return head + address.packed + _SOCKADDR_IN_PADDING
    if isinstance(address, IPv6Address):
        head = _U16.pack(socket.AF_INET6) + _PORT.pack(endpoint.port)
        return head + _NO_FLOWINFO + address.packed + _U32.pack(_scope(peer, address.scope_id))
    raise KernelError(str(peer), f"the endpoint {endpoint} is not a literal address")


def _endpoint(sockaddr: bytes) -> Endpoint:
    (family,), (port,) = _U16.unpack_from(sockaddr), _PORT.unpack_from(sockaddr, 2)
    if family == socket.AF_INET:
        return Endpoint(str(IPv4Address(sockaddr[4:8])), port)
    (scope,) = _U32.unpack_from(sockaddr, 24)
    host = str(IPv6Address(sockaddr[8:24]))
    return Endpoint(f"{host}%{_scope_name(scope)}" if scope else host, port)


def _scope(peer: PublicKey, name: str | None) -> int:
    """Return the interface index that the part after `%` means, 0 where there is none."""
    if name is None:
        return 0
    try:
        return int(name) if name.isdecimal() else socket.if_nametoindex(name)
    except OSError as error:
        raise KernelError(str(peer), f"the endpoint's interface {name} does not exist") from error


def _scope_name(index: int) -> str:
    """Return the interface's name, or its number when it has gone."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


def _peer(fields: _Fields, allowed_ips: Iterable[bytes]) -> DevicePeer:
    seconds, nanoseconds = _TIMESPEC.unpack(fields[_LAST_HANDSHAKE])
    preshared_key = fields[_PRESHARED_KEY]
    return DevicePeer(
        public_key=PublicKey(fields[_PUBLIC_KEY]),
        allowed_ips=_networks(b"".join(allowed_ips)),
        preshared_key=None if preshared_key == NO_KEY else SecretKey(preshared_key),
        endpoint=_endpoint(fields[_ENDPOINT]) if _ENDPOINT in fields else None,
        persistent_keepalive=_U16.unpack(fields[_KEEPALIVE])[0],
        last_handshake=seconds + nanoseconds / 1e9,
        rx_bytes=_U64.unpack(fields[_RX_BYTES])[0],
        tx_bytes=_U64.unpack(fields[_TX_BYTES])[0],
    )
