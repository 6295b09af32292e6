"""`wgd-server events`: the event log, filtered and followed, for people or as it stands."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from datetime import UTC
from pathlib import Path

from wgd.cli.common import Exit
from wgd.cli.event_options import STANDARD_INPUT, filter_of, lines_wanted
from wgd.cli.event_table import EventTable
from wgd.config.fragment import read_fragment
from wgd.daemon.log import wants_colour
from wgd.errors import ConfigError, HostError
from wgd.events.sieve import Sieve
from wgd.host.files import read_server_sources
from wgd.host.log_follow import Follower
from wgd.host.log_parts import LogPart, open_parts, whole_lines
from wgd.model import Logging

POLL_SECONDS = 0.2
"""How often a log is looked at that is followed."""

Show = Callable[[list[bytes]], None]


def run(parser: argparse.ArgumentParser, options: argparse.Namespace, default_config: Path) -> Exit:
    """Show what the options ask for; `default_config` is the config file whose place nobody chose."""
    # Whoever reads us through head, or presses Ctrl-C, wants no traceback.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sieve = Sieve(filter_of(parser, options))
    show = as_it_stands if options.json else for_people(utc=options.utc)
    try:
        if options.log == STANDARD_INPUT:
            _show_stream(sieve, lines_wanted(options), show)
        else:
            path = options.log or configured_log(options.config, default_config)
            _show_log(path, sieve, lines_wanted(options), show, follows=options.follow)
        _tell_losses(sieve)
    except (ConfigError, HostError) as error:
        sys.stdout.flush()
        sys.stderr.write(f"{error}\n")
        return Exit.COULD_NOT_ASK
    return Exit.DONE


def configured_log(config: Path, default_config: Path) -> Path:
    """Return where the log is. Whoever may read the log need not be allowed to read the config: then the usual place.

    Other mistakes in the config do not matter here. Raise ConfigError or HostError where the place cannot be known.
    """
    try:
        sources = read_server_sources(config)
    except HostError as error:
        if config != default_config:
            raise
        sys.stderr.write(f"{error}; reading {Logging().path} (--log names another file)\n")
        return Path(Logging().path)
    fragments = [read_fragment(source) for source in sources]
    if not all(fragment.complete for fragment in fragments):
        raise ConfigError(problem for fragment in fragments for problem in fragment.problems)
    named = [fragment.settings["logging", "path"] for fragment in fragments if ("logging", "path") in fragment.settings]
    return Path(named[0] if named else Logging().path)


def as_it_stands(lines: list[bytes]) -> None:
    """Print lines byte for byte; on a terminal what would be obeyed there is escaped as JSON does it."""
    text = b"".join(b"%b\n" % line for line in lines)
    if sys.stdout.isatty():
        text = "".join(map(_harmless, text.decode(errors="replace"))).encode()
    sys.stdout.buffer.write(text)


def _harmless(character: str) -> str:
    return character if character.isprintable() or character == "\n" else json.dumps(character)[1:-1]


def for_people(*, utc: bool) -> Show:
    """Return what prints lines in columns, in the reader's time zone or UTC."""
    is_terminal = sys.stdout.isatty()
    table = EventTable(lambda moment: moment.astimezone(UTC if utc else None), colour=wants_colour(sys.stdout))

    def show(lines: list[bytes]) -> None:
        width = shutil.get_terminal_size().columns if is_terminal else None
        sys.stdout.buffer.write(table.render(lines, width).encode())

    return show


def _show_stream(sieve: Sieve, count: int | None, show: Show) -> None:
    batches = (text.split(b"\n") for text in whole_lines(sys.stdin.buffer.read))
    if count is None:
        _show_all(batches, sieve, show)
    else:
        show(list(deque((line for lines in batches for line in sieve.hits(lines)), maxlen=count)))


def _show_log(path: Path, sieve: Sieve, count: int | None, show: Show, *, follows: bool) -> None:
    with ExitStack() as opened:
        try:
            parts = open_parts(path)
        except HostError as error:
            if not (follows and isinstance(error.__cause__, FileNotFoundError)):
                raise
            parts = []
        for part in parts:
            opened.callback(part.close)
        # Followed, a line that has no end yet is shown when it has.
        if count is None:
            _show_all((lines for part in parts for lines in part.batches(unfinished=not follows)), sieve, show)
        else:
            show(last_lines(parts, sieve, count, unfinished=not follows))
        if follows:
            newest = next((part for part in reversed(parts) if part.head), None)
            with closing(Follower(path, newest)) as follower:
                _follow(follower, sieve, show)


def _show_all(batches: Iterable[list[bytes]], sieve: Sieve, show: Show) -> None:
    for lines in batches:
        found = sieve.hits(lines)
        if found:
            show(found)


def last_lines(parts: list[LogPart], sieve: Sieve, count: int, *, unfinished: bool) -> list[bytes]:
    """Return the last `count` wanted lines; read from the end, as far as needed. The last part is read to its end."""
    found: list[bytes] = []
    for part in reversed(parts):
        for lines in part.batches_backwards(unfinished=unfinished):
            found = sieve.hits(lines) + found
            if len(found) >= count:
                return found[len(found) - count :]
    return found


def _follow(follower: Follower, sieve: Sieve, show: Show) -> None:
    while True:
        _show_all(follower.new(), sieve, show)
        _tell_losses(sieve)
        if follower.missed:
            follower.missed = False
            sys.stderr.write("the log was emptied, and no copy of it is there: lines may be missing here\n")
        time.sleep(POLL_SECONDS)


def _tell_losses(sieve: Sieve) -> None:
    """Say after what was shown that there may have been more: a filter must not hide that the log is incomplete."""
    sys.stdout.flush()
    if sieve.lost:
        sys.stderr.write(
            f"{sieve.lost} events are missing in this log, perhaps some of these (--event lost shows where)\n"
        )
        sieve.lost = 0
