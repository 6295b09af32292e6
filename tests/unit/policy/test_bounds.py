from collections.abc import Iterable

from tests.unit.policy.hostile_policies import every_host_of, every_other_port_twice
from tests.unit.policy.policy_examples import CLIENTS, rule, server_config
from wgd.errors import Problem
from wgd.model import AllowRule
from wgd.policy.table import problems_of_size


def told(entries: Iterable[AllowRule], clients: int = 1) -> list[Problem]:
    return list(problems_of_size(server_config(rule(*entries, clients=CLIENTS[:clients]))))


def test_more_hosts_apart_than_the_kernel_takes_are_refused_at_the_rule_that_grants_them() -> None:
    apart = every_host_of("10.20.0.0/16")[::2]
    for clients in (1, 2):
        (problem,) = told(apart, clients)
        assert "grants 32,768 networks apart from each other" in str(problem)


def test_hosts_beside_each_other_are_one_network_however_many() -> None:
    assert told(every_host_of("10.20.0.0/16")) == []


def test_as_many_ports_as_there_are_make_no_large_set() -> None:
    assert told(every_other_port_twice()) == []


def test_what_the_kernel_takes_in_seconds_is_not_refused() -> None:
    assert told(every_host_of("10.20.0.0/16")[::4]) == []
