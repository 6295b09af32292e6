"""NFLOG messages and packets as the kernel would send them, and the obviously right way to make a line of one."""

from __future__ import annotations

import json
import struct
from ipaddress import ip_address, ip_network
from itertools import count

from wgd.events.names_book import NamesBook
from wgd.events.nflog_message import LoggedPacket
from wgd.events.packet import parse_packet
from wgd.model import (
    AllowRule,
    AuthzMode,
    Backend,
    Interface,
    Peer,
    Place,
    Policy,
    PortRange,
    PublicKey,
    Rule,
    ServerConfig,
)
from wgd.policy.names import Names, names

ALICE, BOB = PublicKey(b"a" * 32), PublicKey(b"b" * 32)
DIGEST = "1f2e3d4c"
INTERFACES = {2: "eth0", 7: "wgd0", 9: 'q"\u202e\x9b'}
NOW = 1_767_225_600_000_000_000
"""2026-01-01T00:00:00Z."""


def config() -> ServerConfig:
    web = Rule(
        "staff to web",
        (ALICE, BOB),
        (
            AllowRule(ip_network("10.20.0.10/32"), 6, (PortRange(443, 443), PortRange(8000, 8999))),
            AllowRule(ip_network("10.20.1.0/24")),
            AllowRule(ip_network("10.20.0.0/16"), 1),
            AllowRule(ip_network("fd20::/64"), 58),
        ),
    )
    unnamed = Rule(
        None,
        (ALICE,),
        (AllowRule(ip_network("fd20::10/128"), 6, place=Place("x", 3, "policy.rules[0].allow[0]")),),
        source="server.d/alice.yaml",
    )
    return ServerConfig(
        Interface("wgd0", (), None, None, None, Backend.AUTO),
        AuthzMode.ENFORCE,
        (
            Peer("alice", ALICE, (ip_network("10.80.0.2/32"), ip_network("fd80::2/128"))),
            Peer("bob", BOB, (ip_network("10.80.0.3/32"), ip_network("10.81.0.0/16"))),
        ),
        Policy((web, unnamed)),
    )


def some_names() -> Names:
    return names(config(), DIGEST)


def book(*more: Names) -> NamesBook:
    made = NamesBook()
    for one in (some_names(), *more):
        made.add(one)
    return made


def ipv4(
    source: str = "10.80.0.2",
    destination: str = "10.20.0.10",
    protocol: int = 6,
    transport: bytes = struct.pack("!HHI", 40000, 443, 0),
    *,
    options: bytes = b"",
    fragment: int = 0x4000,
    length: int = 60,
) -> bytes:
    first = 0x45 + len(options) // 4
    header = struct.pack("!BBHHHBBH", first, 0, length, 1, fragment, 63, protocol, 0)
    return header + ip_address(source).packed + ip_address(destination).packed + options + transport


def ipv6(
    source: str = "fd80::2",
    destination: str = "fd20::10",
    protocol: int = 6,
    transport: bytes = struct.pack("!HHI", 40000, 443, 0),
    *,
    length: int = 40,
) -> bytes:
    header = struct.pack("!IHBB", 0x60012345, length, protocol, 63)
    return header + ip_address(source).packed + ip_address(destination).packed + transport


def attribute(kind: int, value: bytes) -> bytes:
    padding = b"\0" * (-len(value) % 4)
    return struct.pack("=HH", 4 + len(value), kind) + value + padding


def message(
    payload: bytes | None = None,
    *,
    prefix: str | None = f"open allow {DIGEST}",
    indev: int | None = 7,
    outdev: int | None = 2,
    mark: int = 0x10000000,
    ethernet: bool = False,
    timestamp: tuple[int, int] | None = (1_767_225_600, 123456),
    sequence: int | None = 0,
) -> bytes:
    """One message with its attributes in the kernel's order."""
    payload = ipv4() if payload is None else payload
    family = 10 if payload[:1] and payload[0] >> 4 == 6 else 2
    body = struct.pack("!BBH", family, 0, 100) + attribute(1, struct.pack("!HBB", 0x0800, 2, 0))
    if prefix is not None:
        body += attribute(10, prefix.encode() + b"\0")
    for kind, index in ((4, indev), (5, outdev)):
        if index is not None:
            body += attribute(kind, struct.pack("!I", index))
    if mark:
        body += attribute(2, struct.pack("!I", mark))
    if ethernet:
        body += attribute(8, struct.pack("!HH8s", 6, 0, b"\x02macaddr"))
        body += attribute(15, struct.pack("!H", 1)) + attribute(17, struct.pack("!H", 14)) + attribute(16, b"e" * 14)
    if timestamp is not None:
        body += attribute(3, struct.pack("!QQ", *timestamp))
    if sequence is not None:
        body += attribute(12, struct.pack("!I", sequence))
    body += attribute(9, payload)
    return struct.pack("=IHHII", 16 + len(body), 0x0400, 0, 0, 0) + body


DONE = struct.pack("=IHHII4s", 20, 3, 2, 0, 0, b"\2\0\0\x64")


def read_attributes(data: bytes) -> LoggedPacket:
    """The walk again, written independently."""
    values, rest = {}, data[20:]
    while len(rest) >= 4:
        length, kind = struct.unpack("=HH", rest[:4])
        values[kind] = rest[4:length]
        rest = rest[(length + 3) // 4 * 4 :]
    number = {kind: int.from_bytes(values[kind], "big") for kind in (4, 5, 12) if kind in values}
    time = struct.unpack("!QQ", values[3]) if 3 in values else None
    return LoggedPacket(
        values[10].rstrip(b"\0") if 10 in values else None,
        number.get(4),
        number.get(5),
        time[0] * 10**9 + time[1] * 1000 if time else None,
        number.get(12),
        values.get(9),
    )


def plain_line(data: bytes, known: Names | None, now: int = NOW) -> dict[str, object]:
    """What the line of one message must say, field by field."""
    logged = read_attributes(data)
    assert logged.prefix is not None
    assert logged.payload is not None
    event, verdict, _ = logged.prefix.decode().split(" ")
    packet = parse_packet(logged.payload)
    assert packet is not None
    seconds, nanoseconds = divmod(logged.timestamp if logged.timestamp is not None else now, 10**9)
    incoming, outgoing = INTERFACES.get(logged.indev), INTERFACES.get(logged.outdev)
    client = rule = None
    if known is not None and verdict != "spoof":
        from_client = incoming == known.interface
        client = known.client(packet.source if from_client else packet.destination)
        if client is not None and from_client and verdict == "allow":
            rule = known.rule(
                client, packet.destination, packet.protocol, packet.destination_port, to_gateway=outgoing is None
            )
    protocols = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}
    line = {
        "ts": f"{TIMES[seconds]}.{nanoseconds // 1000:06d}Z",
        "event": event,
        "verdict": "deny" if verdict == "spoof" else verdict,
        "client_id": client and client.public_key,
        "client": client and client.name,
        "src_ip": str(ip_address(packet.source)),
        "src_port": packet.source_port,
        "dst_ip": str(ip_address(packet.destination)),
        "dst_port": packet.destination_port,
        "proto": None if packet.protocol is None else protocols.get(packet.protocol, f"proto_{packet.protocol}"),
        "icmp_type": packet.icmp_type,
        "rule": rule,
        "in_iface": incoming,
        "out_iface": outgoing,
        "length": packet.length,
    }
    return {key: value for key, value in line.items() if value is not None}


TIMES = {1_767_225_600: "2026-01-01T00:00:00", 1_767_225_601: "2026-01-01T00:00:01"}


def numbered(messages: list[dict[str, object]]) -> bytes:
    numbers = count()
    return b"".join(message(**{"sequence": next(numbers), **one}) for one in messages)  # type: ignore[arg-type]


def objects(text: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]
