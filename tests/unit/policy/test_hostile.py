from ipaddress import ip_address
from itertools import pairwise

import pytest

from tests.unit.policy.hostile_policies import POLICIES, every_host_of, every_other_port_twice
from tests.unit.policy.kernel_questions import Packet, passes
from tests.unit.policy.policy_examples import CLIENTS, OWN, rule, server_config
from wgd.model import AllowRule
from wgd.policy.compile import compile_policy, elements_of
from wgd.policy.decide import Decider, Flow
from wgd.policy.table import desired_ruleset

SOURCE = ip_address("10.80.0.2")
ASKED = [
    Flow(CLIENTS[0], ip_address(to), 6, port)
    for to in ("10.20.0.0", "10.20.0.1", "10.20.0.9", "10.20.255.255", "10.21.0.0", "10.19.255.255", "8.8.8.8")
    for port in (1, 2, 3, 79, 80, 81, 90, 91, 99, 100, 65534, 65535)
]


@pytest.mark.parametrize("name", POLICIES)
def test_it_compiles_to_what_it_says(name: str) -> None:
    config = server_config(rule(*POLICIES[name]()))
    ruleset, decider = desired_ruleset(config, frozenset()), Decider(config)
    for flow in ASKED:
        packet = Packet(SOURCE, flow.to, flow.proto, 40000, flow.port)
        assert passes(ruleset, packet) == decider.decide(flow, OWN).allowed


@pytest.mark.parametrize("name", POLICIES)
def test_no_two_of_its_elements_overlap(name: str) -> None:
    for kind, elements in elements_of([entry for entry in POLICIES[name]() if entry.to.version == 4]).items():
        by_rest: dict[object, list[tuple[int, int]]] = {}
        for *rest, addresses in elements:
            by_rest.setdefault(tuple(rest), []).append(addresses)
        for found in by_rest.values():
            assert all(one[1] < other[0] for one, other in pairwise(sorted(found))), kind


def test_a_rule_for_every_host_of_a_network_is_one_element() -> None:
    compiled = compile_policy(server_config(rule(*every_host_of("10.20.0.0/16"), clients=CLIENTS[:2])))
    assert {len(found.elements) for name, found in compiled.sets.items() if name.startswith("policy_")} == {1}


def test_what_an_outer_network_has_is_not_repeated_for_a_host_in_it() -> None:
    elements = elements_of(list(every_other_port_twice()))["port"]
    inner = [ports for ports, _, addresses in elements if addresses[0] == addresses[1]]
    assert all(first % 2 == 0 for first, _ in inner)
    assert len(elements) == 65536 // 2 + 65535 // 6


def test_two_hundred_thousand_rules_compile() -> None:
    hosts: list[AllowRule] = [entry for entry in every_host_of("10.20.0.0/16") for _ in range(3)]
    assert len(elements_of(hosts)["port"]) == 1
