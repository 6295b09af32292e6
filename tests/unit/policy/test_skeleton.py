import re
from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from tests.unit.policy.policy_examples import CLIENTS, allow, rule, server_config
from wgd.model import AuthzMode, DenyWith, Logging, Peer, Policy, Routing, ServerConfig
from wgd.policy.ruleset import Chain
from wgd.policy.skeleton import Context, fixed_chains
from wgd.policy.table import policy_digest

MODES = pytest.mark.parametrize("mode", list(AuthzMode))
LOGGING = pytest.mark.parametrize("logging", [False, True])


def chains(config: ServerConfig, *held: int) -> dict[str, Chain]:
    return fixed_chains(config, Context("0123abcd", frozenset(held)))


def lines(found: dict[str, Chain]) -> list[str]:
    return [line for chain in found.values() for line in chain.rules]


@LOGGING
@pytest.mark.parametrize("deny_with", list(DenyWith))
def test_observe_drops_nothing_but_what_promise_11_and_redirects_ask_for(deny_with: DenyWith, *, logging: bool) -> None:
    config = server_config(mode=AuthzMode.OBSERVE, logging=logging)
    found = lines(chains(replace(config, deny_with=deny_with)))
    assert not [line for line in found if "reject" in line]
    assert [line for line in found if "drop" in line] == ["icmp type redirect drop", "icmpv6 type nd-redirect drop"]


@LOGGING
def test_enforce_drops_what_nobody_marked_in_forward_and_input(*, logging: bool) -> None:
    found = chains(server_config(logging=logging))
    assert found["forward"].rules[0] == "meta mark & 0x10000000 == 0 jump unmarked"
    assert found["unmarked"].rules[:2] == ('iifname "wgd0" drop', 'oifname "wgd0" drop')
    assert found["input_free"].rules[-1] == "drop"
    assert found["deny"].rules[-1] == "counter drop"


def test_reject_answers_nothing_that_is_invalid_or_sent_to_many() -> None:
    found = chains(replace(server_config(), deny_with=DenyWith.REJECT))
    assert found["deny"].rules == (
        "ct state invalid counter drop",
        "fib daddr type { broadcast, multicast } counter drop",
        "meta l4proto 6 counter reject with tcp reset",
        "counter reject with icmpx admin-prohibited",
    )
    assert found["spoofed"].rules == ("counter drop",)
    assert not [line for line in lines(chains(server_config())) if "reject" in line]


@MODES
@LOGGING
def test_every_chain_that_a_rule_goes_to_is_there(mode: AuthzMode, *, logging: bool) -> None:
    found = chains(server_config(mode=mode, logging=logging))
    targets = {
        words[words.index(verb) + 1]
        for words in map(str.split, lines(found))
        for verb in ("jump", "goto")
        if verb in words
    }
    assert targets <= found.keys()


@MODES
@LOGGING
def test_no_chain_is_empty_so_that_each_is_known_by_its_mark(mode: AuthzMode, *, logging: bool) -> None:
    assert all(chain.rules for chain in chains(server_config(mode=mode, logging=logging)).values())


def test_the_mark_is_cleared_before_anybody_is_asked_and_no_other_bit_is_touched() -> None:
    config = replace(server_config(), routing=Routing(mark=0x40))
    found = chains(config)
    asking = [rule for rule in found["prerouting"].rules if "$" not in rule]
    assert asking[0] == "meta mark set meta mark & 0xffffffbf"
    assert found["allow_packet"].rules == ("meta mark set meta mark | 0x00000040 accept",)


def test_the_mark_is_set_only_for_what_is_established_in_the_generation_in_force_or_was_asked_about() -> None:
    found = chains(server_config(logging=True))
    marking = [line for line in lines(found) if "mark set meta mark |" in line]
    assert [line for line in marking if "$" not in line] == ["meta mark set meta mark | 0x10000000 accept"]
    assert all("ct state established ct mark" in line for line in marking if "$" in line)


def test_no_established_packet_is_accepted_without_its_direction_being_looked_at() -> None:
    """What a client sends comes from the interface; what is answered to one, from anywhere but another client."""
    fast = [rule for rule in chains(server_config())["prerouting"].rules if "$" in rule]
    from_clients = [rule for rule in fast if 'iifname "wgd0"' in rule and "ct mark & 0x3e000000 == $in_force" in rule]
    answers = [rule for rule in fast if "ct direction reply" in rule and "ct mark & 0x3f000000 == $answered" in rule]
    assert sorted(from_clients + answers) == sorted(fast)
    assert len(from_clients) == len(answers) == 2


@MODES
def test_masquerade_is_for_the_clients_traffic_alone_and_in_enforce_for_what_is_authorised(mode: AuthzMode) -> None:
    found = chains(replace(server_config(mode=mode), masquerade=("eth0", "eth1")))["source_nat"]
    authorised = "meta mark & 0x10000000 != 0 " if mode is AuthzMode.ENFORCE else ""
    assert found.rules == (f'iifname "wgd0" oifname {{ "eth0", "eth1" }} {authorised}masquerade',)
    assert found.hook == "type nat hook postrouting priority 100; policy accept;"
    assert "source_nat" not in chains(server_config(mode=mode))


@MODES
def test_protocols_are_numbers_since_a_host_may_know_no_names(mode: AuthzMode) -> None:
    """Some, such as ipv6-icmp, nft looks up in /etc/protocols, which a minimal host does not have."""
    config = replace(server_config(mode=mode, logging=True), deny_with=DenyWith.REJECT)
    found = [line for line in lines(chains(config)) if re.search(r"(l4proto|nexthdr) ({ )?[a-z]", line)]
    assert found == []


@pytest.mark.parametrize("held", [(), (4,), (6,), (4, 6)])
def test_only_a_family_whose_switch_wgd_holds_is_closed_to_others(held: tuple[int, ...]) -> None:
    closed = [line for line in chains(server_config(), *held)["unmarked"].rules if "nfproto" in line]
    names = {4: "ipv4", 6: "ipv6"}
    assert closed == [
        f'meta nfproto {names[family]} iifname != "wgd0" oifname != "wgd0" drop' for family in sorted(held)
    ]


def test_without_logging_nothing_is_logged() -> None:
    found = chains(server_config(logging=False))
    assert not [line for line in lines(found) if "log prefix" in line]
    assert not [name for name in found if name in ("log_allow", "log_deny", "log_spoof", "log_would_deny")]


@pytest.mark.parametrize(
    ("mode", "absent"), [(AuthzMode.ENFORCE, "log_would_deny"), (AuthzMode.OBSERVE, None)], ids=["enforce", "observe"]
)
def test_each_logged_line_carries_event_verdict_and_the_policys_digest(mode: AuthzMode, absent: str | None) -> None:
    found = chains(server_config(mode=mode, logging=True))
    words = {"log_allow": "open allow", "log_deny": "deny deny", "log_spoof": "deny spoof"}
    words |= {"log_would_deny": "open would_deny"} if absent is None else {}
    assert {name for name in found if name.startswith("log_") and name.removeprefix("log_") not in ("open", "forward")}
    for name, event in words.items():
        logging = [line for line in found[name].rules if "limit rate" not in line]
        assert logging
        assert all(f'log prefix "{event} 0123abcd"' in line for line in logging)
    assert absent not in found


def test_ipv4_goes_to_the_group_and_ipv6_to_the_next() -> None:
    config = replace(server_config(), logging=Logging(enabled=True, nflog_group=7))
    for line in chains(config)["log_allow"].rules:
        assert ("group 7 " in line) == ("ip hdrlength" in line or "nfproto ipv4" in line)
        assert ("group 8 " in line) != ("group 7 " in line)


def test_a_family_without_a_tunnel_address_answers_no_echo() -> None:
    config = server_config()
    only4 = replace(config, interface=replace(config.interface, address=(ip_interface("10.80.0.1/24"),)))
    assert any("icmpv6 type echo-request" in line for line in lines(chains(config)))
    assert not any("icmpv6 type echo" in line for line in lines(chains(only4)))


def digest_of(config: ServerConfig, **changes: object) -> str:
    return policy_digest(replace(config, **changes))


def test_the_policys_digest_changes_with_everything_that_an_event_says() -> None:
    config = server_config(rule(allow("10.20.0.0/24", 6, 80)))
    alice, *rest = config.peers
    changed = [
        digest_of(config, policy=Policy((rule(allow("10.20.0.0/24", 6, 80), name="other"),))),
        digest_of(config, policy=Policy((rule(allow("10.20.0.0/24", 6, 81)),))),
        digest_of(config, policy=Policy((rule(allow("10.20.0.0/24", 17, 80)),))),
        digest_of(config, policy=Policy((rule(allow("10.20.0.0/24", 6, 80), clients=CLIENTS[:2]),))),
        digest_of(config, peers=(replace(alice, name="alicia"), *rest)),
        digest_of(config, peers=(replace(alice, allowed_ips=(ip_network("10.80.0.9/32"),)), *rest)),
        digest_of(config, peers=(Peer("alice", CLIENTS[1], alice.allowed_ips), *rest[1:])),
    ]
    assert len({policy_digest(config), *changed}) == len(changed) + 1


def test_the_policys_digest_is_blind_to_what_no_event_says() -> None:
    config = server_config(rule(allow("10.20.0.0/24")))
    alice, *rest = config.peers
    assert policy_digest(config) == digest_of(config, authz_mode=AuthzMode.OBSERVE, routing=Routing(mark=1))
    assert policy_digest(config) == digest_of(config, peers=(replace(alice, persistent_keepalive=25), *rest))


def test_a_chains_mark_is_made_of_its_rules_and_hook() -> None:
    assert Chain.of("accept") == Chain.of("accept")
    assert len({Chain.of("accept").mark, Chain.of("drop").mark, Chain.of("accept", hook="type filter").mark}) == 3
