"""Rules with an end, and what the network may begin: what the kernel holds of them, and what decide says."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.policy.kernel_questions import Packet, asks, passes
from tests.unit.policy.policy_examples import (
    CLIENTS,
    ENDS,
    SOURCES,
    allow,
    configs,
    flows,
    rule,
    server_config,
)
from wgd.errors import Problem
from wgd.model import Address, Place, Policy, PolicyTest, Rule, ServerConfig
from wgd.policy.decide import Decision, Flow, IncomingFlow, decide, ended_rules, failed_tests
from wgd.policy.extra import compile_extra
from wgd.policy.table import desired_ruleset

ALICE, BOB, _ = CLIENTS
NONE_HELD = frozenset[int]()
HOST, ADDRESS = ip_address("10.20.0.5"), ip_address("10.80.0.2")
FIRST_END, SECOND_END = ENDS
A_CLIENTS = tuple(network for peer in server_config().peers for network in peer.allowed_ips)


def incoming(*entries: object, until: int | None = None, name: str | None = "in") -> Rule:
    return Rule(name, (ALICE,), (), "server.yaml", allow_from=entries, until=until)


def is_a_client(address: Address) -> bool:
    return any(address in network for network in A_CLIENTS)


@settings(max_examples=200)
@given(configs(), st.lists(flows(), min_size=1, max_size=20), st.integers(0, 65535))
def test_the_kernel_answers_what_decide_answers_for_what_the_network_begins(
    config: ServerConfig, asked: list[Flow], noise: int
) -> None:
    ruleset = desired_ruleset(config, NONE_HELD)
    # A packet with the source of a client that comes from elsewhere never gets to be asked about.
    for flow in (flow for flow in asked if not is_a_client(flow.to)):
        decided = decide(config, IncomingFlow(flow.client, flow.to, flow.proto, flow.port)).allowed
        port = noise if flow.port is None else flow.port
        for client in (source for source in SOURCES[flow.client] if source.version == flow.to.version):
            packet = Packet(flow.to, client, flow.proto, noise, port)
            assert asks(ruleset, "from_in", client, packet) == decided
            assert asks(ruleset, "from_out", client, packet.reply()) == decided


@given(configs(), st.sampled_from([None, *ENDS]))
def test_every_set_of_a_rule_with_an_end_has_that_end_and_no_other_has_one(
    config: ServerConfig, only: int | None
) -> None:
    rules = tuple(replace(found, until=only) for found in config.policy.rules)
    sets = compile_extra(replace(config, policy=Policy(rules))).sets
    found = sets.values()
    assert {key_set.until for key_set in found} <= {only, None}
    assert only is None or {name for name, found in sets.items() if found.until is None} == {"pairs4", "pairs6"}


def test_rules_with_different_ends_do_not_share_a_set() -> None:
    config = server_config(
        replace(rule(allow("10.20.0.5/32", 6, 80)), until=FIRST_END),
        replace(rule(allow("10.20.0.0/24", 6, 80)), until=SECOND_END),
    )
    sets = compile_extra(config).sets
    assert sorted((key_set.until, len(key_set.elements)) for name, key_set in sets.items() if "_port4" in name) == [
        (FIRST_END, 1),
        (FIRST_END, 1),
        (SECOND_END, 1),
    ], "one for the host, once more for the gateway's own addresses, and one for the network"


def test_the_first_end_leaves_what_the_second_one_grants() -> None:
    config = server_config(
        replace(rule(allow("10.20.0.5/32"), name="first"), until=FIRST_END),
        replace(rule(allow("10.20.0.0/24"), name="second"), until=SECOND_END),
    )
    flow = Flow(ALICE, HOST, 6, 80)
    answers = [decide(config, flow, now=now).rule for now in (None, FIRST_END - 1, FIRST_END, SECOND_END)]
    assert answers == ["first[0]", "first[0]", "second[0]", None]


def test_a_rule_with_an_end_never_allows_a_whole_flow() -> None:
    config = server_config(
        replace(rule(allow("10.20.0.5/32")), until=FIRST_END), incoming(allow("10.20.0.5/32", 6, 22))
    )
    chains = compile_extra(config).chains.values()
    assert chains
    assert all(line.endswith("goto allow_packet") for chain in chains for line in chain.rules)


def test_a_rule_with_an_end_opens_an_own_address_only_by_its_name() -> None:
    own = ip_address("10.20.0.2")
    for to, opened in (("10.20.0.0/24", False), ("10.20.0.2/32", True)):
        config = server_config(replace(rule(allow(to)), until=FIRST_END))
        assert passes(desired_ruleset(config, NONE_HELD), Packet(ADDRESS, own, 6, 1, 22)) == opened
        assert decide(config, Flow(ALICE, own, 6, 22), [own]).allowed == opened


def test_what_the_network_may_begin_is_named_by_rule_or_place() -> None:
    flow = IncomingFlow(ALICE, HOST, 6, 22)
    named = server_config(incoming(allow("10.20.1.0/24"), allow("10.20.0.5/32", 6, 22)))
    assert decide(named, flow) == Decision(allowed=True, rule="in.allow_from[1]")
    unnamed = server_config(incoming(allow("10.20.0.5/32", path="policy.rules[0].allow_from[0]"), name=None))
    assert decide(unnamed, flow).rule == "server.yaml:policy.rules[0].allow_from[0]"


@pytest.mark.parametrize(
    "flow",
    [
        IncomingFlow(ALICE, HOST, 6, 23),
        IncomingFlow(ALICE, HOST, 17, 22),
        IncomingFlow(ALICE, ip_address("10.20.0.6"), 6, 22),
        IncomingFlow(BOB, HOST, 6, 22),
        Flow(ALICE, HOST, 6, 22),
    ],
)
def test_what_the_network_may_begin_opens_nothing_else(flow: Flow | IncomingFlow) -> None:
    assert not decide(server_config(incoming(allow("10.20.0.5/32", 6, 22))), flow).allowed


def test_another_client_is_not_the_network() -> None:
    config = server_config(incoming(allow("10.80.0.0/24"), allow("10.20.0.0/24")))
    assert not decide(config, IncomingFlow(ALICE, ip_address("10.80.0.3"), 6, 22)).allowed
    assert decide(config, IncomingFlow(ALICE, HOST, 6, 22)).allowed
    assert not decide(config, Flow(BOB, ADDRESS, 6, 22)).allowed


@pytest.mark.parametrize(("expect", "until"), [(True, None), (True, 1), (False, None)])
def test_policy_tests_ask_what_the_network_may_begin_whatever_the_time(*, expect: bool, until: int | None) -> None:
    test = PolicyTest(ALICE, HOST, 6, 22, expect, Place("server.yaml", 7, "policy.tests[0]"), incoming=True)
    config = server_config(incoming(allow("10.20.0.5/32", 6, 22), until=until))
    found = list(failed_tests(replace(config, policy=Policy(config.policy.rules, (test,)))))
    text = "expects deny, but 10.20.0.5 may reach alice: rule in.allow_from[0]"
    assert found == ([] if expect else [Problem("server.yaml", 7, "policy.tests[0]", text)])


def test_a_policy_test_that_expects_the_network_to_begin_says_what_is_missing() -> None:
    test = PolicyTest(ALICE, HOST, 6, 22, expect=True, incoming=True)
    config = server_config(rule(allow("10.20.0.5/32")))
    (problem,) = failed_tests(replace(config, policy=Policy(config.policy.rules, (test,))))
    assert problem.text == "expects allow, but no allow_from of alice covers it"


def test_only_a_rule_that_has_ended_is_told_of_and_at_its_place() -> None:
    places = [Place("server.yaml", line, f"policy.rules[{line}]") for line in range(3)]
    config = server_config(
        replace(rule(allow("10.20.0.5/32")), place=places[0]),
        replace(rule(allow("10.20.0.5/32")), place=places[1], until=FIRST_END),
        replace(rule(allow("10.20.0.5/32")), place=places[2], until=SECOND_END),
    )
    assert [problem.line for problem in ended_rules(config, FIRST_END - 1)] == []
    (problem,) = ended_rules(config, FIRST_END)
    assert str(problem) == "server.yaml:1: policy.rules[1].until: is in the past: the rule grants nothing"


def test_addresses_are_paired_within_a_client_and_never_across_clients() -> None:
    config = server_config()
    for family in (4, 6):
        pairs = compile_extra(config).sets[f"pairs{family}"].elements
        for peer in config.peers:
            mine = {(int(n[0]), int(n[-1])) for n in peer.allowed_ips if n.version == family}
            for one, other in pairs:
                assert (one in mine) == (other in mine)
        assert len(pairs) == {4: 1 + 1 + 3**2, 6: 1 + 1}[family], "nested networks are one"


def test_equal_grants_share_one_policy() -> None:
    config = server_config(
        Rule("both", CLIENTS[:2], (), allow_from=(allow("10.20.0.0/24"),)),
    )
    assert len({chain for chain in compile_extra(config).chains if chain.startswith("from_in_")}) == 1


def test_networks_of_either_family_stay_in_theirs() -> None:
    config = server_config(incoming(allow("::/0")))
    assert {name for name in compile_extra(config).sets if name.endswith("4")} == {"pairs4"}
    assert ip_network("::/0").version == 6
