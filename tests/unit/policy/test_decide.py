from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from tests.unit.policy.policy_examples import CLIENTS, OWN, TUNNEL, allow, rule, server_config
from wgd.errors import Problem
from wgd.model import Place, Policy, PolicyTest, ServerConfig
from wgd.policy.decide import Decision, Flow, decide, failed_tests

ALICE, BOB, _ = CLIENTS
WEB = ip_address("10.20.0.9")


def web(port: int | None = 80, proto: int = 6) -> Flow:
    return Flow(ALICE, WEB, proto, port)


@pytest.mark.parametrize("port", [80, 81, 89, 90])
def test_both_ends_of_a_port_range_are_in_it(port: int) -> None:
    assert decide(server_config(rule(allow("10.20.0.0/24", 6, (80, 90)))), web(port)).allowed


@pytest.mark.parametrize("port", [79, 91])
def test_the_neighbours_of_a_port_range_are_not_in_it(port: int) -> None:
    assert decide(server_config(rule(allow("10.20.0.0/24", 6, (80, 90)))), web(port)) == Decision(allowed=False)


def test_the_first_rule_in_file_order_that_covers_a_flow_is_named() -> None:
    first = rule(allow("10.20.0.0/24", 17), allow("10.20.0.0/24", 6), name="first")
    second = rule(allow("10.20.0.9/32", 6, 80), name="second")
    assert decide(server_config(first, second), web()).rule == "first[1]"
    assert decide(server_config(second, first), web()).rule == "second[0]"


def test_a_rule_without_a_name_is_called_by_its_place() -> None:
    unnamed = rule(allow("10.20.0.0/24", path="policy.rules[0].allow[0]"), name=None)
    assert decide(server_config(unnamed), web()).rule == "server.yaml:policy.rules[0].allow[0]"


def test_a_rule_of_another_client_opens_nothing() -> None:
    config = server_config(rule(allow("0.0.0.0/0"), clients=[BOB]))
    assert not decide(config, web()).allowed
    assert decide(config, replace(web(), client=BOB)).allowed


def test_without_a_port_only_a_rule_for_every_port_covers_a_flow() -> None:
    assert not decide(server_config(rule(allow("10.20.0.0/24", 6, (1, 65535)))), web(None)).allowed
    assert decide(server_config(rule(allow("10.20.0.0/24", 6))), web(None)).allowed


def test_everything_in_ipv4_is_nothing_in_ipv6() -> None:
    flow = Flow(ALICE, ip_address("fd20::9"), 6, 80)
    assert not decide(server_config(rule(allow("0.0.0.0/0"))), flow).allowed
    assert decide(server_config(rule(allow("::/0"))), flow).allowed


@pytest.mark.parametrize(("to", "proto"), [(TUNNEL[0], 1), (TUNNEL[1], 58)])
def test_an_echo_to_the_tunnel_address_needs_no_rule(to: str, proto: int) -> None:
    assert decide(server_config(), Flow(BOB, ip_address(to), proto)) == Decision(allowed=True, rule=None)


@pytest.mark.parametrize("own", OWN)
def test_an_echo_to_another_address_of_the_gateway_needs_one(own: object) -> None:
    flow = Flow(ALICE, own, 1 if own.version == 4 else 58)
    assert not decide(server_config(), flow, OWN).allowed
    assert not decide(server_config(rule(allow("0.0.0.0/0"), allow("::/0"))), flow, OWN).allowed
    assert decide(server_config(rule(allow(str(own)))), flow, OWN).allowed


@pytest.mark.parametrize("shared", ["10.80.0.255", "fd80::", "fd81::"])
def test_what_the_kernel_answers_to_for_a_whole_network_needs_a_rule_that_names_it(shared: str) -> None:
    flow = Flow(ALICE, ip_address(shared), 6, 80)
    assert not decide(server_config(rule(allow("0.0.0.0/0"), allow("::/0"))), flow).allowed
    assert decide(server_config(rule(allow(shared))), flow).allowed


@pytest.mark.parametrize("neighbour", ["10.80.0.254", "10.80.0.0", "10.81.255.255", "fd80::ffff", "fd81::1"])
def test_the_addresses_beside_them_do_not(neighbour: str) -> None:
    broad = server_config(rule(allow("0.0.0.0/0"), allow("::/0")))
    assert decide(broad, Flow(ALICE, ip_address(neighbour), 6, 80)).allowed


def test_a_network_of_two_addresses_has_none_for_all_and_a_host_route_hides_it() -> None:
    config = server_config(rule(allow("0.0.0.0/0"), allow("::/0")))
    addresses = tuple(map(ip_interface, ("10.80.0.0/31", "fd80::1/127")))
    site = replace(config.peers[2], allowed_ips=tuple(map(ip_network, ("fd81::/64", "fd81::/128"))))
    changed = replace(config, interface=replace(config.interface, address=addresses), peers=(config.peers[0], site))
    for to in ("10.80.0.1", "fd80::", "fd81::"):
        assert decide(changed, Flow(ALICE, ip_address(to), 6, 80)).allowed


def test_an_icmp_packet_in_ipv6_is_no_echo_request() -> None:
    assert not decide(server_config(), Flow(BOB, ip_address(TUNNEL[1]), 1)).allowed
    assert not decide(server_config(), Flow(BOB, ip_address(TUNNEL[0]), 58)).allowed


def test_a_broad_rule_covers_another_client() -> None:
    assert decide(server_config(rule(allow("10.80.0.0/24"))), Flow(ALICE, ip_address("10.80.0.3"), 6, 22)).allowed


def expecting(config: ServerConfig, *tests: PolicyTest) -> list[Problem]:
    return list(failed_tests(replace(config, policy=Policy(config.policy.rules, tests))))


def policy_test(to: str, *, expect: bool, proto: int = 6, port: int | None = 80) -> PolicyTest:
    return PolicyTest(ALICE, ip_address(to), proto, port, expect, Place("server.yaml", 7, "policy.tests[0]"))


def test_policy_tests_that_hold_are_no_problem() -> None:
    config = server_config(rule(allow("10.20.0.9/32", 6, 80)))
    held = (policy_test("10.20.0.9", expect=True), policy_test("10.20.0.8", expect=False))
    assert expecting(config, *held) == []


def test_a_policy_test_that_fails_is_a_problem_at_its_line_that_names_the_rule() -> None:
    (problem,) = expecting(server_config(rule(allow("10.20.0.0/24"))), policy_test("10.20.0.9", expect=False))
    assert str(problem) == "server.yaml:7: policy.tests[0]: expects deny, but alice may: rule web[0]"


def test_a_policy_test_that_expects_too_much_says_that_no_rule_covers_it() -> None:
    (problem,) = expecting(server_config(), policy_test("10.20.0.9", expect=True))
    assert str(problem).endswith("expects allow, but no rule of alice covers it")


def test_a_policy_test_that_expects_no_echo_says_that_it_is_free() -> None:
    (problem,) = expecting(server_config(), policy_test(TUNNEL[0], expect=False, proto=1, port=None))
    assert "every client may send an echo request to the tunnel address" in str(problem)
