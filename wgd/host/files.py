"""Files of the host: configs, keys, and the note of what start found.

A key that others can read is refused, not used with a warning: its owner would never learn that it leaked.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from wgd.config.server import SourceFile
from wgd.errors import HostError
from wgd.model import SecretKey, key_bytes

MAX_CONFIG_BYTES = 64 << 20
MAX_KEY_BYTES = 256


def read_source(path: Path, name: str | None = None) -> SourceFile:
    """Return a config file's bytes under the name that events use; raise HostError when it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise HostError(str(path), f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_CONFIG_BYTES:
        raise HostError(str(path), f"is larger than {MAX_CONFIG_BYTES >> 20} MiB; that is no config file")
    return SourceFile(str(path), name or path.name, content)


def read_server_sources(path: Path) -> tuple[SourceFile, ...]:
    """Return the main file and its drop-ins: for DIR/server.yaml DIR/server.d/*.yaml, in order of their names."""
    if not path.name:
        raise HostError(str(path), "is a folder; name the config file in it")
    folder = path.with_suffix(".d")
    try:
        found = sorted(entry for entry in folder.iterdir() if entry.suffix == ".yaml" and entry.name[0] != ".")
    except FileNotFoundError:
        found = []
    except OSError as error:
        raise HostError(str(folder), f"cannot be read: {error.strerror}") from error
    return (read_source(path), *(read_source(entry, f"{folder.name}/{entry.name}") for entry in found))


def read_key(path: Path) -> SecretKey:
    """Return the key in a file as `wg genkey` writes it.

    Raise HostError when it cannot be read, holds no key, or is open to more than its owner and the daemon's own group.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            _refuse_exposed(path, status)
            content = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise HostError(str(path), f"key file cannot be read: {error.strerror}") from error
    try:
        return SecretKey(key_bytes(content.decode("ascii", "replace").strip()))
    except ValueError as error:
        raise HostError(str(path), f"holds no WireGuard key: its content {error}; make one with wg genkey") from None


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting for a writer, should it be a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _refuse_exposed(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise HostError(str(path), "is not a regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise HostError(str(path), f"belongs to user {status.st_uid}; chown it to root")
    if status.st_mode & stat.S_IRWXO:
        raise HostError(str(path), "can be read or written by everybody; chmod 0640 it, or 0600, and make a new key")
    if status.st_mode & stat.S_IRWXG and status.st_gid not in (0, os.getegid()):
        raise HostError(
            str(path), f"is open to group {status.st_gid}, which is not the daemon's own; chgrp or chmod 0600"
        )


def private_key_path(configured: str | None) -> Path:
    """Return where the private key is: the configured file, else the credential of the unit (systemd.exec(5))."""
    if configured is not None:
        return Path(configured)
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory is None:
        raise HostError(
            "interface.private_key_file",
            "is missing, and $CREDENTIALS_DIRECTORY is not set: name a key file,"
            " or give the unit LoadCredential=private.key:FILE",
        )
    return Path(directory, "private.key")


class Note:
    """A small JSON file under /run in which a daemon writes down what it found before it changed it.

    It outlives a killed daemon, so that the next one still knows what to put back, and not a reboot.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any] | None:
        """Return what was written, or None when there is nothing."""
        try:
            content = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise HostError(str(self.path), f"cannot be read: {error}; delete it if its daemon is gone") from error
        if not isinstance(content, dict):
            raise HostError(str(self.path), "is not ours; delete it")
        return content

    def write(self, content: dict[str, Any]) -> None:
        """Replace the content, whole or not at all."""
        try:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(content, file)
                Path(temporary).replace(self.path)
            finally:
                Path(temporary).unlink(missing_ok=True)
        except OSError as error:
            raise HostError(str(self.path), f"cannot be written: {error.strerror}") from error

    def delete(self) -> None:
        """Delete the file; nothing happens when there is none."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise HostError(str(self.path), f"cannot be deleted: {error.strerror}") from error
