"""The commands as a person starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]


def environment(**more: str) -> dict[str, str]:
    """Return the tests' environment as nobody's service, with the checkout's package on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NOTIFY", "JOURNAL"))}
    return {**kept, "PYTHONPATH": str(CHECKOUT), **more}


def command_line(program: str, *arguments: str) -> list[str]:
    """Return what runs `wgd-PROGRAM ARGUMENTS` from a checkout."""
    return [sys.executable, "-m", f"wgd.cli.{program}", *arguments]


def run(*words: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, from another folder."""
    return subprocess.run(
        command_line(*words),
        capture_output=True, text=True, timeout=60, check=False, cwd="/", input=stdin, env=environment(**variables),
    )  # fmt: skip
