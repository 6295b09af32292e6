"""What Status and Explain answer: every field that the interface description has, in its type."""

import re
from dataclasses import replace
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.policy.policy_examples import CLIENTS, allow, rule, server_config
from wgd.daemon.description import SERVER
from wgd.daemon.explaining import explanation, question
from wgd.daemon.status import (
    DRIFTS_KEPT,
    LIVE_SECONDS,
    DriftSeen,
    View,
    is_live,
    kernel_fields,
    troubles_in_words,
)
from wgd.daemon.tally import Counters
from wgd.kernel.nft import Dropped
from wgd.model import Endpoint, SecretKey
from wgd.plan.explain import Answer, Verdict
from wgd.plan.gateway import Desired, Difference, Keys, desired
from wgd.plan.state import DevicePeer, Link

CONFIG = server_config(
    rule(allow("10.20.0.0/24", 6, 80), allow("10.20.1.0/24"), clients=CLIENTS[:2]), rule(allow("::/0"))
)
PRESHARED = SecretKey(b"s" * 32)
WANTED: Desired = desired(CONFIG, Keys(SecretKey(b"p" * 32), {CLIENTS[0]: PRESHARED}), frozenset())
LINK = Link(7, "wgd0", "wireguard", 1420, up=True)
KINDS = {"string": str, "int": int, "float": (int, float), "bool": bool}


def described(type_: str) -> dict[str, str]:
    """Return the fields of a type of the description, with their types."""
    found = re.search(rf"^type {type_} \((.*?)\n\)", SERVER, re.MULTILINE | re.DOTALL)
    assert found
    return dict(re.findall(r"^  (\w+): ([\w?\[\]]+)", found[1], re.MULTILINE))


def conforms(value: Any, type_: str) -> bool:
    """Tell whether a value is of a type of the description."""
    if type_.startswith("?"):
        return value is None or conforms(value, type_[1:])
    if type_.startswith("[]"):
        return isinstance(value, list) and all(conforms(each, type_[2:]) for each in value)
    if type_ in KINDS:
        return isinstance(value, KINDS[type_])
    fields = described(type_)
    return value.keys() == fields.keys() and all(conforms(value[name], kind) for name, kind in fields.items())


def view(**changed: Any) -> View:
    return replace(View(LINK, WANTED.device, WANTED.addresses, Dropped(3, 1)), **changed)


def test_the_fields_are_those_of_the_description() -> None:
    found = kernel_fields(CONFIG, view()) | DriftSeen().fields()
    wanted = described("Status")
    assert found.keys() <= wanted.keys()
    assert all(conforms(value, wanted[name]) for name, value in found.items())


def test_the_policy_and_what_was_dropped_are_counted() -> None:
    found = kernel_fields(CONFIG, view())
    assert found["policy"] == {"rules": 2, "allow": 3, "clients": 2}
    assert found["dropped"] == {"denied": 3, "spoofed": 1}


def test_an_interface_that_is_gone_is_shown_as_such() -> None:
    found = kernel_fields(CONFIG, view(link=None, device=None, addresses=()))
    assert found["interface"] == {"name": "wgd0", "addresses": [], "listen_port": None, "mtu": None, "up": False}
    assert found["peers"] == []


def test_peers_have_names_and_the_config_s_order_and_a_stranger_is_last() -> None:
    stranger = DevicePeer(replace(CLIENTS[0], raw=b"!" * 32), frozenset())
    device = replace(WANTED.device, peers=(stranger, *reversed(WANTED.device.peers)))
    found = kernel_fields(CONFIG, view(device=device))["peers"]
    assert [peer["name"] for peer in found] == ["alice", "bob", "site", ""]


def test_a_peer_s_session_is_told_and_its_keys_are_not() -> None:
    busy = replace(WANTED.device.peers[0], endpoint=Endpoint("fd00::1", 7), last_handshake=9.5, rx_bytes=5, tx_bytes=6)
    (found,) = kernel_fields(CONFIG, view(device=replace(WANTED.device, peers=(busy,))))["peers"]
    assert (found["endpoint"], found["last_handshake"], found["rx_bytes"], found["tx_bytes"]) == (
        "[fd00::1]:7",
        9.5,
        5,
        6,
    )
    assert not any("cHBw" in str(value) or "c3Nz" in str(value) for value in found.values())
    assert set(found) == set(described("Peer"))


def test_a_peer_is_live_as_long_as_a_session_can_be() -> None:
    peer = replace(WANTED.device.peers[0], last_handshake=1000.0)
    assert is_live(peer.last_handshake, 1000.0 + LIVE_SECONDS - 1)
    assert not is_live(peer.last_handshake, 1000.0 + LIVE_SECONDS)


def test_drift_is_counted_and_the_last_is_kept() -> None:
    seen = DriftSeen()
    for number in range(DRIFTS_KEPT + 5):
        seen.add(Difference("route", f"number {number}"), "restored")
    seen.add(Difference("table", "table"), "failed")
    found = seen.fields()
    assert (found["drift_restored"], found["drift_failed"], len(found["drift"])) == (DRIFTS_KEPT + 5, 1, DRIFTS_KEPT)
    assert (found["drift"][-1]["object"], found["drift"][-1]["action"]) == ("table", "failed")
    assert all(conforms(each, "Drift") for each in found["drift"])


@pytest.mark.parametrize("client", ["alice", str(CLIENTS[0])])
def test_a_question_is_about_a_peer_by_name_or_key(client: str) -> None:
    asked = question(CONFIG, client, ip_address("10.20.0.1"), 6, 80)
    assert asked is not None
    assert asked.client is CONFIG.peers[0]


@pytest.mark.parametrize("client", ["", "Alice", "nobody"])
def test_there_is_no_question_about_nobody(client: str) -> None:
    assert question(CONFIG, client, ip_address("10.20.0.1"), None, None) is None


@pytest.mark.parametrize(
    ("proto", "port", "shown"), [(6, 443, "tcp"), (58, None, "icmpv6"), (99, None, "99"), (None, None, None)]
)
def test_an_explanation_is_that_of_the_description(proto: int | None, port: int | None, shown: str | None) -> None:
    asked = question(CONFIG, "alice", ip_address("fd20::1"), proto, port)
    assert asked is not None
    allowed, unknown = Answer(Verdict.ALLOW, rule="web[0]"), Answer(Verdict.UNKNOWN, ("chain deny",))
    found = explanation(CONFIG, asked, allowed, unknown)
    wanted = described("Explanation")
    assert all(conforms(value, wanted[name]) for name, value in found.items())
    assert (found["protocol"], found["port"], found["agree"]) == (shown, port, False)
    assert explanation(CONFIG, asked, allowed, Answer(Verdict.ALLOW))["agree"]


def recording(lost: int, refused: str | None) -> SimpleNamespace:
    counters = Counters(events=5, lost=lost, undecoded=0, unresolved=0, overruns=0, unsent=0)
    return SimpleNamespace(counters=lambda: counters, refused=refused)


def test_the_line_of_the_service_manager_is_silent_where_all_is_well() -> None:
    assert list(troubles_in_words(recording(0, None), DriftSeen(), 0)) == []
    assert list(troubles_in_words(None, DriftSeen(), 0)) == []


def test_the_line_of_the_service_manager_names_every_trouble() -> None:
    drift = DriftSeen()
    drift.add(Difference("route", "10.80.0.2/32"), "restored")
    drift.add(Difference("peer", "alice"), "failed", 2)
    assert list(troubles_in_words(recording(12, "the disk is full"), drift, 1)) == [
        "12 events lost",
        "not logging: the disk is full",
        "1 change by others put back",
        "2 not put back",
        "1 in the way (wgd-server status)",
    ]
