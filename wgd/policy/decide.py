"""The kernel's question asked in Python: may a client begin a flow, and by which rule.

It says what the compiled ruleset says (policy/compile.py, policy/skeleton.py), by the first rule in the order of the
files that covers the flow. What a flow's replies may do follows from the answer for its first packet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from wgd.errors import Problem
from wgd.model import ICMP, ICMPV6, Address, PolicyTest, PublicKey, ServerConfig
from wgd.policy.names import names

LIMITED_BROADCAST = ip_address("255.255.255.255")


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
        self._names = names(config, "")
        self._clients = {client.public_key: client for client in self._names.clients}

    def decide(self, flow: Flow, own: Collection[Address] = ()) -> Decision:
        """Return what enforce does with the first packet of `flow`.

        `own` are the gateway's addresses besides those of the tunnel, the broadcast addresses of its networks with
        them: a rule opens one of the gateway's own only if it names just that host.
        """
        if flow.to in self._tunnel and flow.proto in (ICMP, ICMPV6):
            return Decision(allowed=True)
        client = self._clients.get(str(flow.client))
        if client is None:
            return Decision(allowed=False)
        # What the kernel delivers here, whatever the routes say: `fib daddr type` is not unicast.
        delivered = flow.to.is_loopback or flow.to.is_multicast or flow.to == LIMITED_BROADCAST
        ours = delivered or flow.to in self._tunnel or flow.to in own
        rule = self._names.rule(client, flow.to.packed, flow.proto, flow.port, to_gateway=ours)
        return Decision(allowed=rule is not None, rule=rule)


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
