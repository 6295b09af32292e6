"""Configs that follow each other on one gateway, and flows that are likely to tell one from another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from hypothesis import strategies as st
from packets import ESP, EXPERIMENTAL, GRE, SCTP, TCP, UDP, UDPLITE

from tests.unit.policy.policy_examples import (
    ENDS,
    NETWORKS,
    OWN,
    PORTS,
    TUNNEL,
    allow,
    port_ranges,
    rule,
    server_config,
)
from tests.unit.policy.policy_examples import PEERS as THREE_PEERS
from wgd.model import (
    ICMP,
    ICMPV6,
    PORT_PROTOCOLS,
    Address,
    AllowRule,
    AuthzMode,
    DenyWith,
    Network,
    Peer,
    Policy,
    PortRange,
    PublicKey,
    Rule,
    ServerConfig,
)

PEERS = (*THREE_PEERS, ("carol", ("10.80.0.4/32", "fd80::4/128")))
"""Four, so that two policies can have two clients each."""
CLIENTS = tuple(PublicKey(key.ljust(32, b".")) for key in (b"1 alice", b"2 bob", b"1 site", b"2 carol"))
"""In the order of PEERS. The first byte is the shard (policy/compile.py): each has one in common with another."""
SENTINEL = PublicKey(b"1 sentinel".ljust(32, b"."))
SENTINEL_SOURCE, SENTINEL_TARGET, SENTINEL_PORT = ip_address("10.84.0.1"), ip_address("198.51.100.1"), 7
INNER = tuple(f"{address}/{24 if address.version == 4 else 64}" for address in OWN)
BROADCASTS = tuple(map(ip_address, ("10.20.0.255", "fd20::")))
"""The broadcast address of the network behind the gateway and its subnet-router anycast address (RFC 4291, 2.6.1)."""
TUNNEL_BROADCASTS = tuple(map(ip_address, ("10.80.0.255", "fd80::")))
IPV6_UNSPECIFIED = ip_address("::")
"""Nobody has it, and `fib daddr type` calls it what the default route makes of it (ipv6_anycast_destination)."""
ECHO = {4: ICMP, 6: ICMPV6}
PROTOCOLS = (TCP, TCP, UDP, UDP, SCTP, UDPLITE, GRE, ESP, EXPERIMENTAL)
OWN_UNICAST = {4: (OWN[0], ip_address(TUNNEL[0])), 6: (OWN[1], ip_address(TUNNEL[1]))}
ANCHORS = {
    4: (*map(ip_address, ("10.20.0.9", "10.80.0.2", "10.81.7.0", "10.20.0.255", TUNNEL[0])), OWN[0]),
    6: (*map(ip_address, ("fd20::9", "fd80::2", "fd81::7", "fd20::ffff", TUNNEL[1])), OWN[1]),
}
PAST = 1
EDGE_PORTS = (0, *PORTS, 1023, 1024, 32767, 32768)


@dataclass(frozen=True)
class Question:
    """A flow between a client and `other`, who may be in the network, another client or the gateway itself.

    `other_begins`: it is not the client who begins it. The port of the one who begins is nobody else's.
    `answer_first`: the one who is to answer does so before being asked, too.
    """

    client: PublicKey
    source: Address
    other: Address
    proto: int
    client_port: int
    other_port: int
    other_begins: bool = False
    answer_first: bool = False
    options: bool = False

    def __repr__(self) -> str:
        words = ("other_begins", "answer_first", "options")
        about = "".join(f" {word}" for word in words if getattr(self, word))
        return f"{self.source}#{self.client_port} with {self.other}#{self.other_port} proto {self.proto}{about}"


def standing(
    *rules: Rule, mode: AuthzMode = AuthzMode.ENFORCE, logging: bool = False, deny_with: DenyWith = DenyWith.DROP
) -> ServerConfig:
    """Return a config with these rules and what lets the sentinel through."""
    everyone = (*zip(CLIENTS, PEERS, strict=True), (SENTINEL, ("sentinel", (SENTINEL_SOURCE,))))
    peers = tuple(Peer(name, key, tuple(map(ip_network, found))) for key, (name, found) in everyone)
    entries = (allow(str(to), UDP, SENTINEL_PORT) for to in (SENTINEL_TARGET, OWN[0]))
    grant = rule(*entries, clients=(SENTINEL,), name="sentinel")
    config = replace(server_config(mode=mode, logging=logging), peers=peers, policy=Policy((*rules, grant)))
    return replace(config, deny_with=deny_with)


def networks(family: int) -> st.SearchStrategy[Network]:
    """Give the well-known networks, and every prefix length around the hosts that matter."""
    widest = 32 if family == 4 else 128
    around = st.tuples(st.sampled_from(ANCHORS[family]), st.integers(0, widest))
    return st.one_of(
        st.sampled_from(NETWORKS[family]).map(ip_network), around.map(lambda found: ip_network(found, strict=False))
    )


def any_ports() -> st.SearchStrategy[PortRange]:
    ends = st.tuples(st.integers(1, 65535), st.integers(1, 65535))
    return st.one_of(port_ranges(), ends.map(lambda pair: PortRange(min(pair), max(pair))))


@st.composite
def entries(draw: st.DrawFn) -> AllowRule:
    family = draw(st.sampled_from((4, 6)))
    proto = draw(st.sampled_from((None, ECHO[family], *PROTOCOLS)))
    ports = draw(st.lists(any_ports(), max_size=3)) if proto in PORT_PROTOCOLS else []
    return AllowRule(draw(networks(family)), proto, tuple(ports))


def rules() -> st.SearchStrategy[Rule]:
    return st.builds(
        Rule,
        name=st.just("r"),
        clients=st.lists(st.sampled_from(CLIENTS), min_size=1, unique=True).map(tuple),
        allow=st.lists(entries(), min_size=1, max_size=6).map(tuple),
        allow_from=st.lists(entries(), max_size=3).map(tuple),
        until=st.sampled_from((None, None, None, PAST, *ENDS)),
    )


@st.composite
def reloads(draw: st.DrawFn) -> list[ServerConfig]:
    """Give up to three configs: each keeps some rules of the one before, in part or whole, and has some of its own."""
    found: list[ServerConfig] = []
    kept: list[Rule] = []
    for _ in range(draw(st.integers(1, 3))):
        kept = [_part(draw, old) for old in kept if draw(st.integers(0, 3))]
        kept += draw(st.lists(rules(), max_size=2 if found else 4))
        kept += [_twin(draw, old) for old in kept if draw(st.integers(0, 7)) == 7]
        mode = draw(st.sampled_from((AuthzMode.ENFORCE, AuthzMode.ENFORCE, AuthzMode.OBSERVE)))
        logging, deny_with = draw(st.booleans()), draw(st.sampled_from(DenyWith))
        found.append(standing(*kept, mode=mode, logging=logging, deny_with=deny_with))
    return found


def _part(draw: st.DrawFn, whole: Rule) -> Rule:
    if draw(st.booleans()):
        return whole
    left = [entry for entry in whole.allow if draw(st.booleans())]
    left_from = [entry for entry in whole.allow_from if draw(st.booleans())]
    return replace(whole, allow=tuple(left or whole.allow), allow_from=tuple(left_from))


def _twin(draw: st.DrawFn, rule: Rule) -> Rule:
    """Return a rule for those who do not have `rule`, which grants the same but for the ports."""
    others = tuple(client for client in CLIENTS if client not in rule.clients)
    found = [
        tuple(replace(entry, ports=(draw(any_ports()),)) if entry.ports else entry for entry in entries)
        for entries in (rule.allow, rule.allow_from)
    ]
    return replace(rule, clients=others or rule.clients, allow=found[0], allow_from=found[1])


SOURCES = {
    (client, version): tuple(
        end
        for network in map(ip_network, found)
        if network.version == version
        for end in dict.fromkeys((network[0] + (version == 6 and network.num_addresses > 1), network[-1]))
    )
    for client, (_, found) in zip(CLIENTS, PEERS, strict=True)
    for version in (4, 6)
}


def _granted(configs: Iterable[ServerConfig]) -> list[tuple[PublicKey, AllowRule, bool]]:
    """Return every entry with a client who has it; True where it is the network that may begin."""
    return [
        (client, entry, incoming)
        for config in configs
        for found in config.policy.rules
        for client in found.clients
        if client != SENTINEL
        for incoming, entries in ((False, found.allow), (True, found.allow_from))
        for entry in entries
    ]


@st.composite
def questions(draw: st.DrawFn, configs: Iterable[ServerConfig]) -> list[Question]:
    """Give up to forty flows, each near the edge of some rule in address, protocol and port."""
    granted = _granted(configs)
    found: dict[tuple[object, ...], Question] = {}
    for number in range(draw(st.integers(1, 40))):
        question = draw(_question(granted, 20000 + number))
        if question.other != IPV6_UNSPECIFIED:
            found.setdefault(_tracked_as(question, number), question)
    return list(found.values())


@st.composite
def _question(draw: st.DrawFn, granted: list[tuple[PublicKey, AllowRule, bool]], own_port: int) -> Question:
    known = [st.sampled_from(granted)] if granted else []
    client, entry, other_begins = draw(st.one_of(*known, st.tuples(_CLIENT, entries(), st.booleans())))
    if draw(st.integers(0, 7)) == 7:
        client = draw(_CLIENT)
    if not SOURCES[client, entry.to.version]:
        client = CLIENTS[0]
    other = draw(_address_near(entry.to))
    proto = entry.proto
    if proto is None or draw(st.integers(0, 7)) == 7:
        proto = draw(st.sampled_from((ECHO[other.version], *PROTOCOLS)))
    if draw(st.integers(0, 7)) == 7:
        other_begins = not other_begins
    asked_port = draw(_port_near(entry.ports)) if proto in PORT_PROTOCOLS else 0
    return Question(
        client,
        draw(st.sampled_from(SOURCES[client, other.version])),
        other,
        proto,
        asked_port if other_begins else own_port,
        own_port if other_begins else asked_port,
        other_begins,
        draw(st.booleans()),
        draw(st.booleans()),
    )


_CLIENT = st.sampled_from(CLIENTS)


@st.composite
def _address_near(draw: st.DrawFn, network: Network) -> Address:
    edge = draw(st.sampled_from((network[0], network[-1])))
    near = int(edge) + draw(st.sampled_from((0, 0, 0, -1, 1)))
    inside = draw(st.sampled_from((None, None, *ANCHORS[network.version])))
    if inside is not None and inside in network:
        return inside
    return type(edge)(near) if 0 <= near < 2**network.max_prefixlen else edge


def _port_near(ranges: tuple[PortRange, ...]) -> st.SearchStrategy[int]:
    edges = {edge + step for ports in ranges for edge in (ports.first, ports.last) for step in (-1, 0, 1)}
    return st.sampled_from((*sorted(edges & set(range(65536))), *EDGE_PORTS))


@st.composite
def forged(draw: st.DrawFn, configs: Iterable[ServerConfig]) -> list[Question]:
    """Give up to six flows that somebody in the network begins with an address that is a client's."""
    granted = _granted(configs)
    found = []
    for number in range(draw(st.integers(0, 6))):
        asked = draw(_question(granted, 30000 + number))
        claimed = draw(_CLIENT.filter(lambda client, version=asked.other.version: SOURCES[client, version]))
        other = draw(st.sampled_from(SOURCES[claimed, asked.other.version]))
        to = draw(st.sampled_from((asked.source, asked.source, asked.source, *OWN_UNICAST[other.version])))
        proto = asked.proto if asked.proto in PORT_PROTOCOLS else UDP
        port = asked.client_port if asked.other_begins else asked.other_port
        found.append(replace(asked, source=to, other=other, proto=proto, client_port=port, other_port=30000 + number))
    return [replace(question, other_begins=True) for question in found if question.source != question.other]


def _tracked_as(question: Question, number: int) -> tuple[object, ...]:
    """Return what no two questions may have in common, or conntrack takes the one for a part of the other."""
    if question.proto in (TCP, UDP, SCTP, ICMP, ICMPV6):
        return (number,)
    return (frozenset((question.source, question.other)), question.proto)
