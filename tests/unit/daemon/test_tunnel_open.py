"""Which interface is taken, and what is noted of it, with doors that are the test's."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from wgd.daemon import tunnel as module
from wgd.daemon.found import Found, Memory
from wgd.daemon.tunnel import Tunnel
from wgd.errors import ConflictError, KernelError
from wgd.host.files import Note
from wgd.model import Backend, Interface, SecretKey
from wgd.plan.state import Device, Link

OURS, THEIRS = SecretKey(b"o" * 32), SecretKey(b"t" * 32)
INTERFACE = Interface("wgd0", (), 51820, "/k", None, Backend.AUTO)
DESIRED = Device("wgd0", OURS, 51820)
LINK = Link(7, "wgd0", "wireguard", 1420, up=True)


@dataclass
class Kernel:
    """The links and the WireGuard device of a host."""

    link: Link | None = None
    device: Device = field(default_factory=lambda: Device("wgd0", None, 0))
    refuses: bool = False
    open_doors: int = 0

    def find(self, name: str) -> Link | None:
        return self.link if name == "wgd0" else None

    def create_wireguard(self, name: str) -> Link:
        if self.refuses:
            raise KernelError(name, "Operation not permitted")
        self.link = LINK
        return LINK

    def read(self, _: str) -> Device:
        return self.device

    def open_wireguard(self, *_: object) -> "Kernel":
        self.open_doors += 1
        return self

    def close(self) -> None:
        self.open_doors -= 1


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(module, "Links", lambda: made)
    monkeypatch.setattr(module, "open_wireguard", made.open_wireguard)
    return made


@pytest.fixture
def note(tmp_path: Path) -> Note:
    return Note(tmp_path / "found.json")


def test_an_interface_that_was_not_there_is_created_and_noted_as_ours(kernel: Kernel, note: Note) -> None:
    Tunnel(note).open(INTERFACE, DESIRED)
    assert kernel.link == LINK
    assert Memory(note).found == Found("wgd0", created=True, index=7)


def test_an_interface_that_cannot_be_created_leaves_no_note(kernel: Kernel, note: Note) -> None:
    kernel.refuses = True
    with pytest.raises(KernelError):
        Tunnel(note).open(INTERFACE, DESIRED)
    assert Memory(note).found is None


def test_one_that_somebody_makes_after_that_is_not_taken_for_ours(kernel: Kernel, note: Note) -> None:
    kernel.refuses = True
    with pytest.raises(KernelError):
        Tunnel(note).open(INTERFACE, DESIRED)
    kernel.link = LINK
    Tunnel(note).open(INTERFACE, DESIRED)
    assert Memory(note).found == Found("wgd0", created=False, index=7, up=True, mtu=1420)


def test_a_repair_that_cannot_create_the_interface_again_keeps_the_note(kernel: Kernel, note: Note) -> None:
    tunnel = Tunnel(note)
    tunnel.open(INTERFACE, DESIRED)
    kernel.link, kernel.refuses = None, True
    with pytest.raises(KernelError):
        tunnel.open(INTERFACE, DESIRED)
    assert Memory(note).found == Found("wgd0", created=True, index=7)


def test_an_interface_with_our_key_is_taken_and_noted_as_it_was(kernel: Kernel, note: Note) -> None:
    kernel.link, kernel.device = LINK, Device("wgd0", OURS, 4711)
    Tunnel(note).open(INTERFACE, DESIRED)
    found = Found("wgd0", created=False, index=7, up=True, mtu=1420, had_key=True, listen_port=4711)
    assert Memory(note).found == found


def test_an_interface_with_another_key_is_somebody_elses(kernel: Kernel, note: Note) -> None:
    kernel.link, kernel.device = LINK, Device("wgd0", THEIRS, 51820)
    with pytest.raises(ConflictError, match="somebody else's tunnel"):
        Tunnel(note).open(INTERFACE, DESIRED)
    assert Memory(note).found is None


def test_opening_again_and_again_holds_one_door(kernel: Kernel, note: Note) -> None:
    tunnel = Tunnel(note)
    for _ in range(3):
        tunnel.open(INTERFACE, DESIRED)
    assert kernel.open_doors == 1


def test_one_that_somebody_made_anew_after_a_crash_is_somebody_elses(kernel: Kernel, note: Note) -> None:
    Tunnel(note).open(INTERFACE, DESIRED)
    kernel.link, kernel.device = replace(LINK, index=8), Device("wgd0", THEIRS, 51820)
    with pytest.raises(ConflictError, match="somebody else's tunnel"):
        Tunnel(note).open(INTERFACE, DESIRED)


def test_one_that_vanished_and_is_created_again_is_ours_to_delete(kernel: Kernel, note: Note) -> None:
    kernel.link = LINK
    tunnel = Tunnel(note)
    tunnel.open(INTERFACE, DESIRED)
    tunnel.memory.change(settings={"ipv4/ip_forward": "0"})
    kernel.link = None
    tunnel.open(INTERFACE, DESIRED)
    assert Memory(note).found == Found("wgd0", created=True, index=7, settings={"ipv4/ip_forward": "0"})
