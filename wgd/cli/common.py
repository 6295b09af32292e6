"""What the commands share: exit codes, the form of errors, `--version`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from wgd import __version__
from wgd.daemon import log
from wgd.errors import ConfigError, HostError, WgdError


class Daemon(Protocol):
    """A daemon that is ready to run."""

    def run(self) -> None:
        """Serve until told to stop."""


class Exit(IntEnum):
    """The exit codes of every command."""

    DONE = 0
    NO = 1
    USAGE = 2
    DISAGREE = 3
    COULD_NOT_ASK = 4
    CONFIG = 78
    """EX_CONFIG of sysexits.h; the units do not restart on it."""


def parser(program: str, description: str, example: str) -> argparse.ArgumentParser:
    """Return an argument parser whose --help ends with an example."""
    made = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"{program} {__version__}")
    return made


def subcommand(commands: argparse._SubParsersAction, name: str, text: str, example: str) -> argparse.ArgumentParser:  # type: ignore[type-arg] # it is generic in the stubs alone
    """Add a subcommand whose --help ends with an example."""
    added: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return added


def check(load: Callable[[], object]) -> Exit:
    """Load a config and print every problem; return what `check` exits with."""
    try:
        load()
    except ConfigError as error:
        sys.stdout.write(f"{error}\n")
        return Exit.NO
    except HostError as error:
        sys.stderr.write(f"{error}\n")
        return Exit.COULD_NOT_ASK
    return Exit.DONE


def run(make: Callable[[], Daemon]) -> Exit:
    """Run the daemon that `make` prepares, in the foreground.

    A config or key file that cannot be used ends it with 78 before anything is touched.
    """
    log.set_up()
    try:
        daemon = make()
    except (ConfigError, HostError) as error:
        say(error)
        return Exit.CONFIG
    except WgdError as error:
        say(error)
        return Exit.NO
    try:
        daemon.run()
    except WgdError as error:
        say(error)
        return Exit.NO
    return Exit.DONE


def down(take_down: Callable[[], None]) -> Exit:
    """Take down what a run with --leave-up has left."""
    log.set_up()
    try:
        take_down()
    except WgdError as error:
        say(error)
        return Exit.NO
    return Exit.DONE


def add_leave_up(run_parser: argparse.ArgumentParser) -> None:
    """Add the option of `run` that the units use."""
    run_parser.add_argument(
        "--leave-up",
        action="store_true",
        help="leave interface, rules and routes standing at the end, for the next run to go on with; `down` takes"
        " them away",
    )


def say(error: WgdError) -> None:
    """Print an error line by line, as `check` does; the journal gets each with its priority."""
    if log.is_journal(sys.stderr):
        for line in str(error).splitlines():
            logging.getLogger(__name__).error("%s", line)
    else:
        sys.stderr.write(f"{error}\n")
