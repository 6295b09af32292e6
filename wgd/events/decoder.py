"""What one recv of an NFLOG socket returned -> the lines of the event log.

A message whose layout is known costs one unpack, one masked comparison and a few dictionary lookups; every other one
takes the plain walk and teaches the decoder. Both ways give the same lines.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from wgd.events import lines
from wgd.events.names_book import NamesBook
from wgd.events.nflog_layout import Layout, head_of, learn
from wgd.events.nflog_message import MESSAGE_HEADER, NLMSG_DONE, NLMSG_NOOP, PACKET_MESSAGE, align, walk
from wgd.events.packet import parse_packet
from wgd.events.resolver import Context, PartsKey, Resolver
from wgd.model import ICMP, ICMPV6, IPV6_EXTENSION_HEADERS, PORT_PROTOCOLS

MAX_LAYOUTS = 8
"""How many layouts of the same length are told apart."""
MAX_LENGTHS = 1 << 8
MAX_HEADS = 1 << 10

_LENGTH = struct.Struct("=I")
_U32, _U64 = (1 << 32) - 1, (1 << 64) - 1
_ICMP_PROTOCOLS = frozenset({ICMP, ICMPV6})


class Batch(NamedTuple):
    """What the messages of one recv became: `events` lines of packets, and lines that stand for `lost` ones.

    `undecoded` counts the messages that gave no line, `unresolved` the lines of a policy whose names are not known.
    """

    text: bytes
    events: int
    lost: int
    undecoded: int
    unresolved: int


class Decoder:
    """Decodes one NFLOG group. `next_sequence` is the kernel's number (NFULA_SEQ) of the next event.

    `interface_name` gives the name of an interface index, None for one that is gone. `first_reason` is why events
    are missing if the first message does not continue at `next_sequence`.
    """

    def __init__(
        self,
        book: NamesBook,
        interface_name: Callable[[int], str | None],
        next_sequence: int = 0,
        first_reason: str = "overrun",
    ) -> None:
        self.next_sequence = next_sequence
        self._reason = first_reason
        self._resolver = Resolver(book, interface_name)
        self._layouts: dict[int, tuple[Layout, ...]] = {}
        self._heads: dict[bytes, Context] = {}
        self._second = -1
        self._second_text = ""
        self._lost = self._lost_lines = self._undecoded = self._unresolved = 0

    def decode(self, buffer: bytes | bytearray, size: int, now: int) -> Batch:
        """Return the lines of the messages in the first `size` bytes; `now` is their reception, in ns of the epoch."""
        self._lost = self._lost_lines = self._undecoded = self._unresolved = 0
        if self._resolver.refresh(now):
            self._heads.clear()
        texts = self._texts(buffer, size, now)
        return Batch(
            "".join(texts).encode(),
            len(texts) - self._lost_lines,
            self._lost,
            self._undecoded,
            self._unresolved,
        )

    def _texts(self, buffer: bytes | bytearray, size: int, now: int) -> list[str]:
        # Each name that the loop looks up is a local one: at a million events a second that is a third of the cost.
        texts: list[str] = []
        key: PartsKey
        received = lines.time_text(now)
        layouts, heads, known_parts = self._layouts, self._heads, self._resolver.known_parts
        number_of = int.from_bytes
        offset = 0
        while size - offset >= MESSAGE_HEADER.size:
            (length,) = _LENGTH.unpack_from(buffer, offset)
            if not MESSAGE_HEADER.size <= length <= size - offset:
                break
            for unpack, mask, expected, shifts in layouts.get(length, ()):
                head, middle, protocol, addresses, first, second = unpack(buffer, offset)
                bits = number_of(middle, "big")
                if bits & mask == expected and head in heads and protocol not in IPV6_EXTENSION_HEADERS:
                    sequence_shift, time_shift, length_shift, length_added = shifts
                    break
            else:
                self._walk(bytes(buffer[offset : offset + length]), received, texts)
                offset += align(length)
                continue
            offset += align(length)
            time = (
                received
                if time_shift is None
                else self._time(bits >> (time_shift + 64) & _U64, bits >> time_shift & _U64)
            )
            sequence = bits >> sequence_shift & _U32
            if sequence != self.next_sequence:
                self._gap(sequence, time, texts)
            self.next_sequence = (sequence + 1) & _U32
            context = heads[head]
            if not context.resolved:
                self._unresolved += 1
            total = (bits >> length_shift & 0xFFFF) + length_added
            if protocol in PORT_PROTOCOLS:
                key = (context, protocol, addresses, second, None)
                before, after, _ = known_parts.get(key) or self._resolver.parts(key)
                texts.append(f"{time}{before}{first}{after}{total}}}\n")
            else:
                key = (context, protocol, addresses, None, first >> 8 if protocol in _ICMP_PROTOCOLS else None)
                before, after, _ = known_parts.get(key) or self._resolver.parts(key)
                texts.append(f"{time}{before}{after}{total}}}\n")
        if offset < size:
            self._undecoded += 1
        return texts

    def _walk(self, message: bytes, received: str, texts: list[str]) -> None:
        """Append the line of a message by the plain walk, and learn from it."""
        kind = MESSAGE_HEADER.unpack_from(message)[1]
        if kind in (NLMSG_NOOP, NLMSG_DONE):
            return
        logged = walk(message) if kind == PACKET_MESSAGE else None
        if logged is None:
            self._undecoded += 1
            if kind == PACKET_MESSAGE:
                self.next_sequence = (self.next_sequence + 1) & _U32
            return
        time = received if logged.timestamp is None else lines.time_text(logged.timestamp)
        if logged.sequence is not None:
            if logged.sequence != self.next_sequence:
                self._gap(logged.sequence, time, texts)
            self.next_sequence = (logged.sequence + 1) & _U32
        context = self._resolver.context(logged.prefix, logged.indev, logged.outdev)
        packet = parse_packet(logged.payload or b"")
        if context is None or packet is None:
            self._undecoded += 1
            return
        self._learn(message, context)
        if not context.resolved:
            self._unresolved += 1
        key = (context, packet.protocol, packet.source + packet.destination, packet.destination_port, packet.icmp_type)
        before, after, has_source_port = self._resolver.known_parts.get(key) or self._resolver.parts(key)
        source_port = packet.source_port if has_source_port else ""
        texts.append(f"{time}{before}{source_port}{after}{packet.length}}}\n")

    def _learn(self, message: bytes, context: Context) -> None:
        layout = learn(message)
        if layout is None:
            return
        if len(self._heads) >= MAX_HEADS:
            self._heads.clear()
        self._heads[head_of(message)] = context
        known = self._layouts.get(len(message), ())
        if layout not in known:
            if len(self._layouts) >= MAX_LENGTHS:
                self._layouts.clear()
            self._layouts[len(message)] = (layout, *known[: MAX_LAYOUTS - 1])

    def _time(self, second: int, microsecond: int) -> str:
        """Return how a line begins whose packet has this time since the epoch."""
        if second != self._second or microsecond > 999_999:  # noqa: PLR2004 the last of a second
            if microsecond > 999_999:  # noqa: PLR2004 as above
                return lines.time_text(second * 1_000_000_000 + microsecond * 1000)
            self._second = second
            self._second_text = f'{{"ts":"{lines.second_text(second)}'
        return f'{self._second_text}.{microsecond:06d}Z"'

    def _gap(self, sequence: int, time: str, texts: list[str]) -> None:
        """Append the line for the events between the expected one and `sequence`."""
        count = (sequence - self.next_sequence) & _U32
        # A number from before the expected one is not a gap: the group was bound anew and counts from 0 again.
        if count < 1 << 31:
            texts.append(lines.lost_line(time, count, self._reason))
            self._lost += count
            self._lost_lines += 1
        self._reason = "overrun"
