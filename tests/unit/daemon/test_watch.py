from collections.abc import Callable

import pytest

from wgd.daemon import watch as module
from wgd.daemon.watch import CALM_SECONDS, LONGEST_SECONDS, QUIET_SECONDS, Watch
from wgd.kernel.monitor import Notice, Subject

OURS, OTHERS, ROUTE = Notice(Subject.TABLE, "inet wgd"), Notice(Subject.TABLE, "ip nat"), Notice(Subject.ROUTE, 7780)


class World:
    """A loop, a monitor and a clock that the test moves; what was looked at and when is in `looks`."""

    def __init__(self, *, fought: bool = False, look_seconds: float = 0.0) -> None:
        self.now, self.queued = 1000.0, frozenset[Notice]()
        self.looks: list[tuple[float, frozenset[Notice]]] = []
        self.fought, self.look_seconds = fought, look_seconds
        self.notified: Callable[[], None] | None = None
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def on_readable(self, source: object, callback: Callable[[], None]) -> None:
        assert source is self
        self.notified = callback

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.now + seconds, callback))

    def read(self) -> frozenset[Notice]:
        read, self.queued = self.queued, frozenset()
        return read

    def look(self, notices: frozenset[Notice]) -> bool:
        self.looks.append((self.now, notices))
        self.now += self.look_seconds
        return self.fought

    def notify(self, *notices: Notice) -> None:
        self.queued = frozenset(notices)
        assert self.notified is not None
        self.notified()

    def wait(self, seconds: float) -> None:
        """Let time pass, and the timers run that are due in it."""
        end = self.now + seconds
        while self.timers and min(at for at, _ in self.timers) <= end:
            self.timers.sort(key=lambda timer: timer[0])
            at, callback = self.timers.pop(0)
            self.now = max(self.now, at)
            callback()
        self.now = max(self.now, end)


def watched(monkeypatch: pytest.MonkeyPatch, **settings: float) -> World:
    world = World(**settings)  # type: ignore[arg-type]
    monkeypatch.setattr(module.time, "monotonic", lambda: world.now)
    Watch(world, world, lambda notice: notice != OTHERS, world.look)  # type: ignore[arg-type]
    return world


def test_many_notifications_are_looked_at_once_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    world = watched(monkeypatch)
    world.notify(OURS)
    world.wait(QUIET_SECONDS / 2)
    world.notify(ROUTE, OTHERS)
    world.wait(10.0)
    assert world.looks == [(1000.0 + 1.5 * QUIET_SECONDS, frozenset({OURS, ROUTE}))]


def test_what_never_ends_is_looked_at_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    world = watched(monkeypatch)
    for _ in range(20):
        world.notify(OURS)
        world.wait(0.1)
    assert 1000.0 + LONGEST_SECONDS <= world.looks[0][0] < 1000.0 + LONGEST_SECONDS + 0.01


def test_what_concerns_nobody_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    world = watched(monkeypatch)
    world.notify(OTHERS)
    world.wait(10.0)
    assert world.looks == []


def fight(world: World, seconds: float) -> list[float]:
    """Have somebody take away at once what is put back; return the pauses between the looks."""
    world.notify(OURS)
    end = world.now + seconds
    while world.now < end:
        before = len(world.looks)
        world.wait(0.01)
        if len(world.looks) > before:
            world.notify(OURS)
    return [later - earlier for (earlier, _), (later, _) in zip(world.looks, world.looks[1:], strict=False)]


def test_the_pauses_of_a_fight_double_up_to_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = fight(watched(monkeypatch, fought=True), 10.0)
    assert pauses[:3] == pytest.approx([0.3, 0.6, 1.0], abs=0.02)
    assert max(pauses) <= LONGEST_SECONDS + 0.02


def test_looking_takes_at_most_half_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = fight(watched(monkeypatch, fought=True, look_seconds=3.0), 60.0)
    assert min(pauses) >= 6.0


def test_after_a_calm_the_next_change_is_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = watched(monkeypatch, fought=True)
    fight(world, 5.0)
    world.fought = False
    world.wait(LONGEST_SECONDS + CALM_SECONDS + 1.0)
    before = world.now
    world.notify(OURS)
    world.wait(5.0)
    assert world.looks[-1][0] == pytest.approx(before + QUIET_SECONDS)
