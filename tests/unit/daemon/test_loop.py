import os
import signal
import socket
from collections.abc import Iterator

import pytest

from wgd.daemon.loop import Loop

SOON = 0.001


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop that no failing test can hang: it raises when nothing has stopped it for ten seconds."""

    def stuck() -> None:
        raise AssertionError("the loop was not stopped")

    with Loop() as made:
        made.every(10.0, stuck)
        yield made


@pytest.fixture
def pipe() -> Iterator[tuple[socket.socket, socket.socket]]:
    read, write = socket.socketpair()
    yield read, write
    read.close()
    write.close()


def test_a_signal_runs_its_callback_in_the_loop(loop: Loop) -> None:
    seen: list[str] = []

    def hup() -> None:
        seen.append("hup")
        loop.stop()

    loop.on_signal((signal.SIGHUP,), hup)
    os.kill(os.getpid(), signal.SIGHUP)
    assert seen == []
    loop.run()
    assert seen == ["hup"]


def test_signals_that_came_before_run_are_served_in_their_order(loop: Loop) -> None:
    seen: list[int] = []
    for number in (signal.SIGHUP, signal.SIGUSR1):
        loop.on_signal((number,), lambda number=number: seen.append(number))
    loop.on_signal((signal.SIGTERM,), loop.stop)
    for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        os.kill(os.getpid(), number)
    loop.run()
    assert seen == [signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR1]


def test_what_comes_after_a_stop_in_the_same_round_is_not_run(
    loop: Loop, pipe: tuple[socket.socket, socket.socket]
) -> None:
    seen: list[str] = []
    loop.on_signal((signal.SIGTERM,), loop.stop)
    loop.on_signal((signal.SIGHUP,), lambda: seen.append("hup"))
    loop.on_readable(pipe[0], lambda: (seen.append("readable"), pipe[0].recv(1)))
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGHUP)
    loop.run()
    assert "hup" not in seen


def test_a_signal_wakes_a_loop_that_waits(loop: Loop) -> None:
    loop.on_signal((signal.SIGTERM,), loop.stop)
    loop.every(SOON, lambda: os.kill(os.getpid(), signal.SIGTERM))
    loop.run()


def test_signals_are_as_they_were_before_when_the_loop_is_left() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)]
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    with Loop() as loop:
        loop.on_signal((signal.SIGHUP, signal.SIGTERM), loop.stop)
        loop.on_signal((signal.SIGHUP,), loop.stop)
        assert signal.getsignal(signal.SIGHUP) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(wakeup) == wakeup


def test_the_last_callback_of_a_signal_counts(loop: Loop) -> None:
    seen: list[str] = []
    loop.on_signal((signal.SIGHUP,), lambda: seen.append("first"))
    loop.on_signal((signal.SIGHUP,), loop.stop)
    os.kill(os.getpid(), signal.SIGHUP)
    loop.run()
    assert seen == []


def test_a_readable_source_is_served_until_it_is_forgotten(
    loop: Loop, pipe: tuple[socket.socket, socket.socket]
) -> None:
    read, write = pipe
    seen: list[bytes] = []

    def readable() -> None:
        seen.append(read.recv(1))
        if len(seen) == 2:
            loop.forget(read)
            loop.every(SOON, loop.stop)

    loop.on_readable(read, readable)
    write.send(b"abc")
    loop.run()
    assert seen == [b"a", b"b"]


def test_a_timer_runs_again_and_again(loop: Loop) -> None:
    seen: list[int] = []

    def tick() -> None:
        seen.append(len(seen))
        if len(seen) == 3:
            loop.stop()

    loop.every(SOON, tick)
    loop.run()
    assert seen == [0, 1, 2]


def test_a_short_timer_runs_while_a_long_one_waits(loop: Loop) -> None:
    seen: list[str] = []
    loop.every(5.0, lambda: seen.append("long"))
    loop.every(SOON, lambda: (seen.append("short"), loop.stop()))
    loop.run()
    assert seen == ["short"]


def test_timers_run_though_a_source_is_always_readable(loop: Loop, pipe: tuple[socket.socket, socket.socket]) -> None:
    pipe[1].send(b"a")
    loop.on_readable(pipe[0], lambda: None)
    loop.every(SOON, loop.stop)
    loop.run()


def test_a_timer_that_stops_the_loop_is_the_last(loop: Loop) -> None:
    seen: list[str] = []
    loop.every(0.0005, lambda: (seen.append("first"), loop.stop()))
    loop.every(0.0005, lambda: (seen.append("second"), loop.stop()))
    loop.run()
    assert len(seen) == 1


def test_an_exception_of_a_callback_ends_the_loop_and_is_passed_on(loop: Loop) -> None:
    class OurError(Exception):
        pass

    def fails() -> None:
        raise OurError

    loop.every(SOON, fails)
    with pytest.raises(OurError):
        loop.run()


def test_a_loop_can_run_again_after_a_stop(loop: Loop) -> None:
    loop.every(SOON, loop.stop)
    loop.run()
    loop.run()


def test_after_runs_a_callback_once(loop: Loop) -> None:
    seen: list[str] = []
    loop.after(SOON, lambda: seen.append("once"))
    rounds: list[int] = []

    def count() -> None:
        rounds.append(1)
        if len(rounds) == 3:
            loop.stop()

    loop.every(2 * SOON, count)
    loop.run()
    assert seen == ["once"]
