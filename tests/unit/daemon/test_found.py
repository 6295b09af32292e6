import json
from pathlib import Path

import pytest

from wgd.daemon.found import Found, Memory
from wgd.errors import HostError
from wgd.host.files import Note
from wgd.model import SecretKey
from wgd.plan.state import Device, Link


@pytest.fixture
def note(tmp_path: Path) -> Note:
    return Note(tmp_path / "found.json")


def test_a_host_on_which_nothing_ran_has_no_memory(note: Note) -> None:
    assert Memory(note).found is None


def test_what_was_found_is_known_to_the_next_daemon(note: Note) -> None:
    found = Found("wgd0", created=False, up=True, mtu=1420, had_key=True, listen_port=51820)
    Memory(note).begin(found)
    assert Memory(note).found == found


def test_a_change_is_known_to_the_next_daemon(note: Note) -> None:
    memory = Memory(note)
    memory.begin(Found("wgd0", created=True))
    memory.change(addresses=("10.80.0.1/24",), settings={"ipv4/ip_forward": "0"})
    changed = Found("wgd0", created=True, addresses=("10.80.0.1/24",), settings={"ipv4/ip_forward": "0"})
    assert memory.found == changed
    assert Memory(note).found == changed


def test_a_change_that_changes_nothing_writes_nothing(note: Note) -> None:
    memory = Memory(note)
    memory.begin(Found("wgd0", created=True))
    before = note.path.stat().st_ino
    memory.change(addresses=())
    assert note.path.stat().st_ino == before


def test_a_change_that_cannot_be_written_is_not_remembered(note: Note, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(note)
    memory.begin(Found("wgd0", created=True))

    def fails(_: object) -> None:
        raise HostError("note", "disk full")

    monkeypatch.setattr(note, "write", fails)
    with pytest.raises(HostError):
        memory.change(addresses=("10.80.0.1/24",))
    assert memory.found == Found("wgd0", created=True)


def test_there_is_nothing_to_change_before_the_beginning(note: Note) -> None:
    with pytest.raises(HostError, match="nothing was noted at start"):
        Memory(note).change(addresses=())


def test_what_is_forgotten_is_gone_for_the_next_daemon_too(note: Note) -> None:
    memory = Memory(note)
    memory.begin(Found("wgd0", created=True))
    memory.forget()
    assert memory.found is None
    assert Memory(note).found is None


@pytest.mark.parametrize(
    "content",
    [
        {"interface": "wgd0", "created": True},
        {"created": True, "addresses": []},
        {"interface": "wgd0", "created": True, "addresses": [], "of_the_future": 1},
        {"interface": "wgd0", "created": True, "addresses": None},
    ],
)
def test_a_note_of_another_version_is_refused_with_what_to_do(note: Note, content: dict[str, object]) -> None:
    note.path.write_text(json.dumps(content))
    with pytest.raises(HostError, match="was written by another version; delete it and restart"):
        Memory(note)


def test_an_interface_that_was_there_is_noted_as_it_was_without_its_key() -> None:
    link = Link(7, "wgd0", "wireguard", 1380, up=True)
    found = Found.of(link, Device("wgd0", SecretKey(b"k" * 32), 4711))
    assert found == Found("wgd0", created=False, index=7, up=True, mtu=1380, had_key=True, listen_port=4711)


def test_an_interface_without_key_and_port_is_noted_so() -> None:
    found = Found.of(Link(7, "wgd0", "wireguard", 1420, up=False), Device("wgd0", None, None))
    assert (found.had_key, found.listen_port, found.up) == (False, 0, False)
