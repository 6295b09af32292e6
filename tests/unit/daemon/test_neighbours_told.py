import pytest

from wgd.daemon import neighbours as module
from wgd.daemon.neighbours import REST, Neighbours
from wgd.errors import KernelError
from wgd.kernel.monitor import Notice, Subject
from wgd.plan.neighbours import Finding

DOCKER = Finding("table ip filter, chain FORWARD", "its policy drops what clients send", "Let it pass")
UFW = Finding("table ip filter, chain ufw-reject-forward", "drops replies to clients", "Let them pass")
TABLE = Notice(Subject.TABLE, "ip filter")


class Host:
    """A host on which `found` is found; looking takes `seconds`."""

    def __init__(self) -> None:
        self.found: tuple[Finding, ...] = ()
        self.seconds, self.now, self.looks = 0.0, 1000.0, 0
        self.broken = False

    def read(self) -> tuple[Finding, ...]:
        self.looks += 1
        self.now += self.seconds
        if self.broken:
            raise KernelError("nftables", "cannot be listed")
        return self.found


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()
    monkeypatch.setattr(module.time, "monotonic", lambda: made.now)
    return made


def test_are_looked_for_at_first_and_when_somebody_changed_something(host: Host) -> None:
    neighbours = Neighbours(host.read)
    for notices, looks in (((), 1), ((), 1), ((Notice(Subject.ROUTE, 254),), 1), ((TABLE,), 2), ((), 2)):
        neighbours.notified(notices)
        neighbours.look()
        assert host.looks == looks


def test_are_looked_for_anew_when_asked_to(host: Host) -> None:
    neighbours = Neighbours(host.read)
    neighbours.look()
    neighbours.look(anew=True)
    assert host.looks == 2


def test_that_take_long_to_find_are_looked_for_rarely(host: Host) -> None:
    host.seconds = 2.0
    neighbours = Neighbours(host.read)
    neighbours.look()
    neighbours.notified((TABLE,))
    host.now += REST * 2.0 - 1.0
    neighbours.look()
    assert host.looks == 1
    host.now += 2.0
    neighbours.look()
    assert host.looks == 2


def test_are_logged_when_they_come_and_go_and_not_in_between(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    neighbours = Neighbours(host.read)
    for found in ((DOCKER,), (DOCKER,), (DOCKER, UFW), (UFW,)):
        host.found = found
        neighbours.look(anew=True)
        assert neighbours.found == found
    assert caplog.messages == [
        f"in the way: {DOCKER}",
        f"in the way: {UFW}",
        f"no longer in the way: {DOCKER.where}",
    ]
    assert neighbours.fields() == [{"where": UFW.where, "effect": UFW.effect, "remedy": UFW.remedy}]


def test_that_cannot_be_read_are_said_to_be_unknown(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.broken = True
    Neighbours(host.read).look()
    assert caplog.messages == ["what others do to the traffic is not known: nftables: cannot be listed"]
