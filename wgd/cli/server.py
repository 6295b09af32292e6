"""wgd-server: the gateway's commands."""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from wgd.cli import ask, common, event_options, events
from wgd.cli.common import Exit
from wgd.config.drafts import Fragment
from wgd.config.server import SourceFile, join, read_fragment
from wgd.errors import ConfigError
from wgd.host.control import CONTROL_SOCKET
from wgd.host.files import read_server_sources
from wgd.model import PORT_PROTOCOLS, PROTOCOLS, ServerConfig
from wgd.policy.decide import ended_rules, failed_tests
from wgd.policy.table import problems_of_size

log = logging.getLogger(__name__)

DEFAULT_CONFIG = Path("/etc/wgd/server.yaml")
MAX_CONFIRM_SECONDS = 86400
LAST_PORT, LAST_PROTOCOL = 65535, 255
EVENTS = "show the event log: filtered, followed, in columns or as it stands"
EXPLAIN = "tell whether a client may reach something, by the config and by what the kernel holds, and by which rule"


class Loader:
    """Reads the config of a file and its drop-ins whenever it is called; a file that is as it was is not parsed again.

    Raises ConfigError with every problem, failed policy tests too. Rules that have ended are told as warnings.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fragments: dict[SourceFile, Fragment] = {}

    def __call__(self) -> ServerConfig:
        """Return the config as the files are now."""
        known = self._fragments
        # By content, not by date: a date can be set back, and reading takes little beside parsing.
        self._fragments = {
            source: known[source] if source in known else read_fragment(source)
            for source in read_server_sources(self._path)
        }
        return checked(join(list(self._fragments.values())))


def load(path: Path) -> ServerConfig:
    """Return the config of a file and its drop-ins, as `Loader` does."""
    return Loader(path)()


def checked(config: ServerConfig) -> ServerConfig:
    """Return `config` if it passes its policy tests and can be loaded, else raise ConfigError; warn of ended rules."""
    failed = (*failed_tests(config), *problems_of_size(config))
    if failed:
        raise ConfigError(failed)
    for problem in ended_rules(config, time.time()):
        log.warning("%s", problem)
    return config


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = common.parser(
        "wgd-server",
        "A WireGuard gateway with a per-client allowlist and an event log.",
        "  wgd-server check --config /etc/wgd/server.yaml",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    reading = {
        name: common.subcommand(commands, name, text, example)
        for name, text, example in (
            ("run", "run the gateway in the foreground", "wgd-server run --config configs/server.yaml"),
            ("check", "check the config and its policy tests, and print every problem", "wgd-server check"),
            ("down", "take down what a `run --leave-up` has left standing", "wgd-server down"),
            ("events", EVENTS, "wgd-server events -f --client alice --verdict deny"),
        )
    }
    for command in reading.values():
        command.add_argument(
            "--config",
            metavar="F",
            type=Path,
            default=DEFAULT_CONFIG,
            help="config file; the files of its .d folder are read too (default: %(default)s)",
        )
    common.add_leave_up(reading["run"])
    event_options.add_options(reading["events"])
    asking = {
        name: common.subcommand(commands, name, text, example)
        for name, text, example in (
            ("status", "show interface, peers, policy, counters, losses and drift", "wgd-server status --json"),
            ("plan", "show what a reload would change, and change nothing", "wgd-server plan"),
            ("reload", "reload the config: all of it, or nothing with the reasons", "wgd-server reload --confirm 60"),
            ("confirm", "keep the config of `reload --confirm`", "wgd-server confirm"),
            ("explain", EXPLAIN, "wgd-server explain alice 10.20.0.10 --proto tcp --port 443"),
        )
    }
    for command in asking.values():
        command.add_argument(
            "--socket",
            metavar="F",
            type=Path,
            default=CONTROL_SOCKET,
            help="the daemon's control socket (default: %(default)s)",
        )
    for name in ("status", "explain"):
        asking[name].add_argument("--json", action="store_true", help="print it as JSON")
    explain = asking["explain"]
    explain.add_argument("client", metavar="CLIENT", help="name or public key of a peer")
    other = explain.add_mutually_exclusive_group(required=True)
    other.add_argument("destination", metavar="DEST", type=address, nargs="?", help="address, IPv4 or IPv6")
    other.add_argument("--from", dest="source", metavar="ADDRESS", type=address, help="who begins it, towards CLIENT")
    explain.add_argument(
        "--proto",
        metavar="P",
        type=protocol,
        help="protocol, by name or number (default: tcp with --port, else every protocol)",
    )
    explain.add_argument("--port", metavar="N", type=port, help="destination port (default: every port)")
    asking["reload"].add_argument(
        "--confirm",
        metavar="SECONDS",
        type=confirm_seconds,
        help="go back by itself unless `wgd-server confirm` is called in time. Another reload meanwhile does not"
        " confirm it, and sets the time anew only if it has --confirm too; what is gone back to is the last config"
        " that needed no confirmation. The files stay as they are: a restart takes them",
    )
    return parser


def address(text: str) -> str:
    """Return `text` if it is an address."""
    try:
        ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be an IPv4 or IPv6 address") from None
    return text


def protocol(text: str) -> str:
    """Return `text` if it names a protocol."""
    if text not in PROTOCOLS and not (re.fullmatch("[0-9]{1,3}", text) and int(text) <= LAST_PROTOCOL):
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(PROTOCOLS)}, or a number up to {LAST_PROTOCOL}")
    return text


def port(text: str) -> int:
    """Return the number that `text` is."""
    if not re.fullmatch("[1-9][0-9]{0,4}", text) or int(text) > LAST_PORT:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {LAST_PORT}")
    return int(text)


def explained(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Exit:
    """Ask about a client and a destination; a port that the protocol does not have is wrong usage."""
    proto = options.proto or ("tcp" if options.port is not None else None)
    number = PROTOCOLS.get(proto) or int(proto) if proto is not None else None
    if options.port is not None and number not in PORT_PROTOCOLS:
        parser.error(f"--port: {proto} has no ports")
    asked = {
        "client": options.client,
        "destination": options.source or options.destination,
        "protocol": proto,
        "port": options.port,
        "incoming": True if options.source else None,
    }
    return ask.explain(
        options.socket, {name: value for name, value in asked.items() if value is not None}, as_json=options.json
    )


def confirm_seconds(text: str) -> int:
    """Return the number that `text` is; raise ArgumentTypeError when it is no time in which to confirm."""
    if not re.fullmatch("[1-9][0-9]{0,4}", text) or int(text) > MAX_CONFIRM_SECONDS:
        raise argparse.ArgumentTypeError(f"must be a whole number of seconds from 1 to {MAX_CONFIRM_SECONDS}")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = arguments()
    options = parser.parse_args(event_options.joined(sys.argv[1:] if argv is None else argv))
    match options.command:
        case "check":
            return common.check(lambda: load(options.config))
        case "events":
            return events.run(parser, options, DEFAULT_CONFIG)
        case "run":
            return run(options.config, leave_up=options.leave_up)
        case "down":
            return down(options.config)
        case _:
            return asked(parser, options)


def asked(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Exit:
    """Run a command that asks the running daemon."""
    match options.command:
        case "status":
            return ask.status(options.socket, as_json=options.json)
        case "plan":
            return ask.plan(options.socket)
        case "explain":
            return explained(parser, options)
        case "reload":
            return ask.reload(options.socket, options.confirm)
        case _:
            return ask.confirm(options.socket)


def run(path: Path, *, leave_up: bool) -> Exit:
    """Run the gateway until it is told to stop."""
    # Only here: what a daemon needs takes several times longer to import than `check` to run.
    from wgd.daemon.server import Server  # noqa: PLC0415 - see above

    return common.run(lambda: Server(Loader(path), leave_up=leave_up))


def down(path: Path) -> Exit:
    """Take down what an ended daemon has left standing."""
    from wgd.daemon.server import take_down  # noqa: PLC0415 - as in run

    return common.down(lambda: take_down(Loader(path)))


if __name__ == "__main__":
    sys.exit(main())
