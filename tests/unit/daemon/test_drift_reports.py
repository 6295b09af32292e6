from itertools import pairwise

import pytest

from wgd.daemon.drift import LONGEST_PAUSE, Drift, Reports, parts_of
from wgd.errors import KernelError
from wgd.kernel.monitor import Notice, Subject
from wgd.plan.gateway import ALL_PARTS, Difference, Part

TABLE = Difference("table", "table")
RULES = [Difference("rule", f"routing rule {priority} (IPv4) is missing") for priority in range(7780, 7785)]
OURS = frozenset({7780, 7781})


class Gateway:
    """A gateway in whose kernel `drifted` is not as it should be, until it is repaired; what it was told is `done`."""

    def __init__(self, *drifted: Difference, broken: bool = False) -> None:
        self.drifted, self.broken = drifted, broken
        self.done: list[object] = []
        self.fights = 0
        self.can_repair: set[Difference] = set()

    def differences(self, parts: frozenset[Part]) -> tuple[Difference, ...]:
        self.done.append(parts)
        return self.drifted

    def repair(self, parts: frozenset[Part]) -> None:
        self.done.append(("repair", parts))
        self.drifted = tuple(difference for difference in self.drifted if difference not in self.can_repair)
        if self.broken or self.fights:
            self.fights -= 1
            raise KernelError("wgd0", "Operation not permitted")
        self.drifted = ()


@pytest.fixture
def told() -> list[tuple[Difference, str, int]]:
    return []


def drift(gateway: Gateway, told: list[tuple[Difference, str, int]]) -> Drift:
    return Drift(gateway, lambda *what: told.append(what))  # type: ignore[arg-type]


def test_what_is_as_it_was_set_is_left_alone(told: list[tuple[Difference, str, int]]) -> None:
    gateway = Gateway()
    assert drift(gateway, told).check() is False
    assert (gateway.done, told) == ([ALL_PARTS], [])


def test_what_somebody_changed_is_put_back_and_told(told: list[tuple[Difference, str, int]]) -> None:
    gateway = Gateway(TABLE)
    assert drift(gateway, told).check(frozenset({Part.RULESET})) is True
    assert gateway.done == [{Part.RULESET}, ("repair", {Part.RULESET})]
    assert told == [(TABLE, "restored", 1)]


def test_of_what_was_put_back_in_part_only_the_rest_has_failed(told: list[tuple[Difference, str, int]]) -> None:
    gateway = Gateway(TABLE, RULES[0], broken=True)
    gateway.can_repair = {TABLE}
    with pytest.raises(KernelError):
        drift(gateway, told).check()
    assert sorted(told, key=str) == [(RULES[0], "failed", 1), (TABLE, "restored", 1)]


def test_what_somebody_changes_again_meanwhile_is_put_back_again(told: list[tuple[Difference, str, int]]) -> None:
    gateway = Gateway(TABLE)
    gateway.fights = 1
    assert drift(gateway, told).check() is True
    assert told == [(TABLE, "restored", 1)]


@pytest.mark.parametrize("what", ["link", "address"])
def test_with_a_link_everything_is_put_back(told: list[tuple[Difference, str, int]], what: str) -> None:
    gateway = Gateway(Difference(what, "is missing"))
    drift(gateway, told).check(frozenset({Part.LINK}))
    assert gateway.done[-1] == ("repair", ALL_PARTS)


def test_what_cannot_be_put_back_is_told_and_raised(told: list[tuple[Difference, str, int]]) -> None:
    gateway = Gateway(TABLE, broken=True)
    with pytest.raises(KernelError):
        drift(gateway, told).check()
    assert gateway.done == [ALL_PARTS, ("repair", ALL_PARTS), ("repair", ALL_PARTS), ALL_PARTS]
    assert told == [(TABLE, "failed", 1)]


def test_things_of_one_kind_are_told_in_one_line() -> None:
    reports = Reports()
    reports.add([TABLE, *RULES], "restored", 100.0)
    assert list(reports.due(100.0)) == [
        (TABLE, "restored", 1),
        (
            Difference("rule", ", ".join(rule.detail for rule in RULES[:3]) + " and 2 more"),
            "restored",
            5,
        ),
    ]


def fought(reports: Reports, seconds: float, every: float) -> list[tuple[float, int]]:
    """Return when how many changes were told of a table that was taken away `every` so many seconds."""
    told, now = [], 0.0
    while now < seconds:
        reports.add([TABLE], "restored", now)
        told += [(now, count) for _, _, count in reports.due(now)]
        now += every
    return told


def test_the_same_thing_is_told_ever_more_rarely_and_every_change_is_counted() -> None:
    reports = Reports()
    told = fought(reports, 1000.0, 0.5)
    times = [at for at, _ in told]
    assert times[:6] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0]
    assert max(later - earlier for earlier, later in pairwise(times)) == LONGEST_PAUSE
    rest = list(reports.due(1000.0 + LONGEST_PAUSE))
    assert sum(count for _, count in told) + sum(count for _, _, count in rest) == 2000


def test_another_thing_is_told_at_once() -> None:
    reports = Reports()
    fought(reports, 10.0, 0.5)
    reports.add(RULES[:1], "restored", 10.1)
    assert (RULES[0], "restored", 1) in list(reports.due(10.1))


def test_what_was_calm_for_long_is_told_at_once_again() -> None:
    reports = Reports()
    fought(reports, 100.0, 0.5)
    rest = list(reports.due(100.0 + LONGEST_PAUSE))
    assert len(rest) == 1
    later = 100.0 + 2 * LONGEST_PAUSE
    assert list(reports.due(later)) == []
    reports.add([TABLE], "restored", later + 0.1)
    assert list(reports.due(later + 0.1)) == [(TABLE, "restored", 1)]


@pytest.mark.parametrize(
    ("notice", "parts"),
    [
        (Notice(Subject.TABLE, "inet wgd"), {Part.RULESET}),
        (Notice(Subject.TABLE, "ip filter"), set()),
        (Notice(Subject.RULE), {Part.RULES}),
        (Notice(Subject.ROUTE, 7781), {Part.ROUTES}),
        (Notice(Subject.ROUTE, 254), set()),
        (Notice(Subject.LINK, "wgd0"), {Part.LINK, Part.ROUTES}),
        (Notice(Subject.LINK, "eth0"), {Part.LINK}),
        (Notice(Subject.ADDRESS), {Part.LINK, Part.ROUTES}),
        (Notice(Subject.FORWARDING), {Part.FORWARDING}),
        (Notice(Subject.LOST), ALL_PARTS - {Part.DEVICE}),
    ],
)
def test_only_what_was_notified_is_read_back(notice: Notice, parts: set[Part]) -> None:
    assert parts_of([notice], "wgd0", OURS) == parts


def test_several_notifications_are_read_back_together() -> None:
    notices = [Notice(Subject.RULE), Notice(Subject.TABLE, "inet wgd")]
    assert parts_of(notices, "wgd0", OURS) == {Part.RULES, Part.RULESET}
