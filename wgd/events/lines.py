"""Values -> lines of the event log: one JSON object each, keys in the documented order, UTF-8.

The parts that a packet's line is put together from are made here, so that a reader of the kernel's log may keep
them: everything but the time, the source port and the length repeats from one event of a client to the next.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from ipaddress import IPv6Address
from typing import NamedTuple

from wgd.events.packet import Packet

PROTOCOL_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}
"""The protocols that an event names; any other is `proto_N`."""

LAST_SECOND = 253_402_300_799
"""9999-12-31T23:59:59Z, the last that RFC 3339 can write, in seconds since the epoch."""

# Control characters that JSON does not escape but that a terminal obeys, and the line ends of Unicode.
_HOSTILE = re.compile("[\x7f-\x9f\u2028\u2029]")
_IPV4_BYTES = 4


class PacketParts(NamedTuple):
    """The text between the time and the source port, and that between the source port and the length.

    `has_source_port` False: the text of both is one piece and no port goes between.
    """

    before_source_port: str
    before_length: str
    has_source_port: bool


class FlowParts(NamedTuple):
    """The text between the time and the source port of a flow's line, and that between the port and the counts.

    `has_source_port` is as in PacketParts. `client_began`: the flow's source is the client.
    """

    before_source_port: str
    after_source_port: str
    has_source_port: bool
    client_began: bool


def quoted(text: str) -> str:
    """Return a JSON string that encodes to UTF-8 whatever the text holds, with no control character left in it."""
    encodable = text.encode("utf-8", "replace").decode()
    return _HOSTILE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(encodable, ensure_ascii=False))


def time_text(nanoseconds: int) -> str:
    """Return how a line of this time, in nanoseconds since the epoch, begins."""
    return f'{{"ts":"{timestamp(nanoseconds)}"'


def second_text(second: int) -> str:
    """Return a second since the epoch as `YYYY-MM-DDTHH:MM:SS`; one that RFC 3339 cannot write becomes the last."""
    return datetime.fromtimestamp(min(second, LAST_SECOND), UTC).strftime("%Y-%m-%dT%H:%M:%S")


def timestamp(nanoseconds: int) -> str:
    """Return nanoseconds since the epoch in RFC 3339, UTC, with microseconds."""
    second, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{second_text(second)}.{rest // 1000:06d}Z"


def address_text(address: bytes) -> str:
    """Return 4 or 16 bytes of an address as text (RFC 5952)."""
    if len(address) == _IPV4_BYTES:
        return "{}.{}.{}.{}".format(*address)
    return str(IPv6Address(address))


def protocol_name(protocol: int) -> str:
    """Return what an event calls an IANA protocol number."""
    return PROTOCOL_NAMES.get(protocol) or f"proto_{protocol}"


def verdict_text(event: str, verdict: str) -> str:
    """Return the members that begin a packet's line after its time."""
    return f',"event":{quoted(event)},"verdict":{quoted(verdict)}'


def client_text(public_key: str, name: str) -> str:
    """Return the members that name a client."""
    return f',"client_id":{quoted(public_key)},"client":{quoted(name)}'


def interfaces_text(incoming: str | None, outgoing: str | None) -> str:
    """Return the members that name the interfaces a packet came by and leaves by, None where there is none."""
    text = "" if incoming is None else f',"in_iface":{quoted(incoming)}'
    return text if outgoing is None else f'{text},"out_iface":{quoted(outgoing)}'


def packet_parts(leading: str, packet: Packet, rule: str | None, interfaces: str) -> PacketParts:
    """Return the parts of a packet's line; its source port and length are not looked at.

    `leading` and `interfaces` are members as the functions above give them. A packet that shows its destination port
    shows its source port too.
    """
    before, after = _ends(leading, packet, rule)
    return PacketParts(before, f'{after}{interfaces},"length":', packet.destination_port is not None)


def flow_parts(leading: str, packet: Packet, rule: str | None, *, client_began: bool) -> FlowParts:
    """Return the parts of the line of a flow that began with this packet; what is said there holds here."""
    before, after = _ends(leading, packet, rule)
    return FlowParts(before, after, packet.destination_port is not None, client_began)


def _ends(leading: str, packet: Packet, rule: str | None) -> tuple[str, str]:
    """Return the members before the source port and after it, as far as packets and flows have them in common."""
    before = f'{leading},"src_ip":"{address_text(packet.source)}"'
    after = f',"dst_ip":"{address_text(packet.destination)}"'
    if packet.destination_port is not None:
        before += ',"src_port":'
        after += f',"dst_port":{packet.destination_port}'
    if packet.protocol is not None:
        after += f',"proto":"{protocol_name(packet.protocol)}"'
    if packet.icmp_type is not None:
        after += f',"icmp_type":{packet.icmp_type}'
    if rule is not None:
        after += f',"rule":{quoted(rule)}'
    return before, after


def lost_line(time: str, count: int, reason: str) -> str:
    """Return the line that stands for `count` lost ones; `time` is as `time_text` gives it.

    `reason` is overrun, disk_full, rate_limit or restart.
    """
    return f'{time},"event":"lost","count":{count},"reason":{quoted(reason)}}}\n'


def gateway_line(
    nanoseconds: int,
    event: str,
    *,
    object_: str | None = None,
    action: str | None = None,
    detail: str | None = None,
    count: int | None = None,
) -> str:
    """Return a line of the gateway itself: `event` is started, stopped, reloaded or drift; None is left out."""
    members = {"object": object_, "action": action, "detail": detail, "count": count}
    text = "".join(
        f',"{key}":{value if isinstance(value, int) else quoted(value)}'
        for key, value in members.items()
        if value is not None
    )
    return f'{time_text(nanoseconds)},"event":{quoted(event)}{text}}}\n'
