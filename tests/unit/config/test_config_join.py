"""What shows only when all files, peers, groups and rules are seen together."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

import pytest
from config_files import INTERFACE, SERVER, key, key_text, peer, server, server_problems

from wgd.config.groups import nesting_order
from wgd.model import NOWHERE, Place

PEERS = "peers:\n" + peer(2) + peer(3)


def rules(*clients: str) -> str:
    """Return a rules section with a rule of three lines for each client_id."""
    return "  rules:\n" + "".join(
        f"    - name: rule {index}\n      client_id: {client}\n      allow: [10.20.0.0/24]\n"
        for index, client in enumerate(clients)
    )


def test_mappings_merge_and_lists_are_joined_in_file_order() -> None:
    config = server(
        f"{SERVER}peers:\n{peer(2)}policy:\n  groups: {{staff: [peer2], one: [peer2]}}\n{rules('group:staff')}",
        "interface:\n  mtu: 1400\n  address: 10.81.0.1/24\nlogging: {nflog_group: 5}\nmasquerade: eth1\n"
        f"peers:\n{peer(3)}policy:\n  groups: {{staff: [peer3]}}\n  rules: [{{client_id: peer3, allow: [10.0.0.1]}}]\n",
        "logging: {path: /srv/events}\nmasquerade: [eth0]\n",
    )
    assert config.interface.address == (ip_interface("10.80.0.1/24"), ip_interface("10.81.0.1/24"))
    assert config.interface.mtu == 1400
    assert config.masquerade == ("eth1", "eth0")
    assert (config.logging.nflog_group, config.logging.path) == (5, "/srv/events")
    assert [entry.name for entry in config.peers] == ["peer2", "peer3"]
    assert [rule.clients for rule in config.policy.rules] == [(key(2), key(3)), (key(3),)]


def test_a_rule_is_known_by_its_file_and_place_in_that_file() -> None:
    drop_in = f"peers:\n{peer(2)}policy:\n  rules: [{{client_id: peer2, allow: [10.0.0.1, 10.0.0.2]}}]\n"
    (rule,) = server(SERVER, drop_in).policy.rules
    assert rule.label(1) == "server.d/1.yaml:policy.rules[0].allow[1]"
    assert rule.allow[1].place.file == "server.d/1.yaml"


def test_a_scalar_given_in_two_files_is_told_with_both() -> None:
    assert server_problems(SERVER, "authz_mode: enforce\n", "interface:\n  name: wgd1\n") == [
        "server.d/1.yaml:1: authz_mode: is given already in server.yaml:2: keep one of the two",
        "server.d/2.yaml:2: interface.name: is given already in server.yaml:1: keep one of the two",
    ]


def test_problems_of_all_files_are_told_in_one_go() -> None:
    problems = server_problems(INTERFACE + "x: 1\n", "authz_mode: strict\n", "a: [\n")
    assert [problem.split(": ")[0] for problem in problems] == [
        "server.d/1.yaml:1",
        "server.d/2.yaml:2",
        "server.yaml:2",
    ]


def test_what_any_file_gives_is_not_missing() -> None:
    assert server("interface: {name: wgd0}\n", "authz_mode: observe\ninterface: {address: 10.80.0.1, listen_port: 1}\n")


def test_duplicate_peer_names_and_keys_are_told_at_the_second() -> None:
    text = f"{SERVER}peers:\n{peer(2)}{peer(3, name='peer2')}"
    again = f"peers:\n{peer(2, name='other', allowed_ips='10.80.0.9')}"
    same_key, same_name = server_problems(text, again)
    assert same_key.startswith("server.d/1.yaml:3: peers[0].public_key: is the same key as the one at server.yaml:5: ")
    assert same_name.startswith("server.yaml:7: peers[1].name: the name 'peer2' is taken by the peer at server.yaml:4")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("10.80.0.2", "10.80.0.2"),
        ("10.80.0.0/28", "10.80.0.8"),
        ("10.90.0.8", "10.90.0.0/28"),
        ('"fd80::/64"', '"fd80::2"'),
    ],
)
def test_overlapping_allowed_ips_are_told_at_the_later_peer(first: str, second: str) -> None:
    text = "interface: {name: wgd0, address: 10.80.0.129/24, listen_port: 1}\nauthz_mode: enforce\npeers:\n"
    (problem,) = server_problems(text + peer(2, allowed_ips=first) + peer(3, allowed_ips=second))
    assert problem.startswith("server.yaml:9: peers[1].allowed_ips: ")
    assert "of peer 'peer2' at server.yaml:6: it must have one owner" in problem


def test_overlaps_within_one_peer_are_its_own_affair() -> None:
    (only,) = server(f"{SERVER}peers:\n{peer(2, allowed_ips='[10.81.0.0/16, 10.81.0.2]')}").peers
    assert only.allowed_ips == (ip_network("10.81.0.0/16"), ip_network("10.81.0.2/32"))


def test_a_network_over_many_other_peers_is_one_problem() -> None:
    text = f"{SERVER}peers:\n" + "".join(peer(number) for number in range(2, 40))
    (problem,) = server_problems(text + peer(99, allowed_ips="10.80.0.32/28"))
    assert "peers[38].allowed_ips: 10.80.0.32/28 overlaps 10.80.0.32/32 of peer 'peer32'" in problem


def test_a_peer_must_not_cover_the_gateways_own_address() -> None:
    (problem,) = server_problems(f"{SERVER}peers:\n{peer(2, allowed_ips='[10.81.0.0/24, 10.80.0.0/24]')}")
    assert problem == (
        "server.yaml:6: peers[0].allowed_ips[1]: 10.80.0.0/24 covers the gateway's own address 10.80.0.1: narrow it"
    )


@pytest.mark.parametrize("network", ["0.0.0.0/0", '"::/0"'])
def test_a_peer_must_not_claim_every_address(network: str) -> None:
    (problem,) = server_problems(f"{SERVER}peers:\n{peer(2, allowed_ips=network)}{peer(3)}")
    assert "peers[0].allowed_ips: " in problem
    assert "claims every address there is" in problem


def test_a_rule_for_a_client_that_is_no_peer_is_told() -> None:
    text = f"{SERVER}{PEERS}policy:\n{rules('peer9', key_text(9), '[peer2, group:none, pear3]')}"
    assert server_problems(text) == [
        "server.yaml:13: policy.rules[0].client_id: no peer is named 'peer9'; did you mean peer3?",
        "server.yaml:16: policy.rules[1].client_id: is the public key of no peer: add the peer or correct the key",
        "server.yaml:19: policy.rules[2].client_id[1]: there is no group 'none'",
        "server.yaml:19: policy.rules[2].client_id[2]: no peer is named 'pear3'; did you mean peer3?",
    ]


def test_a_policy_test_for_a_client_that_is_no_peer_is_told() -> None:
    tests = "  tests: [{client_id: peer9, to: 10.0.0.1, proto: gre, expect: deny}]\n"
    (problem,) = server_problems(f"{SERVER}{PEERS}policy:\n{tests}")
    assert problem.startswith("server.yaml:11: policy.tests[0].client_id: no peer is named 'peer9'")


def test_clients_of_a_peer_with_another_mistake_are_not_called_unknown() -> None:
    broken = peer(2, allowed_ips="10.80.0.300")
    assert len(server_problems(f"{SERVER}peers:\n{broken}policy:\n{rules('peer2', key_text(2))}")) == 1
    nameless = peer(2, name="'-'")
    assert len(server_problems(f"{SERVER}peers:\n{nameless}policy:\n{rules('peer2', key_text(2))}")) == 1
    keyless = peer(2).replace(key_text(2), "?")
    assert len(server_problems(f"{SERVER}peers:\n{keyless}policy:\n{rules('peer2', key_text(2))}")) == 1


def test_clients_that_an_unreadable_file_may_define_are_not_called_unknown() -> None:
    text = f"{SERVER}policy:\n{rules('peer2', key_text(2), 'group:staff')}"
    (problem,) = server_problems(text, f"peers:\n{peer(2)}policy: [\n")
    assert "is not valid YAML" in problem


def test_groups_may_hold_groups_keys_and_names() -> None:
    groups = (
        f'  groups:\n    all: ["group:staff", "{key_text(3)}", peer2]\n    staff: ["group:inner"]\n    inner: [peer2]\n'
    )
    (rule,) = server(f"{SERVER}{PEERS}policy:\n{groups}{rules('group:all')}").policy.rules
    assert rule.clients == (key(2), key(3))


def test_groups_that_contain_each_other_are_told_with_their_path() -> None:
    groups = (
        '  groups:\n    a: ["group:b"]\n    b: [peer2, "group:c"]\n    c: ["group:a"]\n    d: ["group:d", "group:a"]\n'
    )
    three, alone = server_problems(f"{SERVER}{PEERS}policy:\n{groups}{rules('group:a')}")
    assert "policy.groups.c[0]: the groups contain each other: 'a' -> 'b' -> 'c' -> 'a'; take one" in three
    assert "policy.groups.d[0]: the groups contain each other: 'd' -> 'd'; take one" in alone


def test_inner_groups_come_before_outer_ones_and_each_once() -> None:
    def members(*groups: str) -> list[tuple[str, Place]]:
        return [(f"group:{group}", NOWHERE) for group in groups]

    groups = {"top": members("left", "right"), "left": members("base"), "right": members("base"), "base": members()}
    assert nesting_order(groups) == (["base", "left", "right", "top"], [])


def test_groups_nested_thousands_deep_are_resolved() -> None:
    nested = "".join(f'    g{number}: ["group:g{number + 1}"]\n' for number in range(5000))
    groups = f"  groups:\n{nested}    g5000: [peer2]\n"
    (rule,) = server(f"{SERVER}{PEERS}policy:\n{groups}{rules('group:g0')}").policy.rules
    assert rule.clients == (key(2),)


def test_unknown_members_of_groups_are_told_even_when_no_rule_uses_the_group() -> None:
    assert server_problems(f'{SERVER}{PEERS}policy:\n  groups: {{a: [carol, "group:zz"]}}\n') == [
        "server.yaml:11: policy.groups.a[0]: no peer is named 'carol'",
        "server.yaml:11: policy.groups.a[1]: there is no group 'zz'",
    ]


def test_two_rules_of_one_name_are_told() -> None:
    text = f"{SERVER}{PEERS}policy:\n{rules('peer2', 'peer3').replace('rule 1', 'rule 0')}"
    (problem,) = server_problems(text)
    assert problem.startswith(
        "server.yaml:15: policy.rules[1].name: the name 'rule 0' is taken by the rule at server.yaml:12"
    )


def test_a_gateway_address_given_twice_is_told() -> None:
    (problem,) = server_problems(SERVER, "interface: {address: 10.80.0.1/16}\n")
    assert problem.startswith("server.d/1.yaml:1: interface.address: 10.80.0.1 is given already in server.yaml:1")


def test_the_mtu_must_fit_the_addresses_of_all_files() -> None:
    small = SERVER.replace("51820}", "51820, mtu: 1279}")
    assert server(small).interface.mtu == 1279
    (problem,) = server_problems(small, 'interface: {address: ["fd80::1/64"]}\n')
    assert problem.startswith("server.yaml:1: interface.mtu: must be at least 1280")


@pytest.mark.parametrize(
    "place",
    [
        "interface: {{private_key: {0}}}",
        "interface: {{private_key_file: {0}}}",
        "interface: {{name: {0}}}",
        "interface: {{listen_port: {0}}}",
        "{0}: 1",
        "{0}",
        "peers: [{{name: {0}}}]",
        "peers: [{{public_key: {0}x}}]",
        "peers: [{{preshared_key: {0}}}]",
        "peers: [{{endpoint: '{0}:1'}}]",
        "peers: [{{persistent_keepalive: {0}}}]",
        "policy: {{groups: {{{0}: [a]}}}}",
        "policy: {{groups: {{a: [{0}]}}}}",
        "policy: {{rules: [{{client_id: {0}, allow: [{0}]}}]}}",
        "policy: {{rules: [{{client_id: a, allow: [{{to: {0}, proto: {0}, ports: {0}, {0}: 1}}]}}]}}",
        "authz_mode: {0}\nauthz_mode: {0}",
        "{0}: 1\n{0}: 1",
        "x: [{0}",
        "x: &{0} 1",
        "x: *{0}",
        "x: !{0} 1",
    ],
)
def test_a_key_in_the_wrong_place_never_shows_in_a_problem(place: str) -> None:
    secret = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlYzE="
    problems = server_problems(place.format(secret) + "\n")
    assert problems
    assert all(secret[start : start + 6] not in problem for problem in problems for start in range(len(secret) - 6))
