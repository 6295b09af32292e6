"""What somebody else changed is put back, and told once: again and again only ever more rarely."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from wgd.daemon.gateway import Gateway
from wgd.errors import KernelError, WgdError
from wgd.kernel.monitor import Notice, Subject
from wgd.plan.gateway import ALL_PARTS, Difference, Part

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 64.0
"""Seconds between what is told of the same thing; each time twice the time before."""
CALM_SECONDS = 10.0
"""After so long without a change, or after the pause where that is longer, the next one is told at once."""
NAMED = 3
"""How many things a line names before it counts the rest."""

Tell = Callable[[Difference, str, int], None]
"""Takes what was changed, `restored` or `failed`, and how often."""


@dataclass
class _Report:
    """What is known of one thing and not told yet (`count`); `pause` is what the next line has to wait for."""

    count: int
    pause: float
    told: float
    seen: float


class Reports:
    """What was put back or could not be, until it is told."""

    def __init__(self) -> None:
        self._reports: dict[tuple[str, Difference], _Report] = {}

    def add(self, differences: Iterable[Difference], action: str, now: float) -> None:
        """Note differences of which each was `restored` or `failed` at `now`, in seconds of a clock that only rises."""
        for difference in differences:
            report = self._reports.setdefault((action, difference), _Report(0, 0.0, now, now))
            report.count += 1
            report.seen = now

    def due(self, now: float) -> Iterator[tuple[Difference, str, int]]:
        """Yield what is to be told now, as `Tell` takes it: what is alike in one, with the number of changes."""
        alike: dict[tuple[str, str], list[tuple[str, int]]] = {}
        for key, report in tuple(self._reports.items()):
            action, difference = key
            if report.count and now - report.told >= report.pause:
                alike.setdefault((action, difference.object), []).append((difference.detail, report.count))
                report.count, report.told = 0, now
                report.pause = min(max(2 * report.pause, FIRST_PAUSE), LONGEST_PAUSE)
            elif not report.count and now - report.seen > max(CALM_SECONDS, report.pause):
                del self._reports[key]
        for (action, what), told in alike.items():
            details = [detail for detail, _ in told]
            named = ", ".join(details[:NAMED])
            more = f" and {len(details) - NAMED} more" if len(details) > NAMED else ""
            yield Difference(what, named + more), action, sum(count for _, count in told)


class Drift:
    """Reads the kernel back, puts back what is not as it was set, and has it told."""

    def __init__(self, gateway: Gateway, tell: Tell) -> None:
        self._gateway = gateway
        self._tell = tell
        self._reports = Reports()

    def check(self, parts: frozenset[Part] = ALL_PARTS) -> bool:
        """Put back what others changed of `parts`; tell whether there was anything.

        Raise WgdError when the kernel cannot be read, or when something cannot be put back.
        """
        drifted = self._gateway.differences(parts)
        try:
            if drifted:
                self._repair(drifted, parts)
        finally:
            self.tell()
        return bool(drifted)

    def tell(self) -> None:
        """Tell of what had to wait, as far as its time has come."""
        for difference, action, count in self._reports.due(time.monotonic()):
            self._tell(difference, action, count)

    def _repair(self, drifted: tuple[Difference, ...], parts: frozenset[Part]) -> None:
        # With a link or its last address go its routes and, where it is made anew, all that it had.
        lost_link = any(difference.object in ("link", "address") for difference in drifted)
        repaired = ALL_PARTS if lost_link else parts
        try:
            try:
                self._gateway.repair(repaired)
            except KernelError:
                # Somebody may have changed it again before it was read back.
                self._gateway.repair(repaired)
        except WgdError:
            left = self._left(drifted, parts)
            self._reports.add(left, "failed", time.monotonic())
            self._reports.add((each for each in drifted if each not in left), "restored", time.monotonic())
            raise
        self._reports.add(drifted, "restored", time.monotonic())

    def _left(self, drifted: tuple[Difference, ...], parts: frozenset[Part]) -> tuple[Difference, ...]:
        """Return those of the differences that are there still, all of them where that cannot be read."""
        try:
            there = self._gateway.differences(parts)
        except WgdError:
            return drifted
        return tuple(difference for difference in drifted if difference in there)


def parts_of(notices: Iterable[Notice], interface: str, tables: frozenset[int]) -> frozenset[Part]:
    """Return which parts notifications are about, for a gateway with this interface and these routing tables.

    A link that goes down takes its routes with it, and so does its last address, IPv4's without a word (fib_disable_ip
    in net/ipv4/fib_frontend.c).
    """
    parts: set[Part] = set()
    for subject, scope in notices:
        match subject:
            case Subject.TABLE if scope == "inet wgd":
                parts.add(Part.RULESET)
            case Subject.RULE:
                parts.add(Part.RULES)
            case Subject.ROUTE if scope in tables:
                parts.add(Part.ROUTES)
            case Subject.LINK if scope != interface:
                parts.add(Part.LINK)
            case Subject.LINK | Subject.ADDRESS:
                parts |= {Part.LINK, Part.ROUTES}
            case Subject.FORWARDING:
                parts.add(Part.FORWARDING)
            case Subject.LOST:
                # WireGuard itself notifies nothing, so nothing of it is lost.
                parts |= ALL_PARTS - {Part.DEVICE}
    return frozenset(parts)
