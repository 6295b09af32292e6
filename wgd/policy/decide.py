"""The kernel's question asked in Python: may a client begin a flow, and by which rule.

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
    """What a client's first packet says: `proto` is the IANA number (ICMPv6 is 58), `port` the destination's."""

    client: PublicKey
    to: Address
    proto: int
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

    def decide(self, flow: Flow, own: Collection[Address] = ()) -> Decision:
        """Return what enforce does with the first packet of `flow`.

        `own` are the gateway's addresses besides those of the tunnel, the broadcast addresses of its networks with
        them: a rule opens one of the gateway's own only if it names just that host.
        """
        if flow.to in self._tunnel and flow.proto == ECHO[flow.to.version]:
            return Decision(allowed=True)
        client = self._clients.get(str(flow.client))
        if client is None:
            return Decision(allowed=False)
        # What the kernel delivers here, whatever the routes say: `fib daddr type` is not unicast.
        delivered = flow.to.is_loopback or flow.to.is_multicast or flow.to == LIMITED_BROADCAST
        ours = delivered or flow.to in self._own or flow.to in own
        rule = self._names.rule(client, flow.to.packed, flow.proto, flow.port, to_gateway=ours)
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


def decide(config: ServerConfig, flow: Flow, own: Collection[Address] = ()) -> Decision:
    """Return what `Decider.decide` does, for a single question."""
    return Decider(config).decide(flow, own)


def failed_tests(config: ServerConfig) -> Iterator[Problem]:
    """Yield a problem for each of the config's policy tests that the policy does not pass."""
    if not config.policy.tests:
        return
    decider = Decider(config)
    peers = {peer.public_key: peer.name for peer in config.peers}
    for test in config.policy.tests:
        decision = decider.decide(Flow(test.client, test.to, test.proto, test.port))
        if decision.allowed != test.expect:
            yield Problem(
                test.place.file, test.place.line, test.place.path, _failure(test, peers[test.client], decision)
            )


def _failure(test: PolicyTest, client: str, decision: Decision) -> str:
    expected = "allow" if test.expect else "deny"
    if decision.allowed:
        return (
            f"expects {expected}, but {client} may: rule {decision.rule}"
            if decision.rule
            else (f"expects {expected}, but every client may send an echo request to the tunnel address")
        )
    return f"expects {expected}, but no rule of {client} covers it"
