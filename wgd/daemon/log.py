"""Where the programs' log lines go: to a person's terminal or, with a priority, to the journal.

Modules log through `logging.getLogger(__name__)`; only a program's `main` calls `set_up`.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

_YELLOW, _RED, _RESET = "\033[33m", "\033[31m", "\033[0m"
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
"""Control characters, which a stranger's bytes in a message could use to rewrite the reader's screen."""


def set_up(level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every log record of `level` and above to `stream` (stderr), in the form its reader understands."""
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JournalFormatter() if is_journal(stream) else PlainFormatter(colour=wants_colour(stream)))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def is_journal(stream: TextIO) -> bool:
    """Return whether `stream` is the very socket that systemd connected to the journal.

    $JOURNAL_STREAM holds its device and inode (systemd.exec(5)). A child whose stderr was redirected
    still has the variable, which is why the numbers are compared.
    """
    announced = os.environ.get("JOURNAL_STREAM")
    if not announced:
        return False
    status = os.fstat(stream.fileno())
    return announced == f"{status.st_dev}:{status.st_ino}"


def wants_colour(stream: TextIO) -> bool:
    """Return whether `stream` is a terminal whose user did not ask for plain text (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class PlainFormatter(logging.Formatter):
    """The message alone; warnings and errors carry a mark in front, in colour if wanted."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text, tracebacks included, with control characters made visible."""
        text = super().format(record).translate(_ESCAPES)
        if record.levelno < logging.WARNING:
            return text
        mark, colour = ("error:", _RED) if record.levelno >= logging.ERROR else ("warning:", _YELLOW)
        return f"{colour}{mark}{_RESET} {text}" if self._colour else f"{mark} {text}"


class JournalFormatter(logging.Formatter):
    """Every line with the `<N>` priority of sd-daemon(3), since the journal makes an entry of each line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text, tracebacks included, with control characters made visible."""
        prefix = f"<{_priority(record.levelno)}>"
        text = super().format(record).translate(_ESCAPES)
        return "\n".join(prefix + line for line in text.split("\n"))


def _priority(level: int) -> int:
    """Return the syslog severity (RFC 5424, section 6.2.1) of a logging level."""
    for threshold, severity in ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)):
        if level >= threshold:
            return severity
    return 7
