"""Lines of the event log for people: in columns, and on a terminal in colour and cut to its width."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from wgd.cli.shown import BOLD, GREEN, RED, YELLOW, Painter
from wgd.events import words
from wgd.events.entry import Entry, instant, parse

COLOURS = {"open": GREEN, "packet": GREEN, "close": "", "deny": RED, "lost": RED, "drift": YELLOW}
NARROWEST = (6, 5, 3, 9, 9)
WIDEST = (8, 20, 10, 24, 24)
"""Between which the columns of event, client, protocol, source and destination grow; what is longer sticks out."""
MAX_TIMES = 1 << 12


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
        self._paint = Painter(colour=colour)
        self._widths = list(NARROWEST)
        self._times: dict[str, str] = {}

    def render(self, lines: Iterable[bytes], width: int | None = None) -> str:
        """Return one text line for each line of the log."""
        rows = [self._row(line) for line in lines]
        for row in rows:
            for column, cell in enumerate(row.cells):
                if self._widths[column] < len(cell):
                    self._widths[column] = min(len(cell), WIDEST[column])
        return "".join(f"{self._text(row, width)}\n" for row in rows)

    def _row(self, line: bytes) -> Row:
        entry = parse(line)
        if entry is None:
            return Row("", (), words.readable(line.decode(errors="replace")), RED)
        event = words.readable(entry.get("event", "?"))
        colour = YELLOW if entry.get("verdict") == "would_deny" else COLOURS.get(event, BOLD)
        if "src_ip" not in entry:
            return Row(self._time(entry), (event,), words.remark(entry), colour)
        cells = (
            event,
            words.readable(entry.get("client", "-")),
            words.protocol(entry),
            words.endpoint(entry["src_ip"], entry.get("src_port")),
            words.endpoint(entry.get("dst_ip"), entry.get("dst_port")),
        )
        return Row(self._time(entry), cells, words.remark(entry), colour)

    def _text(self, row: Row, width: int | None) -> str:
        if not row.cells:
            return self._paint(cut(row.remark, width), row.colour)
        padded = [f"{cell:{length}}" for cell, length in zip(row.cells, self._widths, strict=False)]
        event = padded.pop(0)
        if padded:
            *padded, source, destination = padded
            padded.append(f"{source} -> {destination}")
        start = f"{row.time}  "
        rest = cut("".join((start, "  ".join((event, *padded, row.remark)))).rstrip(), width)
        end = len(start) + len(event.rstrip())
        return f"{rest[: len(start)]}{self._paint(rest[len(start) : end], row.colour)}{rest[end:]}"

    def _time(self, entry: Entry) -> str:
        text = entry.get("ts")
        second = text[:19] if isinstance(text, str) and text.endswith("Z") else ""
        known = self._times.get(second)
        if known is not None:
            return known
        found = instant(entry)
        if found is None:
            return f"{words.readable(text):19}"
        shown = self._to_local(found).strftime("%Y-%m-%d %H:%M:%S")
        if second:
            if len(self._times) >= MAX_TIMES:
                self._times.clear()
            self._times[second] = shown
        return shown


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
