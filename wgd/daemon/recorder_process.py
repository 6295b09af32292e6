"""One running recorder as the daemon sees it: a child process and the socket to it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import wgd
from wgd.daemon.sources import Handed

MAX_ANSWER_BYTES = 1 << 16
SEND_BUFFER_BYTES = 1 << 20


NO_BYTECODE = ("-B",) if sys.dont_write_bytecode else ()
"""What $PYTHONDONTWRITEBYTECODE says; the recorder has no environment."""

ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(16 << 20), "MALLOC_TRIM_THRESHOLD_": str(16 << 20)}
"""mallopt(3): the lines of one datagram are more than 128 KiB, which malloc would else ask the kernel for and give back
each time; the page faults alone cost 0.2 us an event, a quarter of what it costs in all."""


class NoAnswerError(Exception):
    """The recorder is gone, or does not take or answer requests; `str()` says how it went."""


class RecorderProcess:
    """Starts `wgd.daemon.recorder` with the tally and what it shall read; raise OSError when no process can be made.

    It can open files in `directory` alone.
    """

    def __init__(self, directory: Path, tally: int, handed: Sequence[Handed]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = [
            str(directory),
            str(theirs.fileno()),
            str(tally),
            *(f"{kind}:{each.fileno()}" for kind, each in handed),
        ]
        try:
            self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            self._process = subprocess.Popen(
                [sys.executable, *NO_BYTECODE, "-s", "-m", "wgd.daemon.recorder", *words],
                pass_fds=[theirs.fileno(), tally, *(each.fileno() for _, each in handed)],
                stdin=subprocess.DEVNULL,
                # Nothing of the daemon's environment: it names credentials and the service manager's socket.
                env=ENVIRONMENT,
                # Where python -m finds this very package, also from a checkout.
                cwd=Path(wgd.__file__).parent.parent,
            )
        except OSError:
            self._control.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        self._directory = directory
        self._restricted_to = _identity(directory)

    def fileno(self) -> int:
        """Return what can be read when `receive` has something to say."""
        return self._control.fileno()

    def send(self, request: dict[str, Any], descriptor: int | None = None) -> None:
        """Send a request, with a descriptor, without waiting; raise NoAnswerError when it is not taken."""
        message = json.dumps(request).encode()
        descriptors = [] if descriptor is None else [descriptor]
        try:
            socket.send_fds(self._control, [message], descriptors, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            raise NoAnswerError("it takes no requests") from None
        except OSError:
            raise NoAnswerError(self._how_it_ended()) from None

    def receive(self, until: float = 0.0) -> Iterator[dict[str, Any]]:
        """Yield its messages until there are no more at `until`, on the monotonic clock."""
        while True:
            self._control.settimeout(max(0.0, until - time.monotonic()))
            try:
                message = self._control.recv(MAX_ANSWER_BYTES)
            except (BlockingIOError, TimeoutError):
                return
            except OSError:
                message = b""
            if not message:
                raise NoAnswerError(self._how_it_ended())
            yield json.loads(message)

    def is_shut_out(self) -> bool:
        """Tell whether its directory is another one now, which Landlock lets it not open: it knows them by inode."""
        return _identity(self._directory) != self._restricted_to

    def end(self, seconds: float) -> bool:
        """End it by closing its socket, kill it after `seconds`; True when it went by itself."""
        self._control.close()
        try:
            return self._process.wait(seconds) == os.EX_OK
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "it closed its socket"
        return f"it was killed by signal {-status}" if status < 0 else f"it ended with status {status}"


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        found = directory.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
