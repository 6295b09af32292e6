import socket
import struct
from ipaddress import ip_network

import pytest

from wgd.errors import KernelError
from wgd.kernel.wireguard_messages import BATCH_BYTES, BATCH_PEERS, decode_peers, encode_peers
from wgd.kernel.wireguard_netlink import _Message
from wgd.model import Endpoint, Network, PublicKey, SecretKey
from wgd.plan.state import DevicePeer, PeerChange

ONE, TWO = PublicKey(b"\x01" * 32), PublicKey(b"\x02" * 32)
PRESHARED = SecretKey(b"\x22" * 32)
IPV4, IPV6 = ip_network("10.1.2.0/24"), ip_network("fd00::/64")
REMOVE_ME, REPLACE_ALLOWEDIPS, UPDATE_ONLY = 1, 2, 4


def nla(kind: int, payload: bytes) -> bytes:
    """Lay out an attribute as linux/netlink.h draws it, little-endian as this machine is."""
    return struct.pack("<HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nested(kind: int, *members: bytes) -> bytes:
    return nla(kind | 0x8000, b"".join(members))


def allowed_ip(network: Network) -> bytes:
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    address = network.network_address.packed
    return nested(0, nla(1, struct.pack("<H", family)), nla(2, address), nla(3, bytes([network.prefixlen])))


def flags(value: int) -> bytes:
    return nla(3, struct.pack("<I", value))


def dumped(key: PublicKey, *allowed_ips: Network, preshared: bytes = bytes(32), endpoint: bytes = b"") -> bytes:
    """Give a peer as wg_get_device_dump writes it (drivers/net/wireguard/netlink.c)."""
    return nested(
        0,
        nla(1, key.raw),
        nla(2, preshared),
        nla(6, struct.pack("<qq", 1700000000, 500000000)),
        nla(5, struct.pack("<H", 25)),
        nla(8, struct.pack("<Q", 7)),
        nla(7, struct.pack("<Q", 8)),
        nla(10, struct.pack("<I", 1)),
        nla(4, endpoint) if endpoint else b"",
        nested(9, *map(allowed_ip, allowed_ips)),
    )


def members(payload: bytes) -> list[tuple[int, bytes]]:
    found, offset = [], 0
    while offset < len(payload):
        length, kind = struct.unpack_from("<HH", payload, offset)
        found.append((kind, payload[offset + 4 : offset + length]))
        offset += (length + 3) & ~3
    assert offset == len(payload)
    return found


def test_a_new_peer_with_everything_is_laid_out_as_the_header_says() -> None:
    changed = PeerChange(
        ONE,
        create=True,
        preshared_key=PRESHARED,
        endpoint=Endpoint("192.0.2.7", 51820),
        persistent_keepalive=25,
        replace_allowed_ips=True,
        allowed_ips=(IPV4, IPV6),
    )
    assert list(encode_peers([changed])) == [
        nested(
            0,
            nla(1, ONE.raw),
            flags(REPLACE_ALLOWEDIPS),
            nla(2, PRESHARED.raw),
            nla(4, b"\x02\x00\xca\x6c\xc0\x00\x02\x07" + bytes(8)),
            nla(5, b"\x19\x00"),
            nested(9, allowed_ip(IPV4), allowed_ip(IPV6)),
        )
    ]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (PeerChange(ONE, remove=True), nested(0, nla(1, ONE.raw), flags(REMOVE_ME | UPDATE_ONLY))),
        (
            PeerChange(ONE, clear_preshared_key=True),
            nested(0, nla(1, ONE.raw), flags(UPDATE_ONLY), nla(2, bytes(32))),
        ),
        (
            PeerChange(ONE, persistent_keepalive=0),
            nested(0, nla(1, ONE.raw), flags(UPDATE_ONLY), nla(5, b"\x00\x00")),
        ),
        (
            PeerChange(ONE, replace_allowed_ips=True),
            nested(0, nla(1, ONE.raw), flags(UPDATE_ONLY | REPLACE_ALLOWEDIPS)),
        ),
        (
            PeerChange(ONE, endpoint=Endpoint("fe80::1%lo", 4711)),
            nested(
                0,
                nla(1, ONE.raw),
                flags(UPDATE_ONLY),
                nla(
                    4,
                    b"\x0a\x00\x12\x67"
                    + bytes(4)
                    + socket.inet_pton(socket.AF_INET6, "fe80::1")
                    + struct.pack("<I", socket.if_nametoindex("lo")),
                ),
            ),
        ),
    ],
    ids=["removal", "cleared preshared key", "keepalive off", "no allowed ips", "scoped endpoint"],
)
def test_a_change_carries_only_what_changes(changed: PeerChange, expected: bytes) -> None:
    assert list(encode_peers([changed])) == [expected]


@pytest.mark.parametrize("host", ["gw.example.org", "fe80::1%nosuchlink"])
def test_an_endpoint_that_is_no_address_here_is_refused_by_name_of_the_peer(host: str) -> None:
    with pytest.raises(KernelError) as caught:
        list(encode_peers([PeerChange(ONE, endpoint=Endpoint(host, 1))]))
    assert caught.value.subject == str(ONE)


def test_peers_go_in_batches_of_several_hundred_in_order() -> None:
    keys = [PublicKey(number.to_bytes(32, "big")) for number in range(2 * BATCH_PEERS + 1)]
    payloads = list(encode_peers(PeerChange(key, create=True) for key in keys))
    assert [len(members(payload)) for payload in payloads] == [BATCH_PEERS, BATCH_PEERS, 1]
    sent = [dict(members(nest))[1] for payload in payloads for _, nest in members(payload)]
    assert sent == [key.raw for key in keys]


def test_large_peers_are_batched_by_bytes() -> None:
    wide = [ip_network((0xFD << 120) + (number << 64)).supernet(64) for number in range(900)]
    peers = [PeerChange(key, create=True, allowed_ips=tuple(wide)) for key in (ONE, TWO)]
    payloads = list(encode_peers(peers))
    assert len(payloads) == 2
    assert all(len(payload) <= BATCH_BYTES for payload in payloads)


def test_a_peer_with_thousands_of_allowed_ips_goes_on_without_the_replace_flag() -> None:
    many = tuple(ip_network(0x0A000000 + number) for number in range(5000))
    changed = PeerChange(ONE, create=True, persistent_keepalive=9, replace_allowed_ips=True, allowed_ips=many)
    payloads = list(encode_peers([changed]))
    pieces = [dict(members(nest)) for payload in payloads for _, nest in members(payload)]
    assert len(payloads) > 1
    assert all(len(payload) <= BATCH_BYTES for payload in payloads)
    assert [struct.unpack("<I", piece[3])[0] for piece in pieces] == [
        REPLACE_ALLOWEDIPS,
        *[UPDATE_ONLY] * (len(pieces) - 1),
    ]
    assert [5 in piece for piece in pieces] == [True, *[False] * (len(pieces) - 1)]
    assert {piece[1] for piece in pieces} == {ONE.raw}
    assert b"".join(piece[0x8009] for piece in pieces) == b"".join(map(allowed_ip, many))


def test_a_dumped_peer_is_read_with_all_its_fields() -> None:
    sockaddr = b"\x02\x00\xca\x6c\xc0\x00\x02\x07" + bytes(8)
    (peer,) = decode_peers([dumped(ONE, IPV4, IPV6, preshared=PRESHARED.raw, endpoint=sockaddr)])
    assert peer == DevicePeer(ONE, frozenset({IPV4, IPV6}), PRESHARED, Endpoint("192.0.2.7", 51820), 25)
    assert (peer.last_handshake, peer.rx_bytes, peer.tx_bytes) == (1700000000.5, 8, 7)


def test_an_all_zero_preshared_key_is_none() -> None:
    assert decode_peers([dumped(ONE)])[0].preshared_key is None


@pytest.mark.parametrize(("scope", "host"), [(0, "fe80::1"), (1, "fe80::1%lo"), (0x7FFFFFFF, "fe80::1%2147483647")])
def test_an_ipv6_endpoint_keeps_its_scope(scope: int, host: str) -> None:
    address = socket.inet_pton(socket.AF_INET6, "fe80::1")
    sockaddr = b"\x0a\x00\x12\x67" + bytes(4) + address + struct.pack("<I", scope)
    assert decode_peers([dumped(ONE, endpoint=sockaddr)])[0].endpoint == Endpoint(host, 4711)


def test_a_peer_that_goes_on_in_the_next_messages_is_read_whole() -> None:
    first, second, third = (ip_network(f"10.0.{number}.0/24") for number in range(3))
    again = [nested(0, nla(1, TWO.raw), nested(9, allowed_ip(network))) for network in (second, third)]
    peers = decode_peers([dumped(ONE, IPV4) + dumped(TWO, first), again[0], again[1] + dumped(PublicKey(b"\x03" * 32))])
    assert [peer.public_key.raw[0] for peer in peers] == [1, 2, 3]
    assert peers[1].allowed_ips == {first, second, third}
    assert (peers[1].persistent_keepalive, peers[1].rx_bytes) == (25, 8)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x08",
        b"\xff\x00\x00\x80",
        b"\x00\x00\x00\x00",
        nested(0, nla(2, bytes(32))),
        nested(0, nla(1, ONE.raw)),
        dumped(ONE)[:-8],
        nested(0, nla(1, ONE.raw), nla(2, bytes(32)), nla(6, b"short")),
    ],
)
def test_bytes_that_are_no_peers_are_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"attribute|peer"):
        decode_peers([payload])


def test_the_device_attributes_have_the_numbers_and_sizes_of_the_header() -> None:
    message = _Message()
    message["cmd"], message["version"] = 1, 1
    message["attrs"] = [
        ("WGDEVICE_A_IFNAME", "wgd0"),
        ("WGDEVICE_A_PRIVATE_KEY", PRESHARED.raw),
        ("WGDEVICE_A_LISTEN_PORT", 51820),
        ("WGDEVICE_A_PEERS", dumped(ONE)),
    ]
    message.encode()
    expected = nla(2, b"wgd0\0") + nla(3, PRESHARED.raw) + nla(6, b"\x6c\xca") + nested(8, dumped(ONE))
    assert bytes(message.data[16:]) == b"\x01\x01\x00\x00" + expected
