"""Which of many lines are wanted, at hundreds of megabytes a second.

Most of a line repeats from one to the next: its second, the part from the event to the client, the part with the
destination. What a Filter says of such a part is kept, and a line is refused as soon as one of its parts is. This rests
on the form that `lines` writes: inside a JSON string every quote is escaped, so `,"src_ip":"` is a key wherever it
stands, with whole members before it. A line that is not refused must have our form to its end; any other is parsed.
A key given twice, which no writer of JSON does, may count with either value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Literal

from wgd.events.entry import NO_FILTER, Filter, instant, parse

MAX_KEPT = 1 << 15
"""How many parts of a kind are remembered; then all are forgotten at once, as in a port scan."""

_TIME_START = len('{"ts":"')
_SECOND_END = len('{"ts":"2026-01-01T00:00:00')
_KIND_START = _SECOND_END + len(".000000")
"""Where the part begins that holds event, verdict and client; it begins with the Z that ends the time."""
_POINT_END = _SECOND_END + 1
_TIME_END = _KIND_START + len('Z"')
_SOURCE = b',"src_ip":"'
_LOST = b'"lost"'

_SECOND = re.compile(rb'\{"ts":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})')
_STRING = rb'"[ !#-\[\]-~]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[ !#-\[\]-~]*+)*+"'
"""A JSON string in ASCII."""
_NUMBER = rb"(?:0|[1-9][0-9]{0,19})"
_REST = re.compile(
    rb'%b[0-9a-f.:]+"(?:,"src_port":%b)?'
    rb'(,"dst_ip":"[0-9a-f.:]+"(?:,"dst_port":%b)?)(?:,"proto":"[a-z0-9_]+")?(?:,"icmp_type":%b)?'
    rb'(?:,"(?:rule|in_iface|out_iface)":%b){0,3}'
    rb'(?:,"(?:length|[tr]x_packets|[tr]x_bytes|duration_ms)":%b){0,6}\}'
    % (_SOURCE, _NUMBER, _NUMBER, _NUMBER, _STRING, _NUMBER)
)
"""The line of a packet or a flow from its source address to its end; the group is the destination."""


class _Second(Enum):
    """Where a second lies."""

    INSIDE = auto()
    OUTSIDE = auto()
    BORDER = auto()
    """The span begins or ends in it."""
    FOREIGN = auto()
    """It is not written as ours are."""


class _Kind(Enum):
    """What the filter says of event, verdict and client."""

    WANTED = auto()
    REFUSED = auto()
    LACKING = auto()
    """Refused for want of a key, which may come later in a line that is not of our form."""
    FOREIGN = auto()
    """They are not written as ours are."""


# Under names of their own, since an Enum's members are looked up slowly.
_OUTSIDE, _BORDER, _UNKNOWN = _Second.OUTSIDE, _Second.BORDER, _Second.FOREIGN
_WANTED, _REFUSED, _FOREIGN = _Kind.WANTED, _Kind.REFUSED, _Kind.FOREIGN


class Sieve:
    """Finds the lines that a Filter accepts, the same as Filter.accepts does.

    `lost` counts the lost lines that were told of in the time that is wanted, in lines that are not: what is found may
    lack some.
    """

    def __init__(self, wanted: Filter) -> None:
        self.lost = 0
        self._filter = wanted
        self._asked = {"event"} | ({"verdict"} if wanted.verdicts else set())
        self._asked |= {"client_id", "client"} if wanted.clients else set()
        self._seconds: dict[bytes, _Second] = {}
        self._kinds: dict[bytes, _Kind] = {}
        self._destinations: dict[bytes, bool] = {}

    def hits(self, lines: Iterable[bytes]) -> list[bytes]:
        """Return the wanted ones of some lines, all without line ends, in order; empty lines are left out."""
        if self._filter == NO_FILTER:
            return [line for line in lines if line]
        found = []
        # Looked up here, not once a line: this loop decides how long a reader waits for a gigabyte.
        seconds, kinds = self._seconds, self._kinds
        for line in lines:
            start = line[:_SECOND_END]
            second = seconds.get(start) or self._second(start)
            if second is _OUTSIDE and line[_SECOND_END:_POINT_END] == b"." and line[_KIND_START:_TIME_END] == b'Z"':
                continue
            place = line.find(_SOURCE, _KIND_START)
            kind = _FOREIGN
            if place > 0:
                part = line[_KIND_START:place]
                kind = kinds.get(part) or self._kind(part)
                if kind is _REFUSED and second is not _UNKNOWN:
                    continue
            if line and self._wants(line, place, second, kind):
                found.append(line)
        return found

    def _wants(self, line: bytes, place: int, second: _Second, kind: _Kind) -> bool:
        """Return whether a line is wanted that was not refused at once."""
        rest = _REST.fullmatch(line, place) if place > 0 else None
        if (
            rest is None
            or second is _UNKNOWN
            or kind is _FOREIGN
            or line[_SECOND_END:_POINT_END] != b"."
            or not line[_POINT_END:_KIND_START].isdigit()
        ):
            return self._filter.accepts(line) or self._not_wanted(line)
        if kind is not _WANTED or second is _OUTSIDE:
            return False
        if second is _BORDER and not self._filter.accepts_time(
            datetime.fromisoformat(line[_TIME_START : _TIME_END - 1].decode())
        ):
            return False
        destination = rest[1]
        wanted = self._destinations.get(destination)
        return self._destination(destination) if wanted is None else wanted

    def _not_wanted(self, line: bytes) -> Literal[False]:
        """Count what a line that is not wanted tells of lost ones."""
        if _LOST in line:
            entry = parse(line) or {}
            count = entry.get("count")
            in_time = not self._filter.has_span or self._filter.accepts_time(instant(entry))
            if entry.get("event") == "lost" and type(count) is int and count > 0 and in_time:
                self.lost += count
        return False

    def _second(self, start: bytes) -> _Second:
        if len(self._seconds) >= MAX_KEPT:
            self._seconds.clear()
        found = self._seconds[start] = self._place_of(start)
        return found

    def _place_of(self, start: bytes) -> _Second:
        written = _SECOND.fullmatch(start)
        if written is None:
            return _Second.FOREIGN
        try:
            first = datetime.fromisoformat(f"{written[1].decode()}.000000Z")
        except ValueError:
            return _Second.FOREIGN
        if not self._filter.has_span:
            return _Second.INSIDE
        last = first + timedelta(microseconds=999_999)
        if any(end is not None and first <= end <= last for end in (self._filter.since, self._filter.until)):
            return _Second.BORDER
        return _Second.INSIDE if self._filter.accepts_time(first) else _Second.OUTSIDE

    def _kind(self, part: bytes) -> _Kind:
        if len(self._kinds) >= MAX_KEPT:
            self._kinds.clear()
        found = self._kinds[part] = self._kind_of(part)
        return found

    def _kind_of(self, part: bytes) -> _Kind:
        entry = parse(b'{"ts":"' + part + b"}") if part.startswith(b'Z","event":"') else None
        if entry is None:
            return _Kind.FOREIGN
        if self._filter.accepts_kind(entry):
            return _Kind.WANTED
        return _Kind.REFUSED if entry.keys() >= self._asked else _Kind.LACKING

    def _destination(self, part: bytes) -> bool:
        if len(self._destinations) >= MAX_KEPT:
            self._destinations.clear()
        entry = parse(b'{"event":""' + part + b"}")
        found = self._destinations[part] = entry is not None and self._filter.accepts_destination(entry)
        return found
