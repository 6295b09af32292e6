"""wgd.daemon.log: the same record for a terminal, a file and the journal."""

import logging
import os
import pty
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest

from wgd.daemon import log

Terminal = tuple[TextIO, Callable[[], str]]


@pytest.fixture(autouse=True)
def _root_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test root handlers of its own, and take the caller's environment out of it."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "log").open("w") as stream:
        yield stream


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal's user side as a stream, and a function that returns what its screen got."""
    screen, user_side = pty.openpty()
    with os.fdopen(user_side, "w") as stream:
        yield stream, lambda: os.read(screen, 4096).decode().replace("\r\n", "\n")
    os.close(screen)


def journal(monkeypatch: pytest.MonkeyPatch, stream: TextIO) -> None:
    status = os.fstat(stream.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")


def written(stream: TextIO) -> str:
    stream.flush()
    return Path(stream.name).read_text()


def test_a_line_for_people_is_the_message_alone_and_only_warnings_and_errors_are_marked(file: TextIO) -> None:
    log.set_up(stream=file)
    logging.getLogger("wgd.x").info("listening on %s", "[::]:8080")
    logging.getLogger("wgd.x").warning("slow")
    logging.getLogger("wgd.x").error("gone")
    assert written(file) == "listening on [::]:8080\nwarning: slow\nerror: gone\n"


def test_what_is_below_the_level_is_not_written(file: TextIO) -> None:
    log.set_up(stream=file)
    logging.getLogger("wgd.x").debug("detail")
    assert written(file) == ""
    log.set_up(logging.DEBUG, stream=file)
    logging.getLogger("wgd.x").debug("detail")
    assert written(file) == "detail\n"


def test_marks_are_coloured_on_a_terminal(terminal: Terminal) -> None:
    stream, screen = terminal
    log.set_up(stream=stream)
    logging.getLogger("wgd.x").warning("slow")
    assert screen() == "\033[33mwarning:\033[0m slow\n"


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_whose_user_wants_no_colour_gets_none(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    stream, screen = terminal
    log.set_up(stream=stream)
    logging.getLogger("wgd.x").error("gone")
    assert screen() == "error: gone\n"


def test_every_line_for_the_journal_starts_with_its_priority(file: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    journal(monkeypatch, file)
    log.set_up(logging.DEBUG, stream=file)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logging.getLogger("wgd.x").log(level, "first\nsecond")
    assert written(file) == "".join(f"<{n}>first\n<{n}>second\n" for n in (7, 6, 4, 3, 2))


def test_a_traceback_keeps_its_priority_in_the_journal(file: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    journal(monkeypatch, file)
    log.set_up(stream=file)
    try:
        int("bad")
    except ValueError:
        logging.getLogger("wgd.x").exception("unexpected")
    lines = written(file).splitlines()
    assert lines[-1].startswith("<3>ValueError: ")
    assert all(line.startswith("<3>") for line in lines)


def test_stderr_redirected_away_from_the_journal_gets_plain_lines(
    file: TextIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "other").open("w") as other:
        journal(monkeypatch, other)
    log.set_up(stream=file)
    logging.getLogger("wgd.x").error("gone")
    assert written(file) == "error: gone\n"


def test_control_characters_are_made_visible(file: TextIO) -> None:
    log.set_up(stream=file)
    logging.getLogger("wgd.x").info("GET /\x1b[2J\x9b\r\x00é")
    assert written(file) == "GET /\\x1b[2J\\x9b\\x0d\\x00é\n"


def test_setting_up_twice_writes_each_line_once(file: TextIO) -> None:
    log.set_up(stream=file)
    log.set_up(stream=file)
    logging.getLogger("wgd.x").info("once")
    assert written(file) == "once\n"


def test_without_a_stream_lines_go_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    log.set_up()
    logging.getLogger("wgd.x").info("here")
    sys.stderr.flush()
    assert capfd.readouterr() == ("", "here\n")
