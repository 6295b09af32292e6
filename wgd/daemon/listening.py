"""A listening Unix socket at a path: it replaces what a killed daemon left behind, and nothing that is alive."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from wgd.errors import ConflictError, HostError

MODE = 0o660
BACKLOG = 128


def listen(path: Path) -> socket.socket:
    """Return a socket that listens at `path`, mode 0660 and not blocking; its folder is made if there is none.

    Raise ConflictError when another daemon listens there, HostError when the path cannot be used.
    """
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        refuse_live(path)
        return _listening(path)
    except OSError as error:
        raise HostError(str(path), f"cannot listen there: {error.strerror}") from error


def refuse_live(path: Path) -> None:
    """Raise ConflictError when a daemon listens at `path`, HostError when something there is no socket."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise HostError(str(path), "is there already and is no socket; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
        except BlockingIOError:
            # Somebody listens whose queue is full.
            pass
    raise ConflictError(str(path), "another daemon already runs and listens there; stop it first")


def _listening(path: Path) -> socket.socket:
    """Bind beside the path and move into place: what can be found there listens, and has its mode."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(str(temporary))
        temporary.chmod(MODE)
        listener.listen(BACKLOG)
        temporary.rename(path)
    except OSError:
        listener.close()
        temporary.unlink(missing_ok=True)
        raise
    return listener
