"""A line of the event log -> an entry of the journal, with the same fields for `journalctl WGD_EVENT=deny`.

The form is that of systemd's "Native Journal Protocol": one datagram an entry, `NAME=VALUE` lines, and a length before
a value that has line ends itself.
"""

from __future__ import annotations

import json
import re
import struct

from wgd.events.entry import Entry, parse
from wgd.events.words import readable, sentence

IDENTIFIER = "wgd-server"
ERROR, WARNING, NOTICE, INFORMATION = 3, 4, 5, 6
"""Priorities of syslog(3)."""
_PRIORITIES = {"deny": NOTICE, "drift": WARNING, "lost": WARNING}
_NAME = re.compile("[a-z][a-z0-9_]{0,50}")
_LENGTH = struct.Struct("<Q")


def journal_entry(line: bytes) -> bytes | None:
    """Return the datagram for a line of the log; None for what is no line of it."""
    entry = parse(line)
    if entry is None:
        return None
    fields = [
        _field("MESSAGE", sentence(entry) or readable(entry.get("event"))),
        _field("PRIORITY", str(priority(entry))),
        _field("SYSLOG_IDENTIFIER", IDENTIFIER),
    ]
    fields += [_field(f"WGD_{key.upper()}", _text(value)) for key, value in entry.items() if _NAME.fullmatch(key)]
    return b"".join(fields)


def priority(entry: Entry) -> int:
    """Return how urgent an entry is, as syslog counts."""
    if entry.get("verdict") == "would_deny":
        return NOTICE
    if entry.get("action") == "failed":
        return ERROR
    return _PRIORITIES.get(str(entry.get("event")), INFORMATION)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _field(name: str, value: str) -> bytes:
    data = value.encode(errors="replace")
    if b"\n" not in data:
        return b"%b=%b\n" % (name.encode(), data)
    return b"%b\n%b%b\n" % (name.encode(), _LENGTH.pack(len(data)), data)
