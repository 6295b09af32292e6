"""wgd-server: the gateway's commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from wgd.cli import common
from wgd.cli.common import Exit
from wgd.config.server import load_server
from wgd.errors import ConfigError
from wgd.host.files import read_server_sources
from wgd.model import ServerConfig
from wgd.policy.decide import failed_tests

DEFAULT_CONFIG = Path("/etc/wgd/server.yaml")


def load(path: Path) -> ServerConfig:
    """Return the config of a file and its drop-ins; raise ConfigError with every problem, failed policy tests too."""
    config = load_server(read_server_sources(path))
    failed = tuple(failed_tests(config))
    if failed:
        raise ConfigError(failed)
    return config


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = common.parser(
        "wgd-server",
        "A WireGuard gateway with a per-client allowlist and an event log.",
        "  wgd-server check --config /etc/wgd/server.yaml",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text, example in (
        ("run", "run the gateway in the foreground", "wgd-server run --config configs/server.yaml"),
        ("check", "check the config and its policy tests, and print every problem", "wgd-server check && echo fine"),
    ):
        command = common.subcommand(commands, name, text, example)
        command.add_argument(
            "--config",
            metavar="F",
            type=Path,
            default=DEFAULT_CONFIG,
            help="config file; the files of its .d folder are read too (default: %(default)s)",
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = arguments().parse_args(argv)
    if options.command == "check":
        return common.check(lambda: load(options.config))
    return run(options.config)


def run(path: Path) -> Exit:
    """Run the gateway until it is told to stop."""
    # Only here: what a daemon needs takes several times longer to import than `check` to run.
    from wgd.daemon.server import Server  # noqa: PLC0415 - see above

    return common.run(lambda: Server(lambda: load(path)))


if __name__ == "__main__":
    sys.exit(main())
