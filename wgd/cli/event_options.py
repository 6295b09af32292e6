"""What `wgd-server events` takes on its command line, and the Filter that it asks for."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from wgd.cli.moments import moment
from wgd.config.addresses import network
from wgd.config.schema import RefusedError
from wgd.config.values import ports
from wgd.events.entry import Filter

EVENTS = ("open", "close", "deny", "packet", "started", "stopped", "reloaded", "drift", "lost")
VERDICTS = ("allow", "deny", "would_deny")
FEW = 10
"""How many lines -n shows without a number, and -f before it follows."""
ALL = -1
STANDARD_INPUT = Path("-")
_TIME_OPTIONS = ("--since", "--until")


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `events`, but for --config."""
    command.add_argument("-f", "--follow", action="store_true", help="go on with the lines that come, over rotations")
    command.add_argument(
        "-n",
        "--lines",
        metavar="N",
        nargs="?",
        type=number_of_lines,
        const=FEW,
        help=f"the last N lines of those wanted, {FEW} without N, or all (default: all; with -f alone {FEW})",
    )
    values: tuple[tuple[str, str, Callable[[str], Any], str], ...] = (
        ("--client", "CLIENT", str, "only of this client, by name or public key"),
        ("--to", "NETWORK", taken_by(network), "only to this address or network, IPv4 or IPv6"),
        ("--port", "PORT", taken_by(ports), "only to this port, or range of ports such as 8000-8999"),
    )
    for name, metavar, kind, text in values:
        command.add_argument(name, metavar=metavar, type=kind, action="append", default=[], help=text)
    for name, choices, text in (("--event", EVENTS, "of this kind"), ("--verdict", VERDICTS, "with this verdict")):
        command.add_argument(
            name,
            metavar=name[2:].upper(),
            choices=choices,
            action="append",
            default=[],
            help=f"only events {text}: {', '.join(choices)}",
        )
    now = datetime.now().astimezone()
    for name, text in (("--since", "only from this time on"), ("--until", "only up to this time")):
        command.add_argument(
            name,
            metavar="TIME",
            type=taken_by(lambda value: moment(value, now)),
            help=f"{text}: RFC 3339, a date, a time of day, today, yesterday, -1h, '30min ago'",
        )
    command.add_argument("--json", action="store_true", help="print the lines as they stand in the log")
    command.add_argument("--utc", action="store_true", help="print times in UTC, not in the host's time zone")
    command.add_argument(
        "--log",
        metavar="F",
        type=Path,
        help="the log to read, with what it was rotated to, or - for standard input (default: as the config says)",
    )


def filter_of(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Filter:
    """Return the filter that the options ask for; options that contradict each other are wrong usage."""
    if options.since is not None and options.until is not None and options.since > options.until:
        parser.error("--since must be before --until")
    if options.follow and options.log == STANDARD_INPUT:
        parser.error("--follow needs a file: name it with --log")
    return Filter(
        clients=frozenset(options.client),
        events=frozenset(options.event),
        verdicts=frozenset(options.verdict),
        networks=tuple(options.to),
        ports=tuple(options.port),
        since=options.since,
        until=options.until,
    )


def lines_wanted(options: argparse.Namespace) -> int | None:
    """Return how many of the last lines are to be shown; None for all."""
    if options.lines is None:
        return FEW if options.follow and options.since is None else None
    return None if options.lines == ALL else int(options.lines)


def number_of_lines(text: str) -> int:
    """Return the number that `text` is."""
    if text == "all":
        return ALL
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError("must be a number of lines, or all")
    return int(text)


def taken_by(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a type of argparse that takes what `parse` takes, and refuses in its words."""

    def taken(text: str) -> Any:
        try:
            return parse(text)
        except RefusedError as error:
            raise argparse.ArgumentTypeError(str(error.msg)) from None
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return taken


def joined(words: Sequence[str]) -> list[str]:
    """Return a command line with `--since -1h` as one word: argparse would take -1h for an option."""
    found: list[str] = []
    for word in words:
        if found and found[-1] in _TIME_OPTIONS and re.match("-[0-9]", word):
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found
