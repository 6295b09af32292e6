"""What one recv of an NFLOG socket returned -> the lines of the event log.

Messages whose layout is known are cut many at a time by one precompiled Struct, and a message like those before costs
one lookup. Every other one takes the plain walk and teaches the decoder. Both ways give the same lines.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from wgd.events import lines
from wgd.events.names_book import NamesBook
from wgd.events.nflog_layout import Layout, learn
from wgd.events.nflog_message import MESSAGE_HEADER, NLMSG_DONE, NLMSG_NOOP, PACKET_MESSAGE, align, walk
from wgd.events.packet import parse_packet
from wgd.events.resolver import Context, Form, Resolver
from wgd.model import IPV6_EXTENSION_HEADERS, PORT_PROTOCOLS

MAX_LAYOUTS = 8
"""How many layouts of the same length are told apart."""
MAX_LENGTHS = 1 << 8
MAX_HEADS = 1 << 10
MAX_KNOWN = 1 << 14
"""How many lines' parts are kept, about 8 MB: beyond it, as in a port scan, all are forgotten at once."""

MAX_LENGTH = 0xFFFF + 40
"""Of an IPv6 packet with its header; no port is more."""

_LENGTH = struct.Struct("=I")
_U32 = (1 << 32) - 1
_LAST_MICROSECOND = 999_999
_FormKey = tuple[bytes, bytes, bytes, int]
"""Head, shape, fragment bits and protocol of a message."""


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
        self._forms: dict[_FormKey, Form] = {}
        self._known = 0
        self._numbers = _numbers()
        self._second: tuple[int | None, str] = None, ""
        self._lost = self._lost_lines = self._undecoded = self._unresolved = 0

    def decode(self, buffer: bytes | bytearray, size: int, now: int) -> Batch:
        """Return the lines of the messages in the first `size` bytes; `now` is their reception, in ns of the epoch."""
        self._lost = self._lost_lines = self._undecoded = self._unresolved = 0
        if self._resolver.refresh(now):
            self._heads.clear()
            self._forget()
        elif self._known >= MAX_KNOWN:
            self._forget()
        texts = self._texts(memoryview(buffer)[:size], now)
        return Batch(
            "".join(texts).encode(),
            len(texts) - self._lost_lines,
            self._lost,
            self._undecoded,
            self._unresolved,
        )

    def _texts(self, buffer: memoryview, now: int) -> list[str]:
        texts: list[str] = []
        offset, size = 0, len(buffer)
        while size - offset >= MESSAGE_HEADER.size:
            (length,) = _LENGTH.unpack_from(buffer, offset)
            if not MESSAGE_HEADER.size <= length <= size - offset:
                break
            stride = align(length)
            whole = (size - offset) // stride * stride
            for layout in self._layouts.get(length, ()):
                rows = self._rows(layout, buffer[offset : offset + whole], now, texts)
                if rows:
                    offset += rows * stride
                    break
            else:
                self._walk(bytes(buffer[offset : offset + length]), now, texts)
                offset += stride
        if offset < size:
            self._undecoded += 1
        return texts

    def _rows(self, layout: Layout, buffer: memoryview, now: int, texts: list[str]) -> int:
        """Append the lines of the messages at the buffer's beginning that have this layout; return how many they are.

        It is here that the time of an event goes: names are local, numbers are looked up as text rather than rendered,
        and nothing is called for what is known. Messages of one form mostly come in a row.
        """
        add, heads, forms = texts.append, self._heads, self._forms
        numbers, thousand = self._numbers
        cut, _, seq_header, _, family = layout
        length_added = family.length_added
        expected = seq_header << 32 | self.next_sequence
        second, second_text = self._second
        place: int | None
        form_head = form_shape = form_fragment = form_protocol = None
        count = new = 0
        for (
            head, seconds, microseconds, numbered, shape, length, fragment, protocol, addresses, first, last,
        ) in cut(buffer):  # fmt: skip
            if head != form_head or shape != form_shape or fragment != form_fragment or protocol != form_protocol:
                key = head, shape, fragment, protocol
                form = forms.get(key) or (self._new_form(layout, key) if head in heads else None)
                if form is None:
                    break
                form_head, form_shape, form_fragment, form_protocol = key
                known, parts_of = form.known, form.parts
                has_ports, answers, has_type = form.has_ports, form.answers, form.has_type
            if has_ports:
                other_port, place = numbers[first], last
            elif answers:
                other_port, place = numbers[last], first
            else:
                other_port, place = "", first >> 8 if has_type else None
            what = addresses, place
            parts = known.get(what)
            if parts is None:
                parts = known[what] = parts_of(addresses, place)
                new += 1
            if numbered != expected:
                if numbered >> 32 != seq_header:
                    break
                self.next_sequence = expected & _U32
                self._gap(numbered & _U32, _time(seconds, microseconds, now), texts)
                expected = numbered
            expected += 1
            if seconds != second or microseconds > _LAST_MICROSECOND:
                second, second_text, microseconds = _second(seconds, microseconds, now)  # noqa: PLW2901
            before, after = parts
            add(
                f'{second_text}.{thousand[microseconds // 1000]}{thousand[microseconds % 1000]}Z"'
                f"{before}{other_port}{after}{numbers[length + length_added]}}}\n"
            )
            count += 1
        self.next_sequence = expected & _U32
        self._second = second, second_text
        self._known += new
        return count

    def _new_form(self, layout: Layout, key: _FormKey) -> Form | None:
        """Return the form of messages with this key; None for those that are the plain walk's."""
        head, shape, fragment, protocol = key
        if protocol in IPV6_EXTENSION_HEADERS or not layout.is_plain(shape, fragment):
            return None
        has_ports = protocol in PORT_PROTOCOLS
        form = Form(self._resolver, self._heads[head], protocol, layout.family.address_length, has_ports=has_ports)
        self._forms[key] = form
        return form

    def _forget(self) -> None:
        """Forget what lines have in common."""
        self._forms.clear()
        self._known = 0

    def _walk(self, message: bytes, now: int, texts: list[str]) -> None:
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
        time = lines.time_text(now if logged.timestamp is None else logged.timestamp)
        if logged.sequence is not None:
            if logged.sequence != self.next_sequence:
                self._gap(logged.sequence, time, texts)
            self.next_sequence = (logged.sequence + 1) & _U32
        context = self._resolver.context(logged.prefix, logged.indev, logged.outdev)
        packet = parse_packet(logged.payload or b"")
        if context is None or packet is None:
            self._undecoded += 1
            return
        if context.resolved:
            self._learn(message, context)
        else:
            self._unresolved += 1
        has_ports = packet.destination_port is not None
        form = Form(self._resolver, context, packet.protocol, len(packet.source), has_ports=has_ports)
        place, other_port = packet.destination_port, packet.source_port
        if form.answers:
            place, other_port = other_port, place
        elif not has_ports:
            place = packet.icmp_type
        before, after = form.parts(packet.source + packet.destination, place)
        texts.append(f"{time}{before}{'' if other_port is None else other_port}{after}{packet.length}}}\n")

    def _learn(self, message: bytes, context: Context) -> None:
        layout = learn(message)
        if layout is None:
            return
        if len(self._heads) >= MAX_HEADS:
            self._heads.clear()
        self._heads[layout.head_of(message)] = context
        known = self._layouts.get(len(message), ())
        if layout not in known:
            if len(self._layouts) >= MAX_LENGTHS:
                self._layouts.clear()
            self._layouts[len(message)] = (layout, *known[: MAX_LAYOUTS - 1])

    def _gap(self, sequence: int, time: str, texts: list[str]) -> None:
        """Append the line for the events between the expected one and `sequence`."""
        count = (sequence - self.next_sequence) & _U32
        # A number from before the expected one is not a gap: the group was bound anew and counts from 0 again.
        if 0 < count < 1 << 31:
            texts.append(lines.lost_line(time, count, self._reason))
            self._lost += count
            self._lost_lines += 1
        self._reason = "overrun"


@lru_cache(1)
def _numbers() -> tuple[list[str], list[str]]:
    """Return the numbers up to the largest length of a packet as text, 4 MB, and those of three digits."""
    return [str(number) for number in range(MAX_LENGTH + 1)], [f"{number:03d}" for number in range(1000)]


def _second(seconds: Any, microseconds: Any, now: int) -> tuple[int | None, str, int]:
    """Return a second since the epoch, how the lines of that second begin, and the microseconds.

    The second is None where the kernel sent no time: that of the reception is taken, once for each message.
    """
    timed = seconds != b""
    second, microsecond = divmod(seconds * 1_000_000 + microseconds if timed else now // 1000, 1_000_000)
    return (second if timed else None), f'{{"ts":"{lines.second_text(second)}', microsecond


def _time(seconds: Any, microseconds: Any, now: int) -> str:
    """Return how the line of a message begins, as `lines.time_text` does."""
    _, text, microsecond = _second(seconds, microseconds, now)
    return f'{text}.{microsecond:06d}Z"'
