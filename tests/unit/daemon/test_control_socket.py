"""The control socket: everybody is answered, and nobody who is hostile, slow or silent holds up anybody."""

import json
import os
import selectors
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgd.daemon import control as module
from wgd.daemon.control import Answer, Caller, ControlSocket
from wgd.daemon.listening import listen
from wgd.errors import ConflictError, HostError
from wgd.host.varlink import Call, VarlinkError

DEADLINE = 20.0
LARGE = "x" * 3_000_000


def answer(call: Call, caller: Caller) -> Mapping[str, Any]:
    if call.method == "a.Large":
        return {"large": LARGE}
    if call.method == "a.Fails":
        raise VarlinkError("a.Failed", {"why": "so"})
    return {"method": call.method, "may_change": caller.may_change, **call.parameters}


class Daemon:
    """The control socket under a loop that runs while a condition is awaited."""

    def __init__(self, path: Path, answers: Answer = answer) -> None:
        self.path = path
        self.control = ControlSocket(path, answers)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.control, selectors.EVENT_READ)
        self.callers: list[socket.socket] = []

    def until(self, what: str, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not in time"
            if self._selector.select(0.01):
                self.control.handle()

    def caller(self, *messages: bytes) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.callers.append(made)
        made.connect(str(self.path))
        made.settimeout(0)
        for message in messages:
            made.send(message)
        return made

    def answers(self, caller: socket.socket, count: int = 1) -> list[dict[str, Any]]:
        """Return the next answers to a caller."""
        received = b""

        def arrived() -> bool:
            nonlocal received
            received += available(caller)
            return received.count(b"\0") >= count

        self.until("an answer", arrived)
        return [json.loads(text) for text in received.split(b"\0")[:-1]]

    def is_served(self) -> bool:
        """Tell whether a newcomer is answered."""
        return self.answers(self.caller(call("a.Hello")))[0]["parameters"]["method"] == "a.Hello"

    def close(self) -> None:
        for caller in self.callers:
            caller.close()
        self._selector.close()
        self.control.close()


def available(caller: socket.socket) -> bytes:
    try:
        return caller.recv(1 << 20)
    except BlockingIOError:
        return b""


def is_closed(caller: socket.socket) -> bool:
    try:
        return caller.recv(1 << 20) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def call(method: str, **parameters: Any) -> bytes:
    return json.dumps({"method": method, "parameters": parameters}).encode() + b"\0"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "control")
    yield made
    made.close()


class TestAnswers:
    def test_a_call_is_answered(self, daemon: Daemon) -> None:
        caller = daemon.caller(call("a.Hello", number=7))
        assert daemon.answers(caller) == [{"parameters": {"method": "a.Hello", "may_change": True, "number": 7}}]

    def test_an_error_is_answered_with_its_name(self, daemon: Daemon) -> None:
        assert daemon.answers(daemon.caller(call("a.Fails"))) == [{"error": "a.Failed", "parameters": {"why": "so"}}]

    def test_many_calls_at_once_are_answered_in_their_order(self, daemon: Daemon) -> None:
        caller = daemon.caller(b"".join(call("a.Hello", number=number) for number in range(100)))
        numbers = [each["parameters"]["number"] for each in daemon.answers(caller, 100)]
        assert numbers == list(range(100))

    def test_a_call_in_pieces_is_answered(self, daemon: Daemon) -> None:
        text = call("a.Hello")
        caller = daemon.caller()
        for index in range(len(text)):
            daemon.control.handle()
            caller.send(text[index : index + 1])
        assert daemon.answers(caller)

    def test_a_oneway_call_is_done_and_not_answered(self, daemon: Daemon) -> None:
        caller = daemon.caller(b'{"method":"a.Quiet","oneway":true}\0', call("a.Hello"))
        assert [each["parameters"]["method"] for each in daemon.answers(caller)] == ["a.Hello"]

    def test_a_large_answer_arrives_whole(self, daemon: Daemon) -> None:
        assert daemon.answers(daemon.caller(call("a.Large")))[0]["parameters"]["large"] == LARGE

    def test_a_caller_that_has_ended_its_side_is_answered(self, daemon: Daemon) -> None:
        caller = daemon.caller(call("a.Hello"))
        caller.shutdown(socket.SHUT_WR)
        assert daemon.answers(caller)
        daemon.until("the end", lambda: is_closed(caller))

    def test_only_root_and_the_daemons_own_user_may_change_things(
        self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        for uid, may_change in ((0, True), (12345, True), (54321, False)):
            every_caller_is(monkeypatch, uid)
            assert daemon.answers(daemon.caller(call("a.Hello")))[0]["parameters"]["may_change"] is may_change


def every_caller_is(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    """Make the kernel say that every caller is of one user."""

    class Credentials:
        size = module.UCRED.size

        def unpack(self, _: bytes) -> tuple[int, int, int]:
            return 1, uid, 0

    monkeypatch.setattr(module, "UCRED", Credentials())


class TestHostileCallers:
    @pytest.mark.parametrize(
        "data",
        [
            b"garbage\0",
            b"\0" * 1000,
            b'{"method":5}\0',
            b"[]\0",
            b"[" * 60000 + b"\0",
            b"x" * (module.MAX_CALL_BYTES + 1),
        ],
        ids=["garbage", "nothing", "no-call", "no-object", "nested", "huge"],
    )
    def test_are_shown_the_door(self, daemon: Daemon, data: bytes) -> None:
        caller = daemon.caller()
        caller.settimeout(DEADLINE)
        caller.sendall(data)
        caller.settimeout(0)
        daemon.until("the end", lambda: is_closed(caller))
        assert daemon.is_served()

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.binary(max_size=200), max_size=5))
    def test_with_anything_disturb_nobody(self, tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
        daemon = Daemon(tmp_path_factory.mktemp("control") / "control")
        try:
            daemon.caller(*pieces)
            assert daemon.is_served()
        finally:
            daemon.close()

    def test_that_are_gone_before_their_answer_disturb_nobody(self, daemon: Daemon) -> None:
        for _ in range(10):
            daemon.caller(call("a.Large")).close()
        assert daemon.is_served()

    def test_that_are_silent_or_stop_half_way_are_ended_when_their_time_is_over(
        self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        silent, half = daemon.caller(), daemon.caller(b'{"method":')
        assert daemon.is_served()
        daemon.control.expire()
        assert not is_closed(silent)
        monkeypatch.setattr(module, "SILENCE_SECONDS", 0.0)
        daemon.control.expire()
        assert is_closed(silent)
        assert is_closed(half)
        assert daemon.is_served()

    def test_bytes_that_trickle_in_win_no_time(self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        caller = daemon.caller()
        assert daemon.is_served()
        start = time.monotonic()
        caller.send(b"{")
        daemon.control.handle()
        monkeypatch.setattr(module, "SILENCE_SECONDS", time.monotonic() - start)
        daemon.control.expire()
        assert is_closed(caller)

    def test_that_take_no_answer_hold_up_nobody_and_are_ended(
        self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow = daemon.caller(call("a.Large"))
        assert daemon.is_served()
        monkeypatch.setattr(module, "SILENCE_SECONDS", 0.0)
        daemon.control.expire()
        received = 0

        def ended() -> bool:
            nonlocal received
            try:
                data = slow.recv(1 << 20)
            except ConnectionResetError:
                return True
            received += len(data)
            return not data

        slow.settimeout(DEADLINE)
        daemon.until("the end", ended)
        assert received < len(LARGE)

    def test_that_take_no_answer_keep_only_so_much_memory(
        self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_QUEUED_BYTES", 3 * len(LARGE))
        for _ in range(10):
            daemon.caller(call("a.Large"))
            assert daemon.is_served()
        waiting = sum(len(each.output) for each in daemon.control._connections.values())
        assert waiting <= 3 * len(LARGE)
        assert waiting > 0

    def test_by_the_thousand_leave_room_for_the_next(self, daemon: Daemon) -> None:
        for number in range(2000):
            daemon.caller(b'{"half' if number % 2 else b"")
            daemon.callers[-1].close() if number % 3 == 0 else None
            daemon.control.handle()
        assert len(daemon.control._connections) <= module.MAX_OF_ONE_USER
        assert daemon.is_served()

    def test_of_other_users_take_no_room_from_root(self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_CONNECTIONS", 6)
        monkeypatch.setattr(module, "MAX_OF_ONE_USER", 3)
        for uid in (1001, 1002):
            every_caller_is(monkeypatch, uid)
            for _ in range(5):
                daemon.caller()
                daemon.control.handle()
        assert len(daemon.control._connections) == 6
        every_caller_is(monkeypatch, 1003)
        stranger = daemon.caller(call("a.Hello"))
        daemon.until("the end", lambda: is_closed(stranger))
        every_caller_is(monkeypatch, 0)
        assert daemon.is_served()

    def test_that_flood_with_calls_are_answered_one_a_round(self, tmp_path: Path) -> None:
        answered: list[str] = []

        def note(call: Call, caller: Caller) -> Mapping[str, Any]:
            del caller
            answered.append(call.method)
            return {}

        daemon = Daemon(tmp_path / "control", note)
        try:
            for _ in range(5):
                daemon.caller(call("a.Flood") * 50)
            other = daemon.caller(call("a.Hello"))
            daemon.control.handle()
            assert len(answered) <= 1, "the daemon's other work comes between any two"
            daemon.answers(other)
            assert answered.index("a.Hello") < 20, "and everybody has a turn"
        finally:
            daemon.close()

    def test_who_may_only_read_get_a_tenth_of_the_time_and_root_does_not_wait_for_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = SimpleNamespace(now=1000.0)
        monkeypatch.setattr(module.time, "monotonic", lambda: clock.now)
        answered: list[str] = []

        def slow(call: Call, caller: Caller) -> Mapping[str, Any]:
            del caller
            answered.append(call.method)
            clock.now += 2.0
            return {}

        def rounds() -> None:
            for _ in range(30):
                daemon.control.handle()
            daemon.control.expire()

        daemon = Daemon(tmp_path / "control", slow)
        try:
            every_caller_is(monkeypatch, 54321)
            readers = [daemon.caller(call("a.Read") * 3) for _ in range(3)]
            rounds()
            assert answered == ["a.Read"]
            every_caller_is(monkeypatch, 0)
            daemon.caller(call("a.Root"))
            rounds()
            assert answered == ["a.Read", "a.Root"]
            readers[0].close()
            rounds()
            assert len(daemon.control._connections) == 3, "one that has gone is not waited for"
            clock.now = 1000.0 + 2.0 + 9 * 2.0
            rounds()
            rounds()
            assert answered == ["a.Read", "a.Root", "a.Read"]
        finally:
            daemon.close()

    def test_who_only_read_what_is_quickly_told_do_not_wait(
        self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        every_caller_is(monkeypatch, 54321)
        assert len(daemon.answers(daemon.caller(call("a.Hello") * 50), 50)) == 50

    def test_that_use_up_the_descriptors_are_waited_for(
        self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def none_left(_: Any) -> Any:
            raise OSError(24, "Too many open files")

        caller = daemon.caller(call("a.Hello"))
        with monkeypatch.context() as patched:
            patched.setattr(socket.socket, "accept", none_left)
            daemon.control.handle()
            daemon.control.handle()
        assert len(caplog.messages) == 1, "it does not try again at once"
        daemon.control.expire()
        assert daemon.answers(caller)


class TestPath:
    def test_is_open_to_owner_and_group_alone_and_its_folder_is_made(self, tmp_path: Path) -> None:
        path = tmp_path / "run" / "control"
        daemon = Daemon(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert [entry.name for entry in path.parent.iterdir()] == ["control"]
        daemon.close()
        assert list(path.parent.iterdir()) == []

    def test_of_a_daemon_that_was_killed_is_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "control"
        listen(path).close()
        assert path.is_socket()
        daemon = Daemon(path)
        assert daemon.is_served()
        daemon.close()

    def test_of_a_live_daemon_is_refused_and_left_alone(self, daemon: Daemon) -> None:
        with pytest.raises(ConflictError, match="another daemon already runs"):
            listen(daemon.path)
        assert daemon.is_served()

    def test_of_a_live_daemon_whose_queue_is_full_is_refused_too(self, tmp_path: Path) -> None:
        path = tmp_path / "control"
        with listen(path) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as first:
            listener.listen(0)
            first.connect(str(path))
            with pytest.raises(ConflictError):
                listen(path)

    def test_of_something_else_is_refused_and_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "control"
        path.write_text("mine")
        with pytest.raises(HostError, match="is no socket"):
            listen(path)
        assert path.read_text() == "mine"

    def test_that_cannot_be_used_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(HostError, match="cannot listen there"):
            listen(tmp_path / "file" / "control")

    def test_that_somebody_else_has_taken_over_stays_at_close(self, daemon: Daemon) -> None:
        daemon.path.unlink()
        daemon.path.write_text("another's")
        daemon.control.close()
        assert daemon.path.exists()
        daemon.path.unlink()
        daemon.control = ControlSocket(daemon.path, answer)
