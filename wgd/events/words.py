"""An entry of the event log in words, for people. Nothing of it can move a terminal's cursor or hide other text."""

from __future__ import annotations

import json
from typing import TypeGuard

from wgd.events.entry import Entry

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
KIBI = 1024
MINUTE, HOUR, DAY = 60, 3600, 86400
THOUSAND = 1000
LARGEST_COUNT = 2**64 - 1

WHY_LOST = {
    "overrun": "they came faster than they could be read",
    "disk_full": "the log file took no lines",
    "rate_limit": "clients were denied more often than is logged",
    "restart": "the process that writes the log was replaced",
}
WHAT_BECAME = {"restored": "put back", "failed": "could not be put back"}


def readable(value: object) -> str:
    r"""Return a value of JSON as text; control, formatting and other invisible characters become `\x1b`, `\u202e`."""
    if type(value) is int:
        return str(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"  # noqa: PLR2004  # the last of one byte


def flow(entry: Entry) -> str:
    """Return `SOURCE -> DESTINATION`, with ports where there are any; empty where the entry is of no packet."""
    ends = [endpoint(entry.get(f"{end}_ip"), entry.get(f"{end}_port")) for end in ("src", "dst")]
    return " -> ".join(ends) if any(ends) else ""


def endpoint(address: object, port: object) -> str:
    """Return `10.0.0.1:443`, `[fd20::1]:443` or an address alone."""
    if address is None:
        return ""
    text = readable(address)
    if port is None:
        return text
    return f"[{text}]:{readable(port)}" if ":" in text else f"{text}:{readable(port)}"


def protocol(entry: Entry) -> str:
    """Return the protocol, with the type of an ICMP message."""
    found = readable(entry.get("proto", ""))
    kind = entry.get("icmp_type")
    return found if kind is None else f"{found} type {readable(kind)}"


def remark(entry: Entry) -> str:
    """Return what else an entry says: of a packet or flow its rule and size, of the gateway itself the whole."""
    match entry.get("event"):
        case "lost":
            count, reason = entry.get("count"), entry.get("reason")
            return f"{_of(count, 'event is', 'events are')} missing here: {WHY_LOST.get(str(reason), readable(reason))}"
        case "drift":
            action = readable(entry.get("action", ""))
            return f"{_object(entry)} was changed by somebody else: {WHAT_BECAME.get(action, action)}{_times(entry)}"
        case "started" | "stopped" as event:
            return f"the gateway has {event}{_detail(entry)}"
        case "reloaded":
            if "object" not in entry and "action" not in entry:
                return f"the config was reloaded{_detail(entry)}"
            return f"reloaded: {_object(entry)} {readable(entry.get('action', 'changed'))}{_times(entry)}"
        case _:
            counts = (entry.get(key) for key in ("tx_bytes", "rx_bytes", "duration_ms"))
            return joined(_rule(entry), traffic(*counts) if entry.get("event") == "close" else "")


def sentence(entry: Entry) -> str:
    """Return an entry, but for its time, as one sentence."""
    event = entry.get("event")
    if event not in ("open", "close", "deny", "packet"):
        return remark(entry)
    verdict = "would_deny" if entry.get("verdict") == "would_deny" else event
    verbs = {
        "open": "opens",
        "close": "closes",
        "deny": "is denied",
        "packet": "sends",
        "would_deny": "would be denied",
    }
    who = readable(entry.get("client", "a client that is not known"))
    said = " ".join(filter(None, (who, verbs[str(verdict)], protocol(entry), flow(entry))))
    more = remark(entry) if verdict != "would_deny" else ""
    return f"{said} ({more})" if more else said


def _rule(entry: Entry) -> str:
    if entry.get("verdict") == "would_deny":
        return "enforce would drop it"
    if "rule" in entry:
        return readable(entry["rule"])
    return "no known client" if "client_id" not in entry and "src_ip" in entry else ""


def joined(rule: str, carried: str) -> str:
    """Return the remark about a flow that has ended: its rule, and what `traffic` gives."""
    return f"{rule}; {carried}" if rule and carried else rule or carried


def traffic(sent: object, received: object, lived: object) -> str:
    """Return what a flow has carried, in bytes, and how long it lived, in milliseconds, as far as they are counts."""
    parts = []
    if _is_count(sent) and _is_count(received):
        parts.append(f"{amount(sent)} sent, {amount(received)} received")
    if _is_count(lived):
        parts.append(f"in {span(lived)}")
    return " ".join(parts)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and 0 <= value <= LARGEST_COUNT


def _object(entry: Entry) -> str:
    return " ".join(readable(entry[key]) for key in ("object", "detail") if key in entry) or "something"


def _detail(entry: Entry) -> str:
    return f": {readable(entry['detail'])}" if "detail" in entry else ""


def _times(entry: Entry) -> str:
    count = entry.get("count")
    return f" ({readable(count)} of them)" if isinstance(count, int) and count > 1 else ""


def _of(count: object, one: str, several: str) -> str:
    return f"1 {one}" if count == 1 else f"{readable(count)} {several}"


def span(milliseconds: int) -> str:
    """Return how long something took: `350 ms`, `2.3 s`, or as `duration` says it."""
    if milliseconds < THOUSAND:
        return f"{milliseconds} ms"
    seconds = milliseconds / THOUSAND
    return f"{seconds:.1f} s" if seconds < MINUTE else duration(seconds)


def duration(seconds: float) -> str:
    """Return a time span in its two largest units at most: `3 s`, `5 min`, `2 h 10 min`, `4 d 3 h`."""
    whole = max(0, int(seconds))
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def amount(count: int) -> str:
    """Return a number of bytes in a unit that leaves at most four digits before the point."""
    value, unit = float(count), 0
    while value >= KIBI and unit < len(UNITS) - 1:
        value, unit = value / KIBI, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {UNITS[unit]}"
