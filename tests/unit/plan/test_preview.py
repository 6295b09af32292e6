"""What `plan` says of a reload: each thing that would change, and nothing else."""

from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from tests.unit.policy.policy_examples import CLIENTS, ENDS, allow, rule, server_config
from wgd.model import AuthzMode, Endpoint, Logging, Peer, Policy, PortRange, PublicKey, SecretKey, ServerConfig
from wgd.plan.gateway import Actual, Desired, Keys, desired
from wgd.plan.preview import Change, preview
from wgd.plan.state import Link

PRIVATE, PRESHARED = SecretKey(b"p" * 32), SecretKey(b"s" * 32)
SETTINGS = {
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/all/src_valid_mark": "0",
}
ORIGINALS = {"ipv4/ip_forward": "0", "ipv6/conf/all/forwarding": "0"}
CONFIG = server_config(rule(allow("10.20.0.0/24", 6, 80), name="web"), logging=True)


def want(config: ServerConfig, private: SecretKey = PRIVATE, preshared: bool = False) -> Desired:  # noqa: FBT001, FBT002 - of a test
    return desired(config, Keys(private, {CLIENTS[0]: PRESHARED} if preshared else {}), frozenset({4, 6}))


BEFORE = want(CONFIG)
REACHED = Actual(
    Link(7, "wgd0", "wireguard", 1420, up=True),
    BEFORE.device, BEFORE.addresses, BEFORE.routes, BEFORE.rules, BEFORE.ruleset, SETTINGS,
)  # fmt: skip


def changes(wanted: Desired, actual: Actual = REACHED) -> list[Change]:
    return list(preview(wanted, BEFORE, actual, ORIGINALS))


def of(object_: str, found: list[Change]) -> list[tuple[str, str]]:
    return [(change.action, change.detail) for change in found if change.object == object_]


def with_peers(*peers: Peer) -> ServerConfig:
    return replace(CONFIG, peers=peers)


def test_the_config_in_force_changes_nothing() -> None:
    assert changes(BEFORE) == []


@pytest.mark.parametrize(("passed", "left"), [(-60, True), (0.5, True), (60, False)])
def test_that_a_rule_ends_by_itself_is_no_change(passed: float, *, left: bool) -> None:
    """The kernel has dropped its elements at the end; before, to find none of them is a change."""
    ending = want(replace(CONFIG, policy=Policy((replace(CONFIG.policy.rules[0], until=ENDS[0]),))))
    sets = {
        name: key_set if left or key_set.until is None else replace(key_set, elements=frozenset(), until=0)
        for name, key_set in ending.ruleset.sets.items()
    }
    actual = replace(REACHED, ruleset=replace(ending.ruleset, sets=sets))
    assert list(preview(ending, ending, actual, ORIGINALS, ENDS[0] + passed)) == []
    emptied = {name: replace(key_set, elements=frozenset()) for name, key_set in ending.ruleset.sets.items()}
    gone = replace(REACHED, ruleset=replace(ending.ruleset, sets=emptied))
    assert list(preview(ending, ending, gone, ORIGINALS, ENDS[0] - 60))


def test_what_clients_do_is_no_change() -> None:
    busy = replace(BEFORE.device.peers[0], endpoint=Endpoint("192.0.2.9", 4711), last_handshake=9.0, rx_bytes=5)
    device = replace(BEFORE.device, peers=(busy, *BEFORE.device.peers[1:]))
    assert changes(BEFORE, replace(REACHED, device=device)) == []


def test_a_peer_that_comes_brings_its_routes() -> None:
    carol = Peer("carol", PublicKey(b"c" * 32), (ip_network("10.80.0.9/32"),))
    found = changes(want(with_peers(*CONFIG.peers, carol)))
    assert of("peer", found) == [("added", f"carol ({carol.public_key})")]
    assert of("route", found) == [
        ("added", "unicast 10.80.0.9/32 in table 7780"),
        ("added", "prohibit 10.80.0.9/32 in table 7781"),
    ]
    assert of("set", found) == [
        ("changed", "set clients4: 1 elements come, 0 go"),
        ("changed", "set pairs4: 1 elements come, 0 go"),
    ]


def test_a_peer_that_goes_is_named_as_it_was() -> None:
    found = changes(want(with_peers(*(peer for peer in CONFIG.peers if peer.name != "bob"))))
    assert of("peer", found) == [("removed", f"bob ({CLIENTS[1]})")]
    assert ("removed", "unicast 10.80.0.3/32 in table 7780") in of("route", found)


def test_a_peer_that_changes_says_in_what_and_never_a_key() -> None:
    alice = replace(
        CONFIG.peers[0],
        allowed_ips=(ip_network("10.80.0.2/32"),), endpoint=Endpoint("192.0.2.7", 51820), persistent_keepalive=25,
    )  # fmt: skip
    found = changes(want(with_peers(alice, *CONFIG.peers[1:]), preshared=True))
    words = "allowed_ips, endpoint, persistent_keepalive, preshared key"
    assert of("peer", found) == [("changed", f"alice ({CLIENTS[0]}): {words}")]


def test_a_peer_that_is_renamed_is_said() -> None:
    found = changes(want(with_peers(replace(CONFIG.peers[0], name="alicia"), *CONFIG.peers[1:])))
    assert of("peer", found) == [("changed", "alice is now called alicia")]


def test_allow_rules_are_named_with_clients_protocol_and_ports() -> None:
    new = rule(
        replace(allow("fd20::/64", 17), ports=(PortRange(53, 53), PortRange(8000, 8999))),
        allow("10.0.0.0/8"),
        name="more",
    )
    found = changes(want(server_config(new, logging=True)))
    assert of("policy", found) == [
        ("removed", "web[0]: alice to 10.20.0.0/24 tcp 80"),
        ("added", "more[0]: alice to fd20::/64 udp 53,8000-8999"),
        ("added", "more[1]: alice to 10.0.0.0/8"),
    ]
    assert of("set", found) or of("table", found)


def test_what_the_network_may_begin_and_when_a_rule_ends_is_said() -> None:
    guest = replace(
        rule(allow("10.20.0.9/32"), name="guest"), allow_from=(allow("10.20.0.5/32", 6, 22),), until=ENDS[0]
    )
    found = changes(want(server_config(*CONFIG.policy.rules, guest, logging=True)))
    assert of("policy", found) == [
        ("added", "guest[0]: alice to 10.20.0.9/32 until 2100-01-01T00:00:00+00:00"),
        ("added", "guest.allow_from[0]: 10.20.0.5/32 tcp 22 to alice until 2100-01-01T00:00:00+00:00"),
    ]


def test_a_rule_of_many_clients_names_some_and_counts_the_rest() -> None:
    peers = tuple(Peer(f"p{n}", PublicKey(bytes([n]) * 32), (ip_network(f"10.80.1.{n}/32"),)) for n in range(7))
    config = replace(CONFIG, peers=(*CONFIG.peers, *peers))
    clients = tuple(peer.public_key for peer in peers)
    everyone = replace(rule(allow("10.0.0.0/8"), name="all"), clients=clients)
    config = replace(config, policy=replace(config.policy, rules=(*config.policy.rules, everyone)))
    assert of("policy", changes(want(config))) == [("added", "all[0]: p0, p1, p2, p3, p4 and 2 more to 10.0.0.0/8")]


def test_another_mode_changes_rules_and_chains() -> None:
    found = changes(want(server_config(*CONFIG.policy.rules, mode=AuthzMode.OBSERVE, logging=True)))
    assert of("config", found) == [("changed", "authz_mode: enforce -> observe")]
    assert ("removed", "routing rule 7780 (IPv4): prohibit") in of("rule", found)
    assert ("changed", "chain deny") in of("table", found)


def test_another_event_log_is_said() -> None:
    elsewhere = replace(CONFIG, logging=Logging(enabled=True, path="/elsewhere", nflog_group=7))
    assert of("config", changes(want(elsewhere))) == [
        ("changed", "event log: /var/log/wgd/events.jsonl from group 100 -> /elsewhere from group 7")
    ]
    off = replace(CONFIG, logging=Logging(enabled=False))
    assert of("config", changes(want(off)))[0][1].endswith("-> off")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"listen_port": 4242}, ("link", "changed", "listen port: 51820 -> 4242")),
        ({"mtu": 1280}, ("link", "changed", "MTU: 1420 -> 1280")),
    ],
)
def test_the_interface_s_settings_are_said(changed: dict[str, int], said: tuple[str, str, str]) -> None:
    found = changes(want(replace(CONFIG, interface=replace(CONFIG.interface, **changed))))
    assert found == [Change(*said)]


def test_another_private_key_is_said_and_not_shown() -> None:
    (found,) = changes(want(CONFIG, SecretKey(b"q" * 32)))
    assert found == Change("link", "changed", "private key: every session begins anew")


def test_another_address_comes_and_the_old_one_goes_and_a_foreign_one_stays() -> None:
    addresses = (ip_interface("10.80.0.9/24"), ip_interface("fd80::1/64"))
    wanted = want(replace(CONFIG, interface=replace(CONFIG.interface, address=addresses)))
    foreign = replace(BEFORE.addresses[0], address=ip_interface("10.99.0.1/24"))
    found = changes(wanted, replace(REACHED, addresses=(*BEFORE.addresses, foreign)))
    assert of("address", found) == [("added", "10.80.0.9/24"), ("removed", "10.80.0.1/24")]


def test_what_somebody_took_away_would_be_put_back() -> None:
    found = changes(
        BEFORE, replace(REACHED, ruleset=None, link=None, device=None, settings={**SETTINGS, "ipv4/ip_forward": "0"})
    )
    assert of("table", found) == [("added", "inet wgd")]
    assert of("link", found) == [("added", "wgd0")]
    assert of("forwarding", found) == [("changed", "ipv4/ip_forward: 0 -> 1")]
    down = replace(REACHED, link=Link(7, "wgd0", "wireguard", 1420, up=False))
    assert of("link", changes(BEFORE, down)) == [("changed", "wgd0 is set up")]


def test_what_peers_change_by_hand_would_be_put_back() -> None:
    device = replace(BEFORE.device, peers=BEFORE.device.peers[1:])
    assert of("peer", changes(BEFORE, replace(REACHED, device=device))) == [("added", f"alice ({CLIENTS[0]})")]
