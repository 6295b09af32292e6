import json
import stat
from pathlib import Path

import pytest

from wgd.errors import HostError
from wgd.host.files import Note


@pytest.fixture
def note(tmp_path: Path) -> Note:
    return Note(tmp_path / "run" / "found.json")


def test_there_is_nothing_before_the_first_write(note: Note) -> None:
    assert note.read() is None


def test_what_is_written_is_read_by_the_next_one(note: Note) -> None:
    note.write({"created": True, "addresses": ["10.80.0.1/24"]})
    assert Note(note.path).read() == {"created": True, "addresses": ["10.80.0.1/24"]}


def test_the_folder_is_made_and_closed_to_others(note: Note) -> None:
    note.write({})
    assert stat.S_IMODE(note.path.parent.stat().st_mode) & 0o007 == 0
    assert stat.S_IMODE(note.path.stat().st_mode) == 0o600


def test_a_write_replaces_the_file_so_that_a_reader_never_sees_half_of_it(note: Note) -> None:
    note.write({"number": 1})
    with note.path.open() as reader:
        note.write({"number": 2})
        assert json.load(reader) == {"number": 1}
    assert note.read() == {"number": 2}


def test_a_write_that_fails_leaves_what_was_there_and_nothing_beside_it(note: Note) -> None:
    note.write({"number": 1})
    with pytest.raises(TypeError):
        note.write({"number": 2, "not json": object()})
    assert note.read() == {"number": 1}
    assert [entry.name for entry in note.path.parent.iterdir()] == ["found.json"]


def test_a_write_that_cannot_be_made_says_where_and_why(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(HostError, match=r"run/found\.json: cannot be written: "):
        Note(tmp_path / "run" / "found.json").write({})


def test_delete_may_be_repeated(note: Note) -> None:
    note.write({})
    note.delete()
    note.delete()
    assert note.read() is None


def test_a_delete_that_fails_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be deleted"):
        Note(tmp_path).delete()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 5])
def test_a_note_that_cannot_be_read_is_refused_with_what_to_do(note: Note, content: bytes) -> None:
    note.write({})
    note.path.write_bytes(content)
    with pytest.raises(HostError, match=r"cannot be read: .*; delete it if its daemon is gone"):
        note.read()


@pytest.mark.parametrize("content", [b"[]", b"1", b"null"])
def test_json_that_is_no_note_is_refused(note: Note, content: bytes) -> None:
    note.write({})
    note.path.write_bytes(content)
    with pytest.raises(HostError, match="is not ours; delete it"):
        note.read()
