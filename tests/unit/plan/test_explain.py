"""Both answers of explain: they agree while the kernel holds what wgd loaded, and say why when it does not."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.policy.kernel_questions import is_delivered_here
from tests.unit.policy.policy_examples import CLIENTS, ENDS, allow, configs, flows, rule, server_config
from wgd.model import ICMP, ICMPV6, AuthzMode, SecretKey, ServerConfig
from wgd.plan.explain import Answer, Question, Verdict, by_config, by_kernel
from wgd.plan.gateway import Actual, Desired, Keys, desired
from wgd.plan.state import Link, Way
from wgd.policy.decide import Flow
from wgd.policy.ruleset import Chain, Ruleset, VerdictMap

ALLOW, DENY, UNKNOWN = Verdict.ALLOW, Verdict.DENY, Verdict.UNKNOWN
NOW = 1_700_000_000.0
OUT = Way("unicast")
LOCAL = Way("local")
CONFIG = server_config(
    rule(allow("10.20.0.0/24", 6, 80), name="web"),
    rule(allow("10.30.0.0/16"), allow("10.20.0.2/32", 6, 22), name="other"),
)


def want(config: ServerConfig) -> Desired:
    return desired(config, Keys(SecretKey(b"p" * 32), {}), frozenset())


def held(wanted: Desired) -> Actual:
    """Return a kernel that holds what is wanted; it knows the texts of no rules, as when it is read."""
    chains = {name: Chain(chain.hook, chain.mark, chain.rule_count) for name, chain in wanted.ruleset.chains.items()}
    ruleset = replace(wanted.ruleset, chains=chains)
    link = Link(7, "wgd0", "wireguard", 1420, up=True)
    return Actual(link, wanted.device, wanted.addresses, wanted.routes, wanted.rules, ruleset, {})


WANTED = want(CONFIG)
REACHED = held(WANTED)
assert REACHED.ruleset is not None
LOADED: Ruleset = REACHED.ruleset


def ask(to: str, proto: int | None = 6, port: int | None = 80, client: int = 0) -> Question:
    return Question(CONFIG.peers[client], ip_address(to), proto, port)


GRANTED, DENIED, OWN = ask("10.20.0.10"), ask("10.20.0.10", 6, 81), ask("10.20.0.2", 6, 22)


def kernel(question: Question, actual: Actual = REACHED, way: Way = OUT, wanted: Desired = WANTED) -> Answer:
    return by_kernel(wanted, actual, question, way)


def config(question: Question, way: Way = OUT, config: ServerConfig = CONFIG, now: float = NOW) -> Answer:
    return by_config(config, question, way, now)


@given(configs(), st.lists(flows(), min_size=1, max_size=20))
def test_both_agree_on_every_flow_while_the_kernel_holds_what_was_loaded(
    policy: ServerConfig, asked: list[Flow]
) -> None:
    wanted = want(policy)
    actual = held(wanted)
    peers = {peer.public_key: peer for peer in policy.peers}
    for flow in asked:
        way = LOCAL if is_delivered_here(flow.to) else OUT
        for proto, port in ((flow.proto, flow.port), (flow.proto, None), (None, None)):
            question = Question(peers[flow.client], flow.to, proto, port)
            told = by_config(policy, question, way, NOW)
            assert told.verdict in (ALLOW, DENY)
            assert by_kernel(wanted, actual, question, way).verdict is told.verdict


@given(configs(), st.lists(flows(), min_size=1, max_size=20))
def test_both_agree_on_what_the_network_may_begin(policy: ServerConfig, asked: list[Flow]) -> None:
    wanted = want(policy)
    actual = held(wanted)
    peers = {peer.public_key: peer for peer in policy.peers}
    for flow in asked:
        for proto, port in ((flow.proto, flow.port), (flow.proto, None), (None, None)):
            question = Question(peers[flow.client], flow.to, proto, port, incoming=True)
            told = by_config(policy, question, OUT, NOW)
            assert told.verdict in (ALLOW, DENY)
            assert by_kernel(wanted, actual, question, OUT).verdict is told.verdict


class TestIncoming:
    INVITED = server_config(replace(rule(name="from"), allow_from=(allow("10.20.0.0/24", 6, 22),)))

    def asks(self, source: str, port: int, way: Way = OUT) -> tuple[Answer, Answer]:
        question = Question(self.INVITED.peers[0], ip_address(source), 6, port, incoming=True)
        wanted = want(self.INVITED)
        return by_config(self.INVITED, question, way, NOW), by_kernel(wanted, held(wanted), question, way)

    def test_what_allow_from_covers_is_allowed_by_its_name(self) -> None:
        told, loaded = self.asks("10.20.0.5", 22)
        assert told == Answer(ALLOW, rule="from.allow_from[0]")
        assert loaded.verdict is ALLOW

    def test_all_else_is_denied(self) -> None:
        for source, port, reason in (
            ("10.20.0.5", 23, "no allow_from of alice covers it"),
            ("10.21.0.5", 22, "no allow_from of alice covers it"),
            ("10.80.0.3", 22, "10.80.0.3 is a client's: ask what that one may begin"),
        ):
            told, loaded = self.asks(source, port)
            assert told == Answer(DENY, (reason,))
            assert loaded.verdict is DENY

    def test_the_gateways_own_connections_are_free(self) -> None:
        assert [answer.verdict for answer in self.asks("10.20.0.1", 23, LOCAL)] == [ALLOW, ALLOW]


class TestByConfig:
    def test_what_a_rule_covers_is_allowed_by_its_name(self) -> None:
        assert config(GRANTED) == Answer(ALLOW, rule="web[0]")
        assert config(ask("10.30.9.9", None, None)) == Answer(ALLOW, rule="other[0]")

    def test_what_no_rule_covers_is_denied_with_what_comes_near(self) -> None:
        assert config(DENIED) == Answer(
            DENY, ("no rule of alice covers it", "for other protocols or ports there is web[0]")
        )
        assert config(ask("10.99.0.1")) == Answer(DENY, ("no rule of alice covers it",))
        assert config(ask("10.20.0.10", client=1)) == Answer(DENY, ("no rule of bob covers it",))

    def test_every_protocol_is_more_than_one(self) -> None:
        assert config(ask("10.20.0.10", None, None)).verdict is DENY
        assert config(ask("10.20.0.10", 6, None)).verdict is DENY

    def test_an_address_of_the_gateway_needs_a_rule_of_its_own(self) -> None:
        assert config(OWN, LOCAL) == Answer(ALLOW, rule="other[1]")
        _, near = config(ask("10.20.0.3"), LOCAL).reasons
        assert near == "an address of the gateway itself needs a rule that names just that host; near are web[0]"
        assert config(ask("10.20.0.3")).verdict is ALLOW, "the same address, when it is not the gateway's"

    @pytest.mark.parametrize(("to", "proto"), [("10.80.0.1", ICMP), ("fd80::1", ICMPV6)])
    def test_an_echo_request_to_the_tunnel_address_is_free(self, to: str, proto: int) -> None:
        answer = config(ask(to, proto, None), LOCAL)
        assert (answer.verdict, answer.rule) == (ALLOW, None)
        assert "every client" in answer.reasons[0]

    def test_a_client_without_an_address_of_the_family_is_denied(self) -> None:
        question = ask("fd20::10", client=1)
        wanted = Answer(DENY, ("bob has no IPv6 address in its allowed_ips",))
        assert config(question) == wanted
        assert kernel(question) == wanted

    def test_a_rule_that_has_ended_is_named(self) -> None:
        ends = server_config(replace(rule(allow("10.20.0.10/32"), name="guest"), until=ENDS[0]))
        assert config(GRANTED, config=ends).verdict is ALLOW
        assert config(GRANTED, config=ends, now=ENDS[0]) == Answer(
            DENY, ("no rule of alice covers it", "rule guest has ended at 2100-01-01T00:00:00+00:00")
        )


class TestByKernel:
    def test_what_is_loaded_is_allowed_and_the_rest_denied(self) -> None:
        assert kernel(GRANTED) == Answer(ALLOW)
        assert kernel(DENIED) == Answer(DENY, ("no rule that is loaded covers it",))

    def test_the_routing_has_a_word_in_it(self) -> None:
        answer = kernel(GRANTED, way=Way(None, "Network is unreachable"))
        assert answer == Answer(DENY, ("the rules allow it, but the routing does not: Network is unreachable",))

    def test_without_the_table_the_routing_refuses_and_nothing_guards_the_gateway_itself(self) -> None:
        gone = replace(REACHED, ruleset=None)
        assert kernel(GRANTED, gone).verdict is DENY
        assert kernel(ask("10.20.0.2", 6, 23), gone, LOCAL).verdict is ALLOW

    def test_without_the_table_observe_lets_everything_pass(self) -> None:
        wanted = want(replace(CONFIG, authz_mode=AuthzMode.OBSERVE))
        assert kernel(DENIED, replace(held(wanted), ruleset=None), wanted=wanted).verdict is ALLOW

    @pytest.mark.parametrize("name", ["prerouting", "from_client", "forward", "input", "allow_packet", "deny"])
    def test_a_chain_that_somebody_changed_makes_it_unknown(self, name: str) -> None:
        chain = LOADED.chains[name]
        for other in (replace(chain, mark="another"), replace(chain, rule_count=chain.rule_count + 1), None):
            chains = {**LOADED.chains, name: other} if other else {n: c for n, c in LOADED.chains.items() if n != name}
            answer = kernel(GRANTED, replace(REACHED, ruleset=replace(LOADED, chains=chains)))
            assert answer == Answer(UNKNOWN, (f"chain {name} is not as wgd loaded it",))

    def test_a_base_chain_that_somebody_added_makes_it_unknown(self) -> None:
        chains = {**LOADED.chains, "mine": Chain("type filter hook forward priority 5; policy accept;", "", 1)}
        answer = kernel(GRANTED, replace(REACHED, ruleset=replace(LOADED, chains=chains)))
        assert answer == Answer(UNKNOWN, ("chain mine is not as wgd loaded it",))

    def test_a_policy_s_chain_that_somebody_changed_concerns_its_clients_alone(self) -> None:
        (target,) = {
            chain for ((first, last),), chain in LOADED.maps["out4"].elements.items() if first <= alice() <= last
        }
        chains = {**LOADED.chains, target: replace(LOADED.chains[target], rule_count=9)}
        actual = replace(REACHED, ruleset=replace(LOADED, chains=chains))
        assert kernel(GRANTED, actual) == Answer(UNKNOWN, (f"chain {target} is not as wgd loaded it",))
        assert kernel(ask("10.20.0.10", client=1), actual).verdict is DENY

    def test_an_element_that_somebody_took_away_or_added_counts(self) -> None:
        def with_sets(change: Callable[[str], bool]) -> Actual:
            held_sets = LOADED.sets.items()
            emptied = {name: replace(found, elements=frozenset()) for name, found in held_sets if change(name)}
            sets = {**LOADED.sets, **emptied}
            return replace(REACHED, ruleset=replace(LOADED, sets=sets))

        assert kernel(GRANTED, with_sets(lambda name: "_port4" in name)).verdict is DENY
        assert kernel(GRANTED, with_sets(lambda name: "_host" in name)).verdict is ALLOW
        without = {**LOADED.maps, "out4": VerdictMap(("ipv4_addr",), {})}
        assert kernel(GRANTED, replace(REACHED, ruleset=replace(LOADED, maps=without))).verdict is DENY

    def test_rules_that_cover_one_of_two_networks_of_a_client_are_said(self) -> None:
        both = replace(CONFIG.peers[0], allowed_ips=(*CONFIG.peers[0].allowed_ips, ip_network("10.90.0.0/24")))
        changed = replace(CONFIG, peers=(both, *CONFIG.peers[1:]))
        wanted = want(changed)
        assert wanted.ruleset.maps != LOADED.maps
        actual = replace(held(wanted), ruleset=replace(held(wanted).ruleset or LOADED, maps=LOADED.maps))
        answer = kernel(replace(GRANTED, client=both), actual, wanted=wanted)
        assert answer == Answer(UNKNOWN, ("it depends on which address of alice is meant",))

    @pytest.mark.parametrize("family", [4, 6])
    def test_a_routing_rule_that_is_not_as_it_was_set_makes_it_unknown(self, family: int) -> None:
        (first, *_) = [each for each in REACHED.rules if each.family == family]
        fewer = tuple(each for each in REACHED.rules if each != first)
        missing = f"routing rule {first.priority} (IPv{family}) is missing"
        assert kernel(GRANTED, replace(REACHED, rules=fewer)) == Answer(UNKNOWN, (missing,))
        more = (*REACHED.rules, replace(first, table=254))
        assert "is left over" in kernel(GRANTED, replace(REACHED, rules=more)).reasons[0]

    def test_a_link_that_is_down_or_gone_lets_nothing_arrive(self) -> None:
        assert REACHED.link is not None
        down = replace(REACHED, link=replace(REACHED.link, up=False))
        assert kernel(GRANTED, down) == Answer(DENY, ("wgd0 is down",))
        assert kernel(GRANTED, replace(REACHED, link=None, device=None)) == Answer(DENY, ("the interface is gone",))

    def test_a_peer_that_is_not_on_the_device_is_named(self) -> None:
        without = replace(WANTED.device, peers=WANTED.device.peers[1:])
        assert kernel(GRANTED, replace(REACHED, device=without)) == Answer(DENY, ("alice is no peer of wgd0",))
        less = replace(WANTED.device.peers[0], allowed_ips=frozenset())
        robbed = replace(WANTED.device, peers=(less, *WANTED.device.peers[1:]))
        answer = kernel(GRANTED, replace(REACHED, device=robbed))
        assert answer == Answer(DENY, ("wgd0 does not take all allowed_ips of alice",))


def alice() -> int:
    assert CONFIG.peers[0].public_key == CLIENTS[0]
    return int(ip_address("10.80.0.2"))
