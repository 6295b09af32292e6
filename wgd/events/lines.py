"""Values -> lines of the event log: one JSON object each, keys in the documented order, UTF-8.

The parts that a packet's line is put together from are made here, so that a reader of the kernel's log may keep
them: everything but the time, the source port and the length repeats from one event of a client to the next.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop
from typing import NamedTuple

from wgd.events.packet import Packet

PROTOCOL_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}
"""The protocols that an event names; any other is `proto_N`."""

LAST_SECOND = 253_402_300_799
"""9999-12-31T23:59:59Z, the last that RFC 3339 can write, in seconds since the epoch."""

# Control characters that JSON does not escape but that a terminal obeys, and the line ends of Unicode.
_HOSTILE = re.compile("[\x7f-\x9f\u2028\u2029]")
_IPV4_BYTES = 4
_SOURCE_PORT = ',"src_port":'

Parts = tuple[str, str]
"""The text between the time and the source port, and that between the source port and what is counted.

Where there are no ports, the text of both is one piece and nothing goes between."""


class FlowParts(NamedTuple):
    """The Parts of a flow's line, and whether a source port goes between.

    `client_began`: the flow's source is the client.
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


@lru_cache(4)
def second_text(second: int) -> str:
    """Return a second since the epoch as `YYYY-MM-DDTHH:MM:SS`; one that RFC 3339 cannot write becomes the last."""
    return datetime.fromtimestamp(min(second, LAST_SECOND), UTC).strftime("%Y-%m-%dT%H:%M:%S")


def timestamp(nanoseconds: int) -> str:
    """Return nanoseconds since the epoch in RFC 3339, UTC, with microseconds."""
    second, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{second_text(second)}.{rest // 1000:06d}Z"


def address_text(address: bytes) -> str:
    """Return 4 or 16 bytes of an address as text (RFC 5952)."""
    return inet_ntop(AF_INET if len(address) == _IPV4_BYTES else AF_INET6, address)


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


def transport_text(protocol: int | None, icmp_type: int | None, rule: str | None) -> str:
    """Return the members that follow the ports, as far as packets and flows have them in common."""
    text = "" if protocol is None else f',"proto":"{protocol_name(protocol)}"'
    if icmp_type is not None:
        text += f',"icmp_type":{icmp_type}'
    return text if rule is None else f'{text},"rule":{quoted(rule)}'


def before_source_port(leading: str, source: str, *, has_ports: bool) -> str:
    """Return a line from its first members, `leading`, up to where the source port stands; `source` is text."""
    return f'{leading},"src_ip":"{source}"{_SOURCE_PORT if has_ports else ""}'


def after_source_port(destination: str, port: int | None, following: str) -> str:
    """Return a line from behind the source port, or where it would stand, up to the end of the members `following`.

    `destination` is text. What shows its destination `port` shows its source port too.
    """
    if port is None:
        return f',"dst_ip":"{destination}"{following}'
    return f',"dst_ip":"{destination}","dst_port":{port}{following}'


def before_destination_port(leading: str, source: str, port: int | None, destination: str) -> str:
    """Return a line from its first members, `leading`, up to where the destination port stands.

    `source` and `destination` are text, `port` is the source port.
    """
    return f'{leading},"src_ip":"{source}"{_SOURCE_PORT}{port},"dst_ip":"{destination}","dst_port":'


def flow_parts(leading: str, packet: Packet, rule: str | None, *, client_began: bool) -> FlowParts:
    """Return the parts of the line of a flow that began with this packet; its source port is not looked at."""
    has_ports = packet.destination_port is not None
    following = transport_text(packet.protocol, packet.icmp_type, rule)
    return FlowParts(
        before_source_port(leading, address_text(packet.source), has_ports=has_ports),
        after_source_port(address_text(packet.destination), packet.destination_port, following),
        has_ports,
        client_began,
    )


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
