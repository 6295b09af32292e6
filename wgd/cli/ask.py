"""The commands that ask the running daemon, over its control socket."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wgd.cli import shown
from wgd.cli.common import Exit
from wgd.daemon.log import wants_colour
from wgd.errors import HostError
from wgd.host.control import ask
from wgd.host.varlink import SERVICE, VarlinkError

INTERFACE = "io.wgd.Server"
SECONDS = 30.0
RELOAD_SECONDS = 600.0
"""A reload of many thousand clients takes seconds; the caller gives up only when something is wrong."""


def status(path: Path, *, as_json: bool) -> Exit:
    """Show the gateway's state."""

    def show(answer: Mapping[str, Any]) -> Exit:
        found = answer["status"]
        text = json.dumps(found, indent=2) + "\n" if as_json else shown.status(found, colour=wants_colour(sys.stdout))
        sys.stdout.write(text)
        return Exit.DONE

    return _asked(path, "Status", {}, SECONDS, show)


def plan(path: Path) -> Exit:
    """Show what a reload would change."""

    def show(answer: Mapping[str, Any]) -> Exit:
        sys.stdout.write(shown.plan(answer["changes"], colour=wants_colour(sys.stdout)))
        return Exit.DONE

    return _asked(path, "Plan", {}, SECONDS, show)


def reload(path: Path, seconds: int | None) -> Exit:
    """Reload, and say what came of it."""

    def show(_: Mapping[str, Any]) -> Exit:
        if seconds is None:
            sys.stdout.write("reloaded\n")
        else:
            sys.stdout.write(f"reloaded; it goes back in {seconds} seconds unless you run: wgd-server confirm\n")
        return Exit.DONE

    return _asked(path, "Reload", {} if seconds is None else {"confirm": seconds}, RELOAD_SECONDS, show)


def confirm(path: Path) -> Exit:
    """Keep the config that was to be confirmed."""

    def show(_: Mapping[str, Any]) -> Exit:
        sys.stdout.write("confirmed\n")
        return Exit.DONE

    return _asked(path, "Confirm", {}, SECONDS, show)


def explain(path: Path, asked: Mapping[str, Any], *, as_json: bool) -> Exit:
    """Show whether a client may reach something; `asked` are the parameters of Explain."""

    def show(answer: Mapping[str, Any]) -> Exit:
        found = answer["explanation"]
        if as_json:
            sys.stdout.write(json.dumps(found, indent=2) + "\n")
        else:
            sys.stdout.write(shown.explanation(found, colour=wants_colour(sys.stdout)))
        if not found["agree"]:
            return Exit.DISAGREE
        return Exit.DONE if found["config"]["verdict"] == "allow" else Exit.NO

    return _asked(path, "Explain", asked, SECONDS, show)


def _asked(
    path: Path, method: str, parameters: Mapping[str, Any], seconds: float, show: Callable[[Mapping[str, Any]], Exit]
) -> Exit:
    """Call a method and show its answer; an error goes to stderr with the exit code that stands for it."""
    try:
        answer = ask(path, f"{INTERFACE}.{method}", parameters, seconds)
    except HostError as error:
        sys.stderr.write(f"{error}\n")
        return Exit.COULD_NOT_ASK
    except VarlinkError as error:
        code, text = _failure(error)
        sys.stderr.write(f"{text}\n")
        return code
    return show(answer)


def _failure(error: VarlinkError) -> tuple[Exit, str]:
    """Return the exit code and the words for an error."""
    parameters = error.parameters
    match error.name:
        case "io.wgd.Server.Refused":
            reasons = "\n".join(map(str, parameters.get("reasons", ())))
            return Exit.NO, f"{reasons}\nrefused: the gateway goes on with what it had"
        case "io.wgd.Server.NothingToConfirm":
            return Exit.NO, "no reload waits to be confirmed"
        case "io.wgd.Server.UnknownClient":
            return Exit.COULD_NOT_ASK, f"no peer has the name or public key {parameters.get('client')}"
        case "io.wgd.Server.Failed":
            return Exit.COULD_NOT_ASK, f"wgd-server cannot tell: {parameters.get('reason')}"
        case _ if error.name == f"{SERVICE}.PermissionDenied":
            return Exit.COULD_NOT_ASK, "only root and the daemon's own user may do this: try it with sudo"
        case _:
            return Exit.COULD_NOT_ASK, f"wgd-server answers {error.name}: is it of another version?"
