"""The kernel's question asked in Python: may a client, or the network towards it, begin a flow, and by which rule.

It says what the compiled ruleset says (policy/compile.py, policy/skeleton.py), by the first rule in the order of the
files that covers the flow. What a flow's replies may do follows from the answer for its first packet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from wgd.errors import Problem
from wgd.model import ICMP, ICMPV6, Address, PolicyTest, PublicKey, ServerConfig
from wgd.policy.names import names

LIMITED_BROADCAST = ip_address("255.255.255.255")
ECHO = {4: ICMP, 6: ICMPV6}
IPV4 = 4
POINT_TO_POINT = 2


@dataclass(frozen=True)
class Flow:
    """What a client's first packet says: `proto` is the IANA number (ICMPv6 is 58), `port` the destination's.

    None asks for every protocol and every port: only a rule that grants all of them covers it.
    """

    client: PublicKey
    to: Address
    proto: int | None
    port: int | None = None


@dataclass(frozen=True)
class IncomingFlow:
    """What the first packet says that the network sends to a client: where it comes from, and the client's `port`."""

    client: PublicKey
    source: Address
    proto: int | None
    port: int | None = None


@dataclass(frozen=True)
class Decision:
    """Whether a flow may begin, and which rule says so: None when it is denied or needs no rule."""

    allowed: bool
    rule: str | None = None


class Decider:
    """Answers for one config; made once, it answers many questions fast."""

    def __init__(self, config: ServerConfig) -> None:
        self._tunnel = {address.ip for address in config.interface.address}
        self._own = frozenset(_own(config))
        self._names = names(config, "")
        self._clients = {client.public_key: client for client in self._names.clients}

    def decide(self, flow: Flow | IncomingFlow, own: Collection[Address] = (), now: float | None = None) -> Decision:
        """Return what enforce does with the first packet of `flow`.

        `own` are the gateway's addresses besides those of the tunnel, the broadcast addresses of its networks with
        them: a rule opens one of the gateway's own only if it names just that host. A rule that has ended by `now`, in
        POSIX seconds, covers nothing; None asks for what is written, whatever the time.
        """
        if isinstance(flow, IncomingFlow):
            return self._decide_incoming(flow, now)
        if flow.to in self._tunnel and flow.proto == ECHO[flow.to.version]:
            return Decision(allowed=True)
        client = self._clients.get(str(flow.client))
        if client is None:
            return Decision(allowed=False)
        # What the kernel delivers here, whatever the routes say: `fib daddr type` is not unicast.
        delivered = flow.to.is_loopback or flow.to.is_multicast or flow.to == LIMITED_BROADCAST
        ours = delivered or flow.to in self._own or flow.to in own
        rule = self._names.rule(client, flow.to.packed, flow.proto, flow.port, to_gateway=ours, now=now)
        return Decision(allowed=rule is not None, rule=rule)

    def _decide_incoming(self, flow: IncomingFlow, now: float | None) -> Decision:
        """Return it for what comes from elsewhere; a source that is a client's own address is a forged one."""
        client = self._clients.get(str(flow.client))
        if client is None or self._names.client(flow.source.packed) is not None:
            return Decision(allowed=False)
        rule = self._names.rule(client, flow.source.packed, flow.proto, flow.port, incoming=True, now=now)
        return Decision(allowed=rule is not None, rule=rule)


def _own(config: ServerConfig) -> Iterator[Address]:
    """Yield every address of which the kernel says that it is the gateway's own, as far as the config tells.

    Besides the tunnel's addresses: IPv4's broadcast address of a tunnel network (net/ipv4/fib_frontend.c,
    fib_add_ifaddr), IPv6's subnet-router anycast address (RFC 4291, 2.6.1), and, because the kernel knows that by the
    route alone (include/net/ip6_route.h, ipv6_anycast_destination), the first address of each client's IPv6 network.
    """
    routed = {network for peer in config.peers for network in peer.allowed_ips}
    for address in config.interface.address:
        yield address.ip
        if address.network.num_addresses > POINT_TO_POINT:
            yield address.network.broadcast_address if address.version == IPV4 else address.network.network_address
    for network in routed:
        is_host_route = ip_network(network.network_address) in routed
        if network.version != IPV4 and network.num_addresses > POINT_TO_POINT and not is_host_route:
            yield network.network_address


def decide(
    config: ServerConfig, flow: Flow | IncomingFlow, own: Collection[Address] = (), now: float | None = None
) -> Decision:
    """Return what `Decider.decide` does, for a single question."""
    return Decider(config).decide(flow, own, now)


def failed_tests(config: ServerConfig) -> Iterator[Problem]:
    """Yield a problem for each of the config's policy tests that the policy, as it is written, does not pass.

    A rule that has ended counts as long as it is written: time alone makes no config wrong.
    """
    if not config.policy.tests:
        return
    decider = Decider(config)
    peers = {peer.public_key: peer.name for peer in config.peers}
    for test in config.policy.tests:
        kind = IncomingFlow if test.incoming else Flow
        decision = decider.decide(kind(test.client, test.to, test.proto, test.port))
        if decision.allowed != test.expect:
            yield Problem(
                test.place.file, test.place.line, test.place.path, _failure(test, peers[test.client], decision)
            )


def ended_rules(config: ServerConfig, now: float) -> Iterator[Problem]:
    """Yield what to tell about rules that have ended by `now`, in POSIX seconds; they make no config wrong.

    A gateway that refused them could not start again after the end of any rule.
    """
    for rule in config.policy.rules:
        if rule.until is not None and rule.until <= now:
            place = rule.place
            yield Problem(place.file, place.line, f"{place.path}.until", "is in the past: the rule grants nothing")


def _failure(test: PolicyTest, client: str, decision: Decision) -> str:
    expected = "allow" if test.expect else "deny"
    if not decision.allowed:
        return f"expects {expected}, but no {'allow_from' if test.incoming else 'rule'} of {client} covers it"
    if decision.rule is None:
        return f"expects {expected}, but every client may send an echo request to the tunnel address"
    who = f"{test.to} may reach {client}" if test.incoming else f"{client} may"
    return f"expects {expected}, but {who}: rule {decision.rule}"
