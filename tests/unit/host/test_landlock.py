"""What a process may still do that Landlock restricts to one directory. Each is tried without it too."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from wgd.errors import HostError
from wgd.host import landlock

TRY = """
import json, os, signal, socket, sys
from pathlib import Path
from wgd.host.landlock import restrict_to
from wgd.host.privileges import drop_privileges

inside, outside, restricts = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "restricted"
reading, writing = os.pipe()
other = os.fork()
if other == 0:
    os.close(writing)
    os.read(reading, 1)
    os._exit(0)
listener = socket.create_server(("127.0.0.1", 0))
drop_privileges()
if restricts:
    assert restrict_to(inside)

def write(path):
    with path.open("ab") as file:
        file.write(b"x")
    os.truncate(path, 0)

def works(action):
    try:
        action()
    except OSError:
        return False
    return True

print(json.dumps({
    "write inside": works(lambda: write(inside / "new")),
    "list inside": works(lambda: list(inside.iterdir())),
    "read outside": works((outside / "file").read_bytes),
    "write outside": works(lambda: write(outside / "file")),
    "make outside": works(lambda: write(outside / "new")),
    "list outside": works(lambda: list(outside.iterdir())),
    "read through the root": works(Path("/etc/hostname").read_bytes),
    "remove inside": works((inside / "there").unlink),
    "connect": works(lambda: socket.create_connection(listener.getsockname(), 1)),
    "signal": works(lambda: os.kill(other, signal.SIGCONT)),
}))
"""


def tried(tmp_path: Path, how: str) -> dict[str, bool]:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for directory in (inside, outside):
        directory.mkdir()
    (outside / "file").touch()
    (inside / "there").touch()
    command = [sys.executable, "-c", TRY, str(inside), str(outside), how]
    found: dict[str, bool] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def test_only_files_of_the_directory_can_be_made_and_written(tmp_path: Path) -> None:
    found = tried(tmp_path, "restricted")
    assert {what for what, works in found.items() if works} == {"write inside", "list inside"}


def test_without_it_all_of_that_can_be_done(tmp_path: Path) -> None:
    assert all(tried(tmp_path, "free").values())


def answers(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def refuse(*_: object) -> int:
        raise OSError(error, "no")

    monkeypatch.setattr(landlock, "_call", refuse)


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_kernel_without_it_is_told_from_one_that_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: int
) -> None:
    answers(monkeypatch, error)
    assert not landlock.restrict_to(tmp_path)


def test_a_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers(monkeypatch, errno.EPERM)
    with pytest.raises(HostError, match="Landlock: cannot be set up"):
        landlock.restrict_to(tmp_path)
