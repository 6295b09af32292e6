"""Lines of the event log for people: in columns, and on a terminal in colour and cut to its width."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from wgd.cli.shown import BOLD, GREEN, RED, YELLOW, Painter
from wgd.events import words
from wgd.events.entry import instant, parse

COLOURS = {"open": GREEN, "packet": GREEN, "close": "", "deny": RED, "lost": RED, "drift": YELLOW}
NARROWEST = (6, 5, 3, 9, 9)
WIDEST = (8, 20, 10, 24, 24)
"""Between which the columns of event, client, protocol, source and destination grow; what is longer sticks out."""
MAX_KEPT = 1 << 14
"""How many times, and parts of lines, are remembered as they are shown."""

_SECOND = len("2026-01-01T00:00:00")
_TIME = len("2026-01-01T00:00:00.000000Z")
_NUMBER = "(?:0|[1-9][0-9]{0,18})"
_WORD = r"[!#-\[\]-~]+"
_FLOW = re.compile(
    rf'\{{"ts":"([0-9T:.-]{{26}}Z)","event":"([a-z]+","verdict":"[a-z_]+"(?:,"client_id":"{_WORD}","client":"{_WORD}")?)'
    rf',"src_ip":"([0-9a-f.:]+)"(?:,"src_port":({_NUMBER}))?'
    rf'(,"dst_ip":"[0-9a-f.:]+"(?:,"dst_port":{_NUMBER})?(?:,"proto":"[a-z0-9_]+")?(?:,"icmp_type":{_NUMBER})?'
    r'(?:,"rule":"[^"\\]+")?)'
    rf'(?:,"in_iface":"{_WORD}")?(?:,"out_iface":"{_WORD}")?(?:,"length":{_NUMBER})?'
    rf'(?:,"tx_packets":{_NUMBER},"tx_bytes":({_NUMBER}),"rx_packets":{_NUMBER},"rx_bytes":({_NUMBER}))?'
    rf'(?:,"duration_ms":({_NUMBER}))?\}}'
)
"""A line of a packet or flow of our own form; the groups are what is shown of it, or decide what is shown."""
_Kind = tuple[str, str, str, str, bool]
"""Event, client, colour, the remark on a line without a rule, and whether one with a rule has that too."""
_End = tuple[str, str, str]
"""Protocol, destination, and the rule."""


class Row(NamedTuple):
    """What is shown of one line. `cells` are the columns; the gateway's own events have the first only."""

    time: str
    cells: tuple[str, ...]
    remark: str
    colour: str


class EventTable:
    """Renders lines. `to_local` gives a time in the reader's time zone; `width` is the terminal's, None for no end.

    Columns become as wide as they had to be until now.
    """

    def __init__(self, to_local: Callable[[datetime], datetime], *, colour: bool) -> None:
        self._to_local = to_local
        self._is_plain = not colour
        self._paint = Painter(colour=colour)
        self._widths = list(NARROWEST)
        self._times: dict[str, str] = {}
        self._kinds: dict[str, _Kind] = {}
        self._ends: dict[str, _End] = {}

    def render(self, lines: Iterable[bytes], width: int | None = None) -> str:
        """Return one text line for each line of the log."""
        rows = [self._row(line) for line in lines]
        self._widen([row.cells for row in rows if len(row.cells) == 1])
        self._widen([row.cells for row in rows if len(row.cells) > 1])
        return "".join(f"{self._text(row, width)}\n" for row in rows)

    def _widen(self, rows: list[tuple[str, ...]]) -> None:
        """Make the columns wide enough for some rows of equally many cells, as far as they may grow."""
        for number, column in enumerate(zip(*rows, strict=True)):
            self._widths[number] = max(self._widths[number], min(max(map(len, column)), WIDEST[number]))

    def _row(self, line: bytes) -> Row:
        """Return what is shown of a line; of our own form, without parsing what has been parsed before."""
        found = _FLOW.fullmatch(line.decode(errors="replace"))
        if found is None:
            return _parsed(line, self._time)
        time, kind, source, port, end, sent, received, lived = found.groups()
        head = self._kinds.get(kind) or self._parse_kind(kind)
        tail = self._ends.get(end) or self._parse_end(end)
        if head is None or tail is None:
            return _parsed(line, self._time)
        event, client, colour, without_rule, never_rule = head
        protocol, destination, remark = tail
        if never_rule or not remark:
            remark = without_rule
        if event == "close" and (sent is not None or lived is not None):
            counts = (None if count is None else int(count) for count in (sent, received, lived))
            remark = words.joined(remark, words.traffic(*counts))
        if port is not None:
            source = f"[{source}]:{port}" if ":" in source else f"{source}:{port}"
        return Row(self._time(time), (event, client, protocol, source, destination), remark, colour)

    def _parse_kind(self, kind: str) -> _Kind | None:
        """Return what is shown of all lines that are alike up to the client; None where they are no JSON."""
        row = _parsed(f'{{"event":"{kind},"src_ip":""}}'.encode(), str)
        with_rule = _parsed(f'{{"event":"{kind},"src_ip":"","rule":"."}}'.encode(), str)
        if not row.cells:
            return None
        if len(self._kinds) >= MAX_KEPT:
            self._kinds.clear()
        found = row.cells[0], row.cells[1], row.colour, row.remark, with_rule.remark == row.remark
        self._kinds[kind] = found
        return found

    def _parse_end(self, end: str) -> _End | None:
        """Return what is shown of all lines that are alike from the destination to the rule."""
        row = _parsed(f'{{"client_id":"","src_ip":""{end}}}'.encode(), str)
        if not row.cells:
            return None
        if len(self._ends) >= MAX_KEPT:
            self._ends.clear()
        self._ends[end] = found = row.cells[2], row.cells[4], row.remark
        return found

    def _text(self, row: Row, width: int | None) -> str:
        if not row.cells:
            return self._paint(cut(row.remark, width), row.colour)
        if self._is_plain and len(row.cells) > 1 and width is None:
            event, client, protocol, source, destination = map(str.ljust, row.cells, self._widths)
            return f"{row.time}  {event}  {client}  {protocol}  {source} -> {destination}  {row.remark}".rstrip()
        padded = [f"{cell:{length}}" for cell, length in zip(row.cells, self._widths, strict=False)]
        event = padded.pop(0)
        if padded:
            *padded, source, destination = padded
            padded.append(f"{source} -> {destination}")
        start = f"{row.time}  "
        rest = cut("".join((start, "  ".join((event, *padded, row.remark)))).rstrip(), width)
        end = len(start) + len(event.rstrip())
        return f"{rest[: len(start)]}{self._paint(rest[len(start) : end], row.colour)}{rest[end:]}"

    def _time(self, text: object) -> str:
        """Return a `ts` in the reader's time zone."""
        second = text[:_SECOND] if isinstance(text, str) and len(text) == _TIME and text[-1] == "Z" else ""
        known = self._times.get(second)
        if known is not None:
            return known
        found = instant({"ts": text})
        if found is None:
            return f"{words.readable(text):{_SECOND}}"
        try:
            shown = self._to_local(found).strftime("%Y-%m-%d %H:%M:%S")
        except OverflowError:
            # The last hours that can be written in UTC, in a zone that is ahead of it.
            return f"{words.readable(text):{_SECOND}}"
        if second:
            if len(self._times) >= MAX_KEPT:
                self._times.clear()
            self._times[second] = shown
        return shown


def _parsed(line: bytes, shown_time: Callable[[object], str]) -> Row:
    entry = parse(line)
    if entry is None:
        return Row("", (), words.readable(line.decode(errors="replace")), RED)
    time = shown_time(entry.get("ts"))
    event = words.readable(entry.get("event", "?"))
    colour = YELLOW if entry.get("verdict") == "would_deny" else COLOURS.get(event, BOLD)
    if "src_ip" not in entry:
        return Row(time, (event,), words.remark(entry), colour)
    cells = (
        event,
        words.readable(entry.get("client", "-")),
        words.protocol(entry),
        words.endpoint(entry["src_ip"], entry.get("src_port")),
        words.endpoint(entry.get("dst_ip"), entry.get("dst_port")),
    )
    return Row(time, cells, words.remark(entry), colour)


def cut(text: str, width: int | None) -> str:
    """Return printable text cut to so many columns of a terminal, with `…` where something is missing."""
    if width is None or (text.isascii() and len(text) <= width):
        return text
    columns = [_columns(character) for character in text]
    if sum(columns) <= width:
        return text
    taken = end = 0
    while taken + columns[end] < width:
        taken += columns[end]
        end += 1
    return f"{text[:end]}…"


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
