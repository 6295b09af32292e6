"""Points in time as journalctl takes them: RFC 3339, a date, a time of day, words, and spans before now."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta

UNITS = {
    "s": 1, "sec": 1, "second": 1, "seconds": 1, "m": 60, "min": 60, "minute": 60, "minutes": 60, "h": 3600, "hr": 3600,
    "hour": 3600, "hours": 3600, "d": 86400, "day": 86400, "days": 86400, "w": 604800, "week": 604800, "weeks": 604800,
}  # fmt: skip
"""As in systemd.time(7), in seconds."""
DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
_SPAN = re.compile(r"(?:([0-9]{1,9}) ?([a-z]+) ?)+")
_PIECE = re.compile(r"([0-9]+) ?([a-z]+)")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATE_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[ Tt]([0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?)"
    r"(?: ?([Zz]|UTC|[+-][0-9]{2}:[0-9]{2}))?"
)
_TIME = re.compile(r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?")


def moment(text: str, now: datetime) -> datetime:
    """Return the time that `text` names, with a time zone; one that names no zone is in the host's.

    Raise ValueError with a sentence for who wrote it.
    """
    try:
        found = _parsed(text.strip(), now)
    except (OverflowError, ValueError):
        found = None
    if found is None:
        raise ValueError(
            "must be a time such as 2026-11-25T14:00:00Z, '2026-11-25 14:00', 2026-11-25, 14:00, today, yesterday,"
            " now, -1h or '30min ago'"
        )
    return found


def _parsed(text: str, now: datetime) -> datetime | None:
    if text in DAYS:
        return _local(now.date() + timedelta(days=DAYS[text]))
    if _DATE.fullmatch(text):
        return _local(date.fromisoformat(text))
    if _TIME.fullmatch(text):
        return _local(now.date(), time.fromisoformat(text))
    written = _DATE_TIME.fullmatch(text)
    return _relative(text, now) if written is None else _date_time(*written.groups())


def _date_time(day: str, clock: str, zone: str | None) -> datetime:
    if zone is None:
        return _local(date.fromisoformat(day), time.fromisoformat(clock))
    return datetime.fromisoformat(f"{day}T{clock}{'Z' if zone in ('z', 'UTC') else zone}")


def _relative(text: str, now: datetime) -> datetime | None:
    """Return now, or a time that is given as a span before or, with `+`, after it."""
    if text == "now":
        return now
    sign, span = (-1, text.removesuffix("ago").rstrip()) if text.endswith("ago") else (0, text)
    if not sign and text[:1] in ("-", "+"):
        sign, span = -1 if text[0] == "-" else 1, text[1:]
    if not sign or not _SPAN.fullmatch(span):
        return None
    pieces = _PIECE.findall(span)
    if any(unit not in UNITS for _count, unit in pieces):
        return None
    return now + sign * timedelta(seconds=sum(int(count) * UNITS[unit] for count, unit in pieces))


def _local(day: date, clock: time = time.min) -> datetime:
    """Return a time of the host's clock; astimezone takes a naive one as that."""
    return datetime.combine(day, clock).astimezone()
