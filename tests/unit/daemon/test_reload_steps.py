"""A reload of which any step fails: everything goes back, and the caller learns which step it was."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.policy.policy_examples import server_config
from wgd.daemon import gateway as module
from wgd.daemon.found import Memory
from wgd.daemon.gateway import Gateway
from wgd.errors import HostError, KernelError, SubjectError
from wgd.host.files import Note
from wgd.model import SecretKey
from wgd.plan import gateway as plan
from wgd.plan.gateway import Desired, Keys

OLD = plan.desired(server_config(), Keys(SecretKey(b"k" * 32), {}), frozenset())
SAME_PEERS = replace(OLD, addresses=OLD.addresses[:1])
NEW = replace(SAME_PEERS, routes=OLD.routes[1:], device=replace(OLD.device, listen_port=51821))


class Steps:
    """The steps of a gateway, of which those in `failing`, as (old or new, name), fail with `error`."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.taken: list[tuple[str, str]] = []
        self.failing: set[tuple[str, str]] = set()
        self.error: SubjectError = KernelError("wgd0", "Device or resource busy")

    def __call__(self, desired: Desired, _: Desired | None) -> Iterator[tuple[str, Callable[[], None]]]:
        for name in self.names:
            yield name, lambda name=name: self._take(desired, name)

    def _take(self, desired: Desired, name: str) -> None:
        step = ("new" if desired.addresses == NEW.addresses else "old", name)
        if step in self.failing:
            raise self.error
        self.taken.append(step)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Gateway:
    """A gateway that holds OLD, and whose kernel holds whatever was set."""
    table = SimpleNamespace(applied=OLD.ruleset, trust=lambda _: None)
    monkeypatch.setattr(module, "Tunnel", lambda note: SimpleNamespace(memory=Memory(note)))
    monkeypatch.setattr(module, "Table", lambda: table)
    made = Gateway(Note(tmp_path / "found.json"))
    monkeypatch.setattr(Gateway, "monitor", SimpleNamespace(discard=lambda: None), raising=False)
    monkeypatch.setattr(made, "_actual", lambda *_: SimpleNamespace(ruleset=OLD.ruleset))
    monkeypatch.setattr(plan, "differences", lambda *_: ())
    made.desired = OLD
    return made


@pytest.fixture
def steps(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Steps:
    made = Steps([name for name, _ in gateway._steps(NEW, OLD)])
    monkeypatch.setattr(gateway, "_steps", made)
    return made


def test_a_reload_without_a_failure_takes_every_step_once(gateway: Gateway, steps: Steps) -> None:
    gateway.reload(NEW)
    assert steps.taken == [("new", name) for name in steps.names]
    assert gateway.desired == NEW


def test_a_reload_that_changes_no_peer_leaves_peers_and_routes_alone(gateway: Gateway, steps: Steps) -> None:
    gateway.reload(SAME_PEERS)
    large = {"prohibit routes", "peers", "routes"}
    assert steps.taken == [("new", name) for name in steps.names if name not in large]


@pytest.mark.parametrize("kind", [KernelError, HostError])
def test_whichever_step_fails_is_named_and_every_step_goes_back(
    gateway: Gateway, steps: Steps, kind: type[SubjectError]
) -> None:
    assert len(steps.names) > 5
    steps.error = kind("wgd0", "Device or resource busy")
    for failing in steps.names:
        steps.taken, steps.failing = [], {("new", failing)}
        with pytest.raises(kind) as raised:
            gateway.reload(NEW)
        assert str(raised.value) == f"wgd0: Device or resource busy (while setting the {failing})"
        assert [name for which, name in steps.taken if which == "old"] == steps.names
        assert gateway.desired == OLD


def test_when_going_back_fails_too_both_reasons_are_told_and_the_old_config_stays_the_wish(
    gateway: Gateway, steps: Steps
) -> None:
    steps.failing = {("new", "routes"), ("old", "peers")}
    with pytest.raises(KernelError) as raised:
        gateway.reload(NEW)
    assert "while setting the routes" in str(raised.value)
    assert "could not go back" in str(raised.value)
    assert "while setting the peers" in str(raised.value)
    assert gateway.desired == OLD


def test_a_kernel_that_does_not_hold_what_was_set_is_a_failure(
    gateway: Gateway, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differs(desired: Desired, *_: object) -> tuple[plan.Difference, ...]:
        return (plan.Difference("route", "10.80.0.2/32 is missing"),) if desired.addresses == NEW.addresses else ()

    monkeypatch.setattr(plan, "differences", differs)
    with pytest.raises(KernelError, match=r"does not hold what was set: route 10\.80\.0\.2/32 is missing"):
        gateway.reload(NEW)
    assert steps.taken[-1] == ("old", steps.names[-1])
    assert gateway.desired == OLD
