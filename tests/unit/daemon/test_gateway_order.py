"""The order in which a gateway touches forwarding and the ruleset: at no moment does the host forward for others."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.policy.policy_examples import server_config
from wgd.daemon import gateway as module
from wgd.daemon import table
from wgd.daemon.found import Found, Memory
from wgd.daemon.gateway import Gateway
from wgd.host.files import Note
from wgd.model import Forwarding, SecretKey, ServerConfig
from wgd.plan import forwarding
from wgd.plan import gateway as plan
from wgd.plan.gateway import Desired, Keys
from wgd.plan.state import Transaction
from wgd.policy.ruleset import Ruleset

AUTO = server_config()
MANUAL = replace(AUTO, forwarding=Forwarding.MANUAL)
OFF = {
    "ipv4/ip_forward": "0",
    "ipv6/conf/all/forwarding": "0",
    "ipv4/conf/all/accept_redirects": "0",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/all/src_valid_mark": "0",
}
SWITCHES = set(forwarding.SWITCHES.values())


class Host:
    """A host's sysctls and ruleset; after every write it is looked at whether it forwards for others."""

    def __init__(self) -> None:
        self.settings = dict(OFF)
        self.closed = False
        self.was_open = False

    def number(self) -> int:
        return 1

    def read(self, like: Ruleset, unchanged: Ruleset) -> Ruleset | None:
        del like, unchanged

    def apply(self, steps: tuple[Transaction, ...], _planned: float | None = None) -> None:
        self.closed = 'oifname != "wgd0" drop' in "".join(step for step in steps if isinstance(step, str))
        self.look()

    def read_settings(self) -> dict[str, str]:
        return dict(self.settings)

    def write_settings(self, changes: dict[str, str], *, missing_ok: bool = False) -> None:
        del missing_ok
        self.settings |= changes
        self.look()

    def look(self) -> None:
        forwards = any(self.settings[switch] == "1" for switch in SWITCHES)
        self.was_open = self.was_open or (forwards and not self.closed)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()
    monkeypatch.setattr(table, "Nft", lambda: made)
    monkeypatch.setattr(table, "forget_generations", lambda **_: None)
    monkeypatch.setattr(module, "Tunnel", lambda note: SimpleNamespace(memory=Memory(note)))
    monkeypatch.setattr(module, "sysctl", made)
    return made


@pytest.fixture
def gateway(host: Host, tmp_path: Path) -> Gateway:
    made = Gateway(Note(tmp_path / "found.json"))
    made._tunnel.memory.begin(Found("wgd0", created=True))
    assert host.settings == OFF
    return made


def go_to(gateway: Gateway, host: Host, config: ServerConfig) -> Desired:
    """Take those steps to a config that are about forwarding and the ruleset."""
    held = forwarding.held_families(config, host.settings, gateway._originals())
    desired = plan.desired(config, Keys(SecretKey(b"k" * 32), {}), held)
    for name, step in gateway._steps(desired, None):
        if name == "ruleset" or name.startswith("forwarding"):
            step()
    return desired


def test_the_host_forwards_for_clients_and_never_for_others(gateway: Gateway, host: Host) -> None:
    for config in (AUTO, MANUAL, AUTO):
        go_to(gateway, host, config)
        assert (host.settings["ipv4/ip_forward"], host.closed) == (("1", True) if config is AUTO else ("0", False))
    assert not host.was_open


def test_what_is_given_back_is_forgotten_by_the_note(gateway: Gateway, host: Host) -> None:
    go_to(gateway, host, AUTO)
    assert gateway._originals().keys() >= SWITCHES
    go_to(gateway, host, MANUAL)
    assert not gateway._originals().keys() & SWITCHES


def test_manual_leaves_what_the_operator_switched_on_since(gateway: Gateway, host: Host) -> None:
    for config in (AUTO, MANUAL):
        go_to(gateway, host, config)
    host.settings |= dict.fromkeys(SWITCHES, "1")
    go_to(gateway, host, MANUAL)
    assert host.settings["ipv4/ip_forward"] == "1"


def test_manual_says_that_a_family_is_not_forwarded(
    gateway: Gateway, host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    go_to(gateway, host, MANUAL)
    assert caplog.messages[0] == "IPv4 is not forwarded: forwarding is manual, and ipv4/ip_forward is off"
