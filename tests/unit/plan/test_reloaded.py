"""What the event log tells of a reload: one line for each kind of change."""

from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from tests.unit.policy.policy_examples import allow, rule, server_config
from wgd.model import AuthzMode, Forwarding, Logging, Peer, Policy, PublicKey, ServerConfig
from wgd.plan.reloaded import Reloaded, reloaded

WEB = rule(allow("10.20.0.0/24", 6, 80), name="web")
CONFIG = server_config(WEB, logging=True)
FIRST = CONFIG.peers[0]


def new_peer(number: int) -> Peer:
    return Peer(f"new{number}", PublicKey(number.to_bytes(32, "big")), (ip_network(f"10.99.0.{number}/32"),))


def interface(**changed: object) -> ServerConfig:
    return replace(CONFIG, interface=replace(CONFIG.interface, **changed))  # type: ignore[arg-type]


def test_the_same_config_changes_nothing() -> None:
    assert reloaded(CONFIG, CONFIG) == ()
    assert reloaded(server_config(WEB, logging=True), CONFIG) == ()


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (replace(CONFIG, authz_mode=AuthzMode.OBSERVE), (None, "changed", "authz_mode: enforce -> observe", 1)),
        (
            replace(CONFIG, logging=Logging()),
            (None, "changed", f"event log: {Logging().path} from group 100 -> off", 1),
        ),
        (replace(CONFIG, forwarding=Forwarding.MANUAL), ("forwarding", "changed", "forwarding: auto -> manual", 1)),
        (interface(mtu=1380), ("link", "changed", "mtu: any -> 1380", 1)),
        (
            interface(address=(*CONFIG.interface.address, ip_interface("10.81.0.1/24"))),
            ("address", "added", "10.81.0.1/24", 1),
        ),
        (
            replace(CONFIG, peers=(replace(FIRST, persistent_keepalive=25), *CONFIG.peers[1:])),
            ("peer", "changed", FIRST.name, 1),
        ),
        (
            replace(CONFIG, peers=(*CONFIG.peers, *map(new_peer, range(1, 8)))),
            ("peer", "added", "new1, new2, new3, new4, new5 and 2 more", 7),
        ),
    ],
)
def test_each_kind_of_change_is_told_once(wanted: ServerConfig, told: tuple[str | None, str, str, int]) -> None:
    assert reloaded(wanted, CONFIG) == (Reloaded(*told),)


def test_a_peer_that_goes_takes_its_rules_along() -> None:
    alone = replace(CONFIG, peers=CONFIG.peers[1:], policy=Policy(()))
    assert [(each.object, each.action, each.count) for each in reloaded(alone, CONFIG)] == [
        ("peer", "removed", 1),
        ("rule", "removed", 1),
    ]


def test_rules_of_files_that_have_not_changed_are_not_told_again() -> None:
    more = replace(CONFIG, policy=Policy((WEB, rule(allow("10.30.0.0/24"), name="all"))))
    before = replace(CONFIG, policy=Policy((WEB,)))
    (told,) = reloaded(more, before)
    assert (told.object, told.action, told.count) == ("rule", "added", 1)
    assert told.detail.startswith("all[0]: ")
    renamed = replace(more, peers=(replace(FIRST, name="somebody"), *CONFIG.peers[1:]))
    assert ("rule", "added", 2) in [(each.object, each.action, each.count) for each in reloaded(renamed, before)]
