"""The commands of wgd-server that ask the running daemon, over its control socket."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wgd.cli import shown
from wgd.cli.call import RELOAD_SECONDS, SECONDS, Daemon, call, is_told_already, show_status
from wgd.cli.common import Exit
from wgd.daemon.log import wants_colour


def server(path: Path) -> Daemon:
    """Return the gateway that listens at `path`."""
    return Daemon("wgd-server", "io.wgd.Server", path)


def status(path: Path, *, as_json: bool) -> Exit:
    """Show the gateway's state."""
    return show_status(server(path), shown.status, as_json=as_json)


def plan(path: Path) -> Exit:
    """Show what a reload would change."""

    def show(answer: Mapping[str, Any]) -> Exit:
        sys.stdout.write(shown.plan(answer["changes"], colour=wants_colour(sys.stdout)))
        return Exit.DONE

    return call(server(path), "Plan", {}, SECONDS, show)


def reload(path: Path, seconds: int | None) -> Exit:
    """Reload, and say what came of it."""

    def show(_: Mapping[str, Any]) -> Exit:
        if seconds is None and not is_told_already():
            sys.stdout.write("reloaded\n")
        elif seconds is not None:
            sys.stdout.write(f"reloaded; it goes back in {seconds} seconds unless you run: wgd-server confirm\n")
        return Exit.DONE

    return call(server(path), "Reload", {} if seconds is None else {"confirm": seconds}, RELOAD_SECONDS, show)


def confirm(path: Path) -> Exit:
    """Keep the config that was to be confirmed."""

    def show(_: Mapping[str, Any]) -> Exit:
        sys.stdout.write("confirmed\n")
        return Exit.DONE

    return call(server(path), "Confirm", {}, SECONDS, show)


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

    return call(server(path), "Explain", asked, SECONDS, show)
