"""What start found before it changed anything, kept under /run so that stop can put it back.

A daemon that was killed leaves the note behind; the next one reads it and still knows what was the host's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from wgd.errors import HostError
from wgd.host.files import Note
from wgd.plan.state import Device, Link


@dataclass(frozen=True)
class Found:
    """The interface as start found it. `created` means that there was none.

    `index` is the kernel's number of it: an interface of the same name with another number is another interface.
    `had_key` and `listen_port` are of a WireGuard device that was there before; `addresses` are those that wgd added
    since, `settings` the sysctls that it changed, with the values they had.
    """

    interface: str
    created: bool
    index: int = 0
    up: bool = False
    mtu: int = 0
    had_key: bool = False
    listen_port: int = 0
    addresses: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(link: Link, device: Device) -> Found:
        """Return the note of an interface that was there before."""
        return Found(
            link.name, created=False, index=link.index, up=link.up, mtu=link.mtu,
            had_key=device.private_key is not None, listen_port=device.listen_port or 0,
        )  # fmt: skip


class Memory:
    """The note of `Found`, read once and written whenever it changes, before the change it speaks of."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self.found: Found | None = _parse(note)

    def begin(self, found: Found) -> None:
        """Write down what start found."""
        self._write(found)

    def change(self, **fields: Any) -> None:
        """Replace fields of what is written."""
        if self.found is None:
            raise HostError(str(self._note.path), "nothing was noted at start")
        changed = replace(self.found, **fields)
        if changed != self.found:
            self._write(changed)

    def forget(self) -> None:
        """Delete the note: all is as it was."""
        self.found = None
        self._note.delete()

    def _write(self, found: Found) -> None:
        self._note.write(asdict(found))
        self.found = found


def _parse(note: Note) -> Found | None:
    content = note.read()
    if content is None:
        return None
    try:
        return Found(**{**content, "addresses": tuple(content["addresses"])})
    except (TypeError, KeyError) as error:
        raise HostError(str(note.path), "was written by another version; delete it and restart") from error
