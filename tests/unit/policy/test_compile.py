from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.policy.kernel_questions import OURS, Packet, asks, passes
from tests.unit.policy.policy_examples import (
    CLIENTS,
    OWN,
    SOURCES,
    allow,
    configs,
    flows,
    rule,
    server_config,
)
from wgd.model import PORT_PROTOCOLS, AllowRule, Policy, PortRange, PublicKey, Rule, ServerConfig
from wgd.policy.compile import Compiled, compile_policy, shard_name, shard_of
from wgd.policy.decide import Flow, decide
from wgd.policy.ruleset import Element
from wgd.policy.table import desired_ruleset

NONE_HELD = frozenset[int]()
ANY_BYTES = st.integers(0, 65535)


def overlap(one: Element, other: Element) -> bool:
    return all(a[0] <= b[1] and b[0] <= a[1] for a, b in zip(one, other, strict=True))


def packets_of(flow: Flow, noise: int) -> list[Packet]:
    """Return the flow's first packet from each address that is the client's in that family."""
    port = noise if flow.port is None else flow.port
    sources = (source for source in SOURCES[flow.client] if source.version == flow.to.version)
    return [Packet(source, flow.to, flow.proto, noise, port) for source in sources]


@settings(max_examples=300)
@given(configs(), st.lists(flows(), min_size=1, max_size=20), ANY_BYTES)
def test_the_kernel_answers_what_decide_answers(config: ServerConfig, asked: list[Flow], noise: int) -> None:
    ruleset = desired_ruleset(config, NONE_HELD)
    for flow in asked:
        for packet in packets_of(flow, noise):
            assert passes(ruleset, packet) == decide(config, flow, OWN).allowed


@given(configs(), st.lists(flows(), min_size=1, max_size=20), ANY_BYTES)
def test_a_reply_is_covered_exactly_when_the_packet_that_asked_is(
    config: ServerConfig, asked: list[Flow], noise: int
) -> None:
    ruleset = desired_ruleset(config, NONE_HELD)
    for flow in asked:
        for packet in packets_of(flow, noise):
            for out, back in (("out", "in"), ("own_out", "own_in")):
                there = asks(ruleset, out, packet.source, packet)
                assert asks(ruleset, back, packet.source, packet.reply()) == there


@given(configs(), st.lists(flows(), min_size=1, max_size=20), ANY_BYTES)
def test_an_icmp_error_passes_while_host_and_protocol_are_granted(
    config: ServerConfig, asked: list[Flow], noise: int
) -> None:
    ruleset = desired_ruleset(config, NONE_HELD)
    for flow in asked:
        granted = any(
            flow.to.version == entry.to.version and flow.to in entry.to and entry.proto in (None, flow.proto)
            for found in config.policy.rules
            if flow.client in found.clients
            for entry in found.allow
        )
        for packet in packets_of(flow, noise):
            assert asks(ruleset, "related", packet.source, packet.reply()) == granted


@given(configs())
def test_no_two_elements_of_a_set_or_map_overlap(config: ServerConfig) -> None:
    compiled = compile_policy(config)
    for elements in (*(found.elements for found in compiled.sets.values()), *compiled.maps.values()):
        keys = elements.elements if hasattr(elements, "elements") else elements
        assert not [pair for pair in combinations(keys, 2) if overlap(*pair)]


@given(configs())
def test_every_chain_and_set_that_is_named_is_there_and_no_other_policy_chain(config: ServerConfig) -> None:
    compiled = compile_policy(config)
    assert {chain for found in compiled.maps.values() for chain in found.elements.values()} == set(compiled.chains)
    used = {line.split("@")[1].split()[0] for chain in compiled.chains.values() for line in chain.rules}
    assert used | {"clients4", "clients6"} == set(compiled.sets)


def test_clients_with_equal_grants_share_one_policy_wherever_it_was_written() -> None:
    together = server_config(rule(allow("10.20.0.0/24"), allow("fd20::/64"), clients=CLIENTS[:2]))
    apart = server_config(
        rule(allow("fd20::/64"), clients=CLIENTS[:2], name=None),
        rule(allow("10.20.0.0/24"), clients=CLIENTS[:1]),
        rule(allow("10.20.0.0/24"), clients=CLIENTS[1:2]),
    )
    assert compile_policy(together) == compile_policy(apart)
    assert len({chain for chain in compile_policy(apart).chains if chain.startswith("out_")}) == 1


def test_a_changed_grant_has_another_name() -> None:
    one, other = (
        compile_policy(server_config(rule(allow("10.20.0.0/24", 6, port), clients=CLIENTS[:2]))) for port in (80, 81)
    )
    assert not one.chains.keys() & other.chains.keys()
    assert (one.sets.keys() & other.sets.keys()) == {"clients4", "clients6"}


def test_a_client_without_a_rule_is_known_as_a_client_and_asked_by_no_map() -> None:
    compiled = compile_policy(server_config(rule(allow("10.20.0.0/24"), clients=CLIENTS[:1])))
    bob = (int(ip_address("10.80.0.3")),) * 2
    assert (bob,) in compiled.sets["clients4"].elements
    assert not any((bob,) in found.elements for found in compiled.maps.values())


def test_a_rule_without_an_ipv6_destination_opens_no_ipv6() -> None:
    ruleset = desired_ruleset(server_config(rule(allow("0.0.0.0/0"))), NONE_HELD)
    source = ip_address("fd80::2")
    for to in ("::1", "fd20::1", "::ffff:10.20.0.1"):
        assert not asks(ruleset, "out", source, Packet(source, ip_address(to), 6, 1, 80))


def test_a_broad_rule_opens_none_of_the_gateways_own_addresses() -> None:
    config = server_config(rule(allow("0.0.0.0/0"), allow("::/0"), allow("10.20.0.0/30", 6)))
    assert not [name for name in compile_policy(config).chains if name.startswith("own_")]
    for own in OURS:
        assert not decide(config, Flow(CLIENTS[0], own, 6, 22), OWN).allowed


def test_a_rule_that_names_one_of_the_gateways_hosts_opens_what_it_says() -> None:
    config = server_config(rule(allow("10.20.0.2/32", 6, 22), allow("0.0.0.0/0")))
    ruleset = desired_ruleset(config, NONE_HELD)
    source = ip_address("10.80.0.2")
    assert passes(ruleset, Packet(source, ip_address("10.20.0.2"), 6, 1000, 22))
    assert not passes(ruleset, Packet(source, ip_address("10.20.0.2"), 6, 1000, 23))


def test_a_port_range_lets_no_protocol_through_that_has_no_ports() -> None:
    ruleset = desired_ruleset(server_config(rule(allow("10.20.0.0/24", 6, (1, 65535)))), NONE_HELD)
    source, to = ip_address("10.80.0.2"), ip_address("10.20.0.9")
    assert asks(ruleset, "out", source, Packet(source, to, 6, 1, 80))
    assert not any(asks(ruleset, "out", source, Packet(source, to, proto, 1, 80)) for proto in (1, 17, 47, 132))


def test_nested_allowed_ips_of_one_peer_are_one_element() -> None:
    config = server_config(rule(allow("10.20.0.0/24"), clients=CLIENTS[2:]))
    site = ip_network("10.81.0.0/16")
    wanted = (int(site[0]), int(site[-1]))
    elements = [key for key in compile_policy(config).maps["out4"].elements if key[0][0] <= int(site[-1])]
    assert elements == [(wanted,)]


def test_every_verdict_map_is_there_when_the_policy_is_empty() -> None:
    compiled = compile_policy(server_config())
    questions = ("out", "in", "related", "own_out", "own_in")
    assert set(compiled.maps) == {f"{question}{family}" for question in questions for family in (4, 6)}
    assert not any(found.elements for found in compiled.maps.values())


def test_a_port_stands_first_in_its_key() -> None:
    compiled = compile_policy(server_config(rule(allow("fd20::/64", 6, 80), clients=CLIENTS[:2])))
    (found,) = (key_set for name, key_set in compiled.sets.items() if "_port" in name)
    assert found.fields == ("inet_service", "inet_proto", "ipv6_addr")


def test_neighbouring_ports_of_one_host_are_one_element() -> None:
    entries = tuple(AllowRule(ip_network("10.20.0.9/32"), 6, (PortRange(p, p),)) for p in range(1, 2000))
    compiled = compile_policy(server_config(rule(*entries)))
    (found,) = (key_set for name, key_set in compiled.sets.items() if name.startswith("policy_") and "_port" in name)
    assert len(found.elements) == 1


def test_all_protocols_with_ports_are_held_by_one_set() -> None:
    entries = (allow("10.20.0.0/24", proto, 80) for proto in sorted(PORT_PROTOCOLS))
    compiled = compile_policy(server_config(rule(*entries, clients=CLIENTS[:2])))
    (found,) = (key_set for name, key_set in compiled.sets.items() if name.startswith("policy_") and "_port" in name)
    assert {element[1] for element in found.elements} == {(proto, proto) for proto in PORT_PROTOCOLS}


def test_moving_a_rule_in_its_file_changes_nothing() -> None:
    config = server_config(rule(allow("10.20.0.0/24", path="policy.rules[0].allow[0]"), name=None))
    moved = server_config(rule(allow("10.20.0.0/24", path="policy.rules[3].allow[1]"), name=None))
    assert compile_policy(config) == compile_policy(moved)


ALICE, BOB, SITE = CLIENTS


def sharded(*rules: Rule) -> Compiled:
    return compile_policy(server_config(*rules))


def test_a_client_with_grants_of_its_own_goes_into_its_shard_and_those_that_share_keep_a_chain() -> None:
    shared = rule(allow("10.20.0.0/24", 6, 80), clients=(ALICE, SITE))
    compiled = sharded(shared, rule(allow("10.20.0.9/32", 6, 81), clients=(BOB,), name="bob"))
    bob = ((int(ip_address("10.80.0.3")),) * 2,)
    assert compiled.maps["out4"].elements[bob].startswith(f"out_{shard_name(shard_of(server_config().peers[1]))}_")
    assert {"shard" in chain for chain in compiled.maps["out4"].elements.values()} == {True, False}


def test_a_clients_address_stands_first_in_a_shards_key_and_the_port_second() -> None:
    compiled = sharded(rule(allow("fd20::/64", 6, 80)))
    (found,) = (key_set for name, key_set in compiled.sets.items() if "_port" in name)
    assert found.fields == ("ipv6_addr", "inet_service", "inet_proto", "ipv6_addr")


def test_no_client_of_a_shard_has_what_another_of_it_is_granted() -> None:
    config = server_config(
        rule(allow("10.20.0.1/32", 6, 80)), rule(allow("10.20.0.4/32", 6, 81), clients=(BOB,), name="bob")
    )
    in_one_shard = replace(
        config,
        peers=tuple(replace(peer, public_key=same_shard(peer.public_key)) for peer in config.peers),
        policy=Policy(tuple(replace(r, clients=tuple(map(same_shard, r.clients))) for r in config.policy.rules)),
    )
    ruleset = desired_ruleset(in_one_shard, NONE_HELD)
    assert len(set(ruleset.maps["out4"].elements.values())) == 1
    alice, bob = ip_address("10.80.0.2"), ip_address("10.80.0.3")
    first, second = ip_address("10.20.0.1"), ip_address("10.20.0.4")
    assert passes(ruleset, Packet(alice, first, 6, 1000, 80))
    assert passes(ruleset, Packet(bob, second, 6, 1000, 81))
    assert not passes(ruleset, Packet(bob, first, 6, 1000, 80))
    assert not passes(ruleset, Packet(alice, second, 6, 1000, 81))


def same_shard(key: PublicKey) -> PublicKey:
    return PublicKey(b"." + key.raw[1:] if key.raw[:1] != b"b" else b"." + key.raw[:31])


def test_a_shard_with_other_sets_has_chains_of_another_name() -> None:
    one, other = (sharded(rule(allow("10.20.0.9/32", *proto))) for proto in ((6, 80), (6,)))
    assert one.chains.keys().isdisjoint(other.chains)
    assert set(one.maps["out4"].elements.values()).isdisjoint(other.maps["out4"].elements.values())


def test_a_change_of_one_client_changes_elements_of_its_own_shard_alone() -> None:
    bobs = rule(allow("10.20.0.4/32", 6, 81), clients=(BOB,), name="bob")
    one, other = (sharded(bobs, rule(allow("10.20.0.9/32", 6, port))) for port in (80, 8080))
    assert one.chains == other.chains
    assert one.maps == other.maps
    changed = {name for name in one.sets if one.sets[name] != other.sets[name]}
    assert changed == {
        f"{prefix}_{shard_name(shard_of(server_config().peers[0]))}_port4" for prefix in ("policy", "own")
    }
