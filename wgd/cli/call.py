"""One call to a running daemon, and the exit code and words for what comes of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from wgd.cli.common import Exit
from wgd.daemon.log import is_journal, wants_colour
from wgd.errors import HostError
from wgd.host.control import ask
from wgd.host.varlink import SERVICE, VarlinkError

SECONDS = 30.0
RELOAD_SECONDS = 600.0
"""A reload of many thousand clients takes seconds; the caller gives up only when something is wrong."""


class Daemon(NamedTuple):
    """Whom to call: its unit, the interface that it speaks, and where it listens."""

    unit: str
    interface: str
    path: Path


def call(
    daemon: Daemon,
    method: str,
    parameters: Mapping[str, Any],
    seconds: float,
    show: Callable[[Mapping[str, Any]], Exit],
) -> Exit:
    """Call a method and show its answer; an error goes to stderr with the exit code that stands for it."""
    try:
        answer = ask(daemon.path, daemon.unit, f"{daemon.interface}.{method}", parameters, seconds)
    except HostError as error:
        sys.stderr.write(f"{error}\n")
        return Exit.COULD_NOT_ASK
    except VarlinkError as error:
        code, text = _failure(daemon, error)
        if error.name != f"{daemon.interface}.Refused" or not is_told_already():
            sys.stderr.write(f"{text}\n")
        return code
    return show(answer)


def is_told_already() -> bool:
    """Return whether what the daemon logs is before the caller's eyes: in a unit's ExecReload both have its journal."""
    return is_journal(sys.stderr)


def show_status(daemon: Daemon, render: Callable[..., str], *, as_json: bool) -> Exit:
    """Call Status and print what it answers: as JSON, or as `render(found, colour=…)` makes it."""

    def show(answer: Mapping[str, Any]) -> Exit:
        found = answer["status"]
        text = json.dumps(found, indent=2) + "\n" if as_json else render(found, colour=wants_colour(sys.stdout))
        sys.stdout.write(text)
        return Exit.DONE

    return call(daemon, "Status", {}, SECONDS, show)


def _failure(daemon: Daemon, error: VarlinkError) -> tuple[Exit, str]:
    """Return the exit code and the words for an error."""
    parameters = error.parameters
    match error.name.removeprefix(f"{daemon.interface}."):
        case "Refused":
            reasons = "\n".join(map(str, parameters.get("reasons", ())))
            return Exit.NO, f"{reasons}\nrefused: {daemon.unit} goes on with what it had"
        case "NothingToConfirm":
            return Exit.NO, "no reload waits to be confirmed"
        case "UnknownClient":
            return Exit.COULD_NOT_ASK, f"no peer has the name or public key {parameters.get('client')}"
        case "Failed":
            return Exit.COULD_NOT_ASK, f"{daemon.unit} cannot tell: {parameters.get('reason')}"
        case _ if error.name == f"{SERVICE}.PermissionDenied":
            return Exit.COULD_NOT_ASK, "only root and the daemon's own user may do this: try it with sudo"
        case _:
            return Exit.COULD_NOT_ASK, f"{daemon.unit} answers {error.name}: is it of another version?"
