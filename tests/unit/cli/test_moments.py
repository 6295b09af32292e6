"""Times as an operator writes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from wgd.cli.moments import moment

TOKYO = timezone(timedelta(hours=9))
NOW = datetime(2026, 11, 25, 14, 20, 52, tzinfo=TOKYO)


@pytest.fixture(autouse=True)
def _in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as changed:
        changed.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-25T14:00:00Z", datetime(2026, 11, 25, 14, tzinfo=UTC)),
        ("2026-11-25t14:00:00.5z", datetime(2026, 11, 25, 14, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-25T14:00:00-05:00", datetime(2026, 11, 25, 19, tzinfo=UTC)),
        ("2026-11-25 14:00 UTC", datetime(2026, 11, 25, 14, tzinfo=UTC)),
        ("2026-11-25 14:00", datetime(2026, 11, 25, 5, tzinfo=UTC)),
        ("2026-11-25", datetime(2026, 11, 25, tzinfo=TOKYO)),
        ("14:00", datetime(2026, 11, 25, 14, tzinfo=TOKYO)),
        ("14:00:01", datetime(2026, 11, 25, 14, 0, 1, tzinfo=TOKYO)),
        ("now", NOW),
        ("today", datetime(2026, 11, 25, tzinfo=TOKYO)),
        ("yesterday", datetime(2026, 11, 24, tzinfo=TOKYO)),
        ("-1h", NOW - timedelta(hours=1)),
        ("-1h30min", NOW - timedelta(minutes=90)),
        ("+2 days", NOW + timedelta(days=2)),
        ("30min ago", NOW - timedelta(minutes=30)),
        ("1 week 2d ago", NOW - timedelta(days=9)),
    ],
)
def test_a_time_is_taken_as_journalctl_takes_it(text: str, expected: datetime) -> None:
    assert moment(text, NOW) == expected


@pytest.mark.parametrize(
    "text",
    ["", "1h", "-", "-1", "-1x", "ago", "h ago", "-1h ago", "25:00", "2026-02-30", "2026-13-01T00:00:00Z", "soon",
     "-999999999w", "2026-11-25T14:00:00+25:00", "1767225600"],
)  # fmt: skip
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time such as 2026-11-25T14:00:00Z"):
        moment(text, NOW)


def test_a_day_begins_by_the_clock_of_that_day_not_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    assert moment("2026-07-01", NOW) == datetime(2026, 6, 30, 22, tzinfo=UTC)
    assert moment("2026-12-01", NOW) == datetime(2026, 11, 30, 23, tzinfo=UTC)
