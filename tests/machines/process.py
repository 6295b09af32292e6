"""Processes of the tests that must not outlive them, whatever ends the tests."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

BOUND = ("setpriv", "--pdeathsig", "KILL", "--")
"""In front of a command: it dies with whoever started it."""


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill a process when the block ends, and close what is read of it."""
    try:
        yield
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
