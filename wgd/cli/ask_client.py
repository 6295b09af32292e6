"""The commands of wgd-client that ask a running daemon, over its control socket."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from wgd.cli import shown_client
from wgd.cli.call import RELOAD_SECONDS, SECONDS, Daemon, call, is_told_already, show_status
from wgd.cli.common import Exit
from wgd.daemon.log import wants_colour
from wgd.errors import HostError
from wgd.host.control import client_control_socket, running_clients


def client(name: str) -> Daemon:
    """Return the daemon of a connection."""
    return Daemon(f"wgd-client@{name}", "io.wgd.Client", client_control_socket(name))


def status(name: str, *, as_json: bool) -> Exit:
    """Show the state of a connection."""
    return show_status(client(name), shown_client.status, as_json=as_json)


def status_of_all(*, as_json: bool) -> Exit:
    """Show the state of every connection that runs; one that does not answer is told and the others are shown."""
    found: list[Mapping[str, Any]] = []

    def take(answer: Mapping[str, Any]) -> Exit:
        found.append(answer["status"])
        return Exit.DONE

    try:
        names = running_clients()
    except HostError as error:
        sys.stderr.write(f"{error}\n")
        return Exit.COULD_NOT_ASK
    if not names:
        sys.stderr.write("no wgd-client runs here: systemctl start wgd-client@NAME\n")
        return Exit.COULD_NOT_ASK
    codes = [call(client(name), "Status", {}, SECONDS, take) for name in names]
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(shown_client.status(each, colour=wants_colour(sys.stdout)) for each in found))
    return max(codes)


def reload(name: str) -> Exit:
    """Reload, and say what came of it."""

    def show(_: Mapping[str, Any]) -> Exit:
        if not is_told_already():
            sys.stdout.write("reloaded\n")
        return Exit.DONE

    return call(client(name), "Reload", {}, RELOAD_SECONDS, show)
