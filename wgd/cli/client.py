"""wgd-client: the client's commands."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from wgd.cli import ask_client, common
from wgd.cli.common import Exit
from wgd.config.client import load_client
from wgd.host.files import read_source
from wgd.model import ClientConfig

DIRECTORY = Path("/etc/wgd/client")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def load(name: str, path: Path | None) -> ClientConfig:
    """Return the config of a connection; raise ConfigError with every problem."""
    return load_client(name, read_source(path if path is not None else DIRECTORY / f"{name}.yaml"))


def connection_name(text: str) -> str:
    """Return `text` if it can name a connection; it becomes part of file names."""
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            "a name has up to 63 letters, digits, '.', '_' and '-', and begins with a letter or digit"
        )
    return text


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = common.parser(
        "wgd-client",
        "A WireGuard client that brings up an interface, its server and the routes to what it may reach.",
        "  wgd-client check office",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    made = {
        name: common.subcommand(commands, name, text, example)
        for name, text, example in (
            ("run", "run a connection in the foreground", "wgd-client run office"),
            ("check", "check the config of a connection and print every problem", "wgd-client check office"),
            ("reload", "reload the config: all of it, or nothing with the reasons", "wgd-client reload office"),
            ("down", "take down what a `run --leave-up` has left standing", "wgd-client down office"),
        )
    }
    for command in made.values():
        command.add_argument(
            "name", metavar="NAME", type=connection_name, help="name of the connection, such as office"
        )
    for name in ("run", "check"):
        made[name].add_argument(
            "--config", metavar="F", type=Path, help=f"config file (default: {DIRECTORY}/NAME.yaml)"
        )
    status = common.subcommand(
        commands, "status", "show interface, gateway, handshake and traffic", "wgd-client status office"
    )
    status.add_argument(
        "name", metavar="NAME", nargs="?", type=connection_name, help="name of the connection (default: all that run)"
    )
    status.add_argument("--json", action="store_true", help="print it as JSON: an object for NAME, else a list of them")
    common.add_leave_up(made["run"])
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = arguments().parse_args(argv)
    match options.command:
        case "check":
            return common.check(lambda: load(options.name, options.config))
        case "down":
            return down(options.name)
        case "reload":
            return ask_client.reload(options.name)
        case "status" if options.name is None:
            return ask_client.status_of_all(as_json=options.json)
        case "status":
            return ask_client.status(options.name, as_json=options.json)
        case _:
            return run(options.name, options.config, leave_up=options.leave_up)


def run(name: str, path: Path | None, *, leave_up: bool) -> Exit:
    """Run a connection until it is told to stop."""
    # Only here: what a daemon needs takes several times longer to import than `check` to run.
    from wgd.daemon.client import Client  # noqa: PLC0415 - see above

    return common.run(lambda: Client(name, lambda: load(name, path), leave_up=leave_up))


def down(name: str) -> Exit:
    """Take down what an ended daemon has left standing."""
    from wgd.daemon.client import take_down  # noqa: PLC0415 - as in run

    return common.down(lambda: take_down(name))


if __name__ == "__main__":
    sys.exit(main())
