"""Conntrack messages, one after the other -> the `close` lines of the flows that they tell of.

A message whose layout is known costs one masked comparison, one unpack and a few dictionary lookups; every other one
takes the plain walk and teaches the decoder. Both ways give the same lines.
"""

from __future__ import annotations

import struct

from wgd.events import lines
from wgd.events.decoder import Batch
from wgd.events.flow_layout import FlowLayout, learn
from wgd.events.flow_message import EndedFlow, walk
from wgd.events.flow_resolver import FlowResolver
from wgd.events.names_book import NamesBook
from wgd.events.nflog_message import MESSAGE_HEADER, align
from wgd.policy.ruleset import RECORDED_MASK

MAX_LAYOUTS = 8
"""How many layouts of the same length are told apart."""
MAX_LENGTHS = 1 << 8

_LENGTH = struct.Struct("=I")
_NANOSECONDS, _MILLISECOND = 1_000_000_000, 1_000_000


class FlowDecoder:
    """Decodes what the kernel tells of flows. It has no numbers: `next_sequence` is the reader's own."""

    def __init__(self, book: NamesBook, next_sequence: int = 0) -> None:
        self.next_sequence = next_sequence
        self._resolver = FlowResolver(book)
        self._layouts: dict[int, tuple[FlowLayout, ...]] = {}
        self._undecoded = 0

    def decode(self, buffer: bytes | bytearray, size: int, now: int) -> Batch:
        """Return the lines of the messages in the first `size` bytes; `now` is their reception, in ns of the epoch.

        The kernel says itself when a flow ended; `now` stands in for what it does not say.
        """
        self._undecoded = 0
        self._resolver.refresh()
        texts = self._texts(buffer, size, now)
        unresolved = 0 if self._resolver.era(now).names else len(texts)
        return Batch("".join(texts).encode(), len(texts), 0, self._undecoded, unresolved)

    def _texts(self, buffer: bytes | bytearray, size: int, now: int) -> list[str]:
        # Each name that the loop looks up is a local one, and nothing is called for what is known.
        texts: list[str] = []
        layouts, known_parts, number_of = self._layouts, self._resolver.known_parts, int.from_bytes
        era = self._resolver.era(now)
        begin, end, _ = era
        last_second, second_text = -1, ""
        offset = 0
        while size - offset >= MESSAGE_HEADER.size:
            (length,) = _LENGTH.unpack_from(buffer, offset)
            if not MESSAGE_HEADER.size <= length <= size - offset:
                break
            bits = number_of(buffer[offset : offset + length], "big")
            for unpack, mask, expected, protocol, has_ports in layouts.get(length, ()):
                if bits & mask == expected:
                    source, first, destination, port, tx, tx_bytes, rx, rx_bytes, start, stop, mark = unpack(
                        buffer, offset
                    )
                    what = (source, destination, mark & RECORDED_MASK, protocol, port, None)
                    if not has_ports:
                        icmp_type = None if first == b"" else first
                        what = (source, destination, mark & RECORDED_MASK, protocol, None, icmp_type)
                        first = ""
                    break
            else:
                self._walk(bytes(buffer[offset : offset + length]), now, texts)
                offset += align(length)
                continue
            offset += align(length)
            if not begin <= start < end:
                era = self._resolver.era(start)
                begin, end, _ = era
            key = (begin, what)
            before, after, _, client_began = known_parts.get(key) or self._resolver.parts(era, key)
            if not client_began:
                tx, tx_bytes, rx, rx_bytes = rx, rx_bytes, tx, tx_bytes
            second, rest = divmod(stop, _NANOSECONDS)
            if second != last_second:
                last_second, second_text = second, f'{{"ts":"{lines.second_text(second)}'
            texts.append(
                f'{second_text}.{rest // 1000:06d}Z"{before}{first}{after},"tx_packets":{tx},"tx_bytes":{tx_bytes}'
                f',"rx_packets":{rx},"rx_bytes":{rx_bytes}'
                f',"duration_ms":{(stop - start) // _MILLISECOND if stop > start else 0}}}\n'
            )
        if offset < size:
            self._undecoded += 1
        return texts

    def _walk(self, message: bytes, now: int, texts: list[str]) -> None:
        """Append the line of a message by the plain walk, and learn from it."""
        flow = walk(message)
        if flow is None:
            self._undecoded += 1
            return
        self._learn(message)
        era = self._resolver.era(now if flow.start is None else flow.start)
        recorded = flow.mark & RECORDED_MASK
        what = (flow.source, flow.destination, recorded, flow.protocol, flow.destination_port, flow.icmp_type)
        key = (era.begin, what)
        parts = self._resolver.known_parts.get(key) or self._resolver.parts(era, key)
        source_port = flow.source_port if parts.has_source_port else ""
        stop = now if flow.stop is None else flow.stop
        counts = _counts_text(flow, client_began=parts.client_began)
        duration = "" if flow.start is None else f',"duration_ms":{max(0, stop - flow.start) // _MILLISECOND}'
        texts.append(
            f"{lines.time_text(stop)}{parts.before_source_port}{source_port}{parts.after_source_port}{counts}{duration}}}\n"
        )

    def _learn(self, message: bytes) -> None:
        layout = learn(message)
        known = self._layouts.get(len(message), ())
        if layout is not None and layout not in known:
            if len(self._layouts) >= MAX_LENGTHS:
                self._layouts.clear()
            self._layouts[len(message)] = (layout, *known[: MAX_LAYOUTS - 1])


def _counts_text(flow: EndedFlow, *, client_began: bool) -> str:
    """Return the members of what was counted; none where the flow began before the kernel counted."""
    if flow.sent is None or flow.received is None:
        return ""
    sent, received = (flow.sent, flow.received) if client_began else (flow.received, flow.sent)
    return "".join(
        f',"{direction}_packets":{packets},"{direction}_bytes":{size}'
        for direction, (packets, size) in (("tx", sent), ("rx", received))
    )
