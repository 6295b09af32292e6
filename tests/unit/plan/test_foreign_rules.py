"""What no test can make on a kernel of its own: flowtables, what a bare listing leaves open, and the words for it."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.policy.policy_examples import allow, server_config
from tests.unit.policy.policy_examples import rule as policy_rule
from wgd.model import Policy
from wgd.plan.foreign_rules import mark_bit
from wgd.plan.neighbours import Finding, findings
from wgd.plan.state import RoutingRule

CONFIG = server_config()
BIT = CONFIG.routing.mark
MARK = {"meta": {"key": "mark"}}
COUNTER = {"counter": {"packets": 5, "bytes": 300}}
NEW = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}


def chain(
    name: str, hook: str = "", priority: int = 0, policy: str = "accept", table: str = "others"
) -> dict[str, Any]:
    listed: dict[str, Any] = {"family": "inet", "table": table, "name": name, "handle": 1}
    if hook:
        listed |= {"type": "filter", "hook": hook, "prio": priority, "policy": policy}
    return {"chain": listed}


def rule(name: str, *parts: dict[str, Any], text: str = "", table: str = "others") -> dict[str, Any]:
    listed = {"family": "inet", "table": table, "chain": name, "handle": 7, "expr": list(parts), "text": text}
    return {"rule": listed}


def found(*listing: dict[str, Any]) -> tuple[Finding, ...]:
    return findings(listing, (), {}, CONFIG)


def flowtable(*devices: str) -> dict[str, Any]:
    dev = devices[0] if len(devices) == 1 else list(devices)
    return {"flowtable": {"family": "inet", "name": "fast", "table": "others", "handle": 3, "dev": dev}}


FLOW = {"flow": {"op": "add", "flowtable": "@fast"}}


def test_a_flowtable_with_our_interface_is_found() -> None:
    (finding,) = found(flowtable("eth0", "wgd0"))
    assert finding.where == "table inet others, flowtable fast"
    assert finding.effect == "takes flows of clients past wgd's chains: a revoked flow goes on"


def test_a_flowtable_is_found_that_a_rule_gives_flows_of_clients() -> None:
    (finding,) = found(flowtable("eth0"), chain("forward", "forward"), rule("forward", FLOW))
    assert finding.where == "table inet others, flowtable fast"


def test_a_flowtable_that_never_sees_clients_is_left_alone() -> None:
    others = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}
    not_to_us = {"match": {"op": "!=", "left": {"meta": {"key": "oifname"}}, "right": "wgd0"}}
    assert found(flowtable("eth0"), chain("forward", "forward"), rule("forward", others, not_to_us, FLOW)) == ()


def test_what_a_listing_does_not_tell_of_iptables_may_be() -> None:
    extension = {"xt": {"type": "target", "name": "MARK"}}
    (finding,) = found(chain("late", "input"), rule("late", COUNTER, extension))
    assert finding.effect == f"may change wgd's mark 0x{BIT:x}, by which it knows what it has allowed"
    assert finding.where == "table inet others, chain late, rule `with handle 7`"


def test_a_rule_is_shown_without_what_it_has_counted() -> None:
    text = "counter packets 5 bytes 300 drop"
    (finding,) = found(chain("forward", "forward"), rule("forward", COUNTER, {"drop": None}, text=text))
    assert finding.where == "table inet others, chain forward, rule `drop`"


def test_a_finding_is_two_sentences() -> None:
    assert str(Finding("here", "drops it", "Do this")) == "here: drops it. Do this."


def test_firewalld_is_told_in_its_own_words() -> None:
    table = "firewalld"
    listing = [chain("filter_FORWARD", "forward", 10, table=table), rule("filter_FORWARD", {"drop": None}, table=table)]
    listing += [chain("filter_INPUT", "input", 10, "drop", table=table)]
    forward, listen = found(*listing)
    assert "firewall-cmd --permanent --zone=trusted --add-interface=wgd0" in forward.remedy
    assert "firewall-cmd --permanent --add-port=51820/udp" in listen.remedy


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        (1, "cleared"),
        (BIT | 1, "set"),
        ({"|": [MARK, BIT]}, "set"),
        ({"|": [MARK, 1]}, None),
        ({"&": [MARK, 0xFF]}, "cleared"),
        ({"&": [MARK, 0xFFFFFFFF ^ 1]}, None),
        ({"^": [MARK, BIT]}, "unknown"),
        ({"^": [MARK, 1]}, None),
        ({"^": [{"&": [MARK, 0xFF]}, BIT]}, "set"),
        ({"|": [MARK, BIT, 1]}, "set"),
        ({"ct": {"key": "mark"}}, "unknown"),
        ({"&": [{"ct": {"key": "mark"}}, 0xFF]}, "cleared"),
        ({"map": {"key": MARK, "data": {"set": []}}}, "unknown"),
    ],
)
def test_what_a_rule_makes_of_our_bit(value: Any, becomes: str | None) -> None:
    assert mark_bit({"expr": [{"mangle": {"key": MARK, "value": value}}]}, BIT) == becomes


@pytest.mark.parametrize(
    ("name", "text", "becomes"),
    [
        ("MARK", "meta mark set mark or 0x10000000", "set"),
        ("MARK", "meta mark set mark and 0xefffffff xor 0x30000000", "set"),
        ("MARK", "meta mark set mark and 0x10000000", None),
        ("MARK", "meta mark set mark xor 0x10000000", "unknown"),
        ("MARK", "meta mark set 0x5", "cleared"),
        ("CONNMARK", "meta mark set ct mark", "unknown"),
        ("CONNMARK", "meta mark set ct mark and 0xff", "cleared"),
        ("CONNMARK", "ct mark set mark", None),
        ("CONNMARK", "xt target CONNMARK", "unknown"),
        ("MARK", "xt target MARK", "unknown"),
        ("TCPMSS", "tcp option maxseg size set rt mtu", None),
    ],
)
def test_what_iptables_makes_of_our_bit(name: str, text: str, becomes: str | None) -> None:
    assert mark_bit({"expr": [COUNTER, {"xt": {"type": "target", "name": name}}], "text": text}, BIT) == becomes


def test_what_the_network_may_begin_is_asked_about_where_something_may_be() -> None:
    listing = [chain("forward", "forward"), rule("forward", NEW, {"drop": None})]
    (finding,) = found(*listing)
    assert finding.effect == "drops what clients send"
    grant = replace(policy_rule(), allow_from=(allow("10.20.0.5/32"),))
    (finding,) = findings(listing, (), {}, replace(CONFIG, policy=Policy((grant,))))
    assert finding.effect == "drops what clients send and what the network begins"


def test_the_kernels_own_rules_and_ours_are_no_neighbours() -> None:
    own = RoutingRule(4, 0, "lookup", 255, protocol=2), RoutingRule(4, 7780, "prohibit", mask=BIT)
    last = RoutingRule(4, 32766, "lookup", 254, protocol=2)
    assert findings((), (*own, last), {}, CONFIG) == ()


def test_ten_thousand_clients_are_asked_about_as_one() -> None:
    peers = tuple(
        replace(CONFIG.peers[0], name=str(number), allowed_ips=(network,))
        for number, network in enumerate(CONFIG.peers[2].allowed_ips[0].subnets(new_prefix=30))
    )
    saddr = {"payload": {"protocol": "ip", "field": "saddr"}}
    match = {"match": {"op": "==", "left": saddr, "right": {"prefix": {"addr": "10.81.0.0", "len": 16}}}}
    incoming = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "wgd0"}}
    listing = [chain("forward", "forward"), rule("forward", incoming, match, {"drop": None})]
    (finding,) = findings(listing, (), {}, replace(CONFIG, peers=peers))
    assert finding.effect == "drops what clients send"
