"""Who shares a limit of logged denials with whom, as the rules and sets say it."""

from dataclasses import replace
from ipaddress import ip_network

from tests.unit.policy.policy_examples import server_config
from wgd.model import ServerConfig
from wgd.policy.limits import limit_rules, limit_sets, wide_sets
from wgd.policy.ruleset import LIMIT_SETS


def config(*allowed_ips: str) -> ServerConfig:
    made = server_config(logging=True)
    peer = replace(made.peers[0], allowed_ips=tuple(map(ip_network, allowed_ips)))
    return replace(made, peers=(peer,))


def test_single_addresses_need_one_rule_a_family_and_direction() -> None:
    rules = limit_rules(config("10.80.0.2/32", "fd80::2/128"))
    assert (len(rules["log_deny"]), len(rules["log_spoof"])) == (4, 2)
    assert wide_sets(config("10.80.0.2/32", "fd80::2/128")) == {}


def test_a_network_has_one_limit_and_none_of_its_addresses_another() -> None:
    wanted = config("10.80.0.2/32", "fd80:1::/64", "10.90.0.0/16")
    assert {name: key_set.elements for name, key_set in wide_sets(wanted).items()} == {
        "wide4_16": {((0x0A5A0000, 0x0A5AFFFF),)},
        "wide6_64": {((0xFD80_0001 << 96, (0xFD80_0001 << 96) + (1 << 64) - 1),)},
    }
    ipv6 = [rule for rule in limit_rules(wanted)["log_spoof"] if "ip6" in rule]
    assert [rule.partition(" limit rate")[0] for rule in ipv6] == [
        "ip6 saddr @wide6_64 update @limit_spoof6 { ip6 saddr & ffff:ffff:ffff:ffff::",
        "ip6 saddr != @wide6_64 update @limit_spoof6 { ip6 saddr",
    ]


def test_a_network_inside_another_of_the_same_client_has_its_limit() -> None:
    assert set(wide_sets(config("fd80:1::/48", "fd80:1:0:7::/64"))) == {"wide6_48"}


def test_a_client_may_be_everything() -> None:
    rule = limit_rules(config("0.0.0.0/0"))["log_spoof"][0]
    assert rule.startswith("ip saddr @wide4_0 update @limit_spoof4 { ip saddr & 0.0.0.0 ")


def test_every_set_that_a_rule_fills_is_made() -> None:
    made = limit_sets()
    rules = " ".join(rule for rules in limit_rules(config("fd80::/64")).values() for rule in rules)
    assert set(made) == set(LIMIT_SETS)
    assert all(f"update @{name} " in rules for name in made)
