"""The kernel's question asked in Python: may a client begin a flow, and by which rule.

It says what the compiled ruleset says (policy/compile.py, policy/skeleton.py), rule by rule in the order of
the files. What a flow's replies may do follows from the answer for its first packet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from wgd.errors import Problem
from wgd.model import ICMP, ICMPV6, Address, AllowRule, PolicyTest, PublicKey, ServerConfig
from wgd.policy.compile import is_host


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


def decide(config: ServerConfig, flow: Flow, own: Collection[Address] = ()) -> Decision:
    """Return what enforce does with the first packet of `flow`.

    `own` are the gateway's addresses besides those of the tunnel: a rule opens one of the gateway's own only if it
    names just that host.
    """
    tunnel = {address.ip for address in config.interface.address}
    if flow.to in tunnel and flow.proto in (ICMP, ICMPV6):
        return Decision(allowed=True)
    ours = flow.to in tunnel or flow.to in own
    for rule in config.policy.rules:
        if flow.client in rule.clients:
            for index, allow in enumerate(rule.allow):
                if covers(allow, flow) and (is_host(allow.to) or not ours):
                    return Decision(allowed=True, rule=rule.label(index))
    return Decision(allowed=False)


def covers(allow: AllowRule, flow: Flow) -> bool:
    """Tell whether one allow rule covers a flow; without a port only a rule for every port does."""
    if flow.to.version != allow.to.version or flow.to not in allow.to:
        return False
    if allow.proto is None:
        return True
    if allow.proto != flow.proto:
        return False
    return not allow.ports or (
        flow.port is not None and any(ports.first <= flow.port <= ports.last for ports in allow.ports)
    )


def failed_tests(config: ServerConfig) -> Iterator[Problem]:
    """Yield a problem for each of the config's policy tests that the policy does not pass."""
    names = {peer.public_key: peer.name for peer in config.peers}
    for test in config.policy.tests:
        decision = decide(config, Flow(test.client, test.to, test.proto, test.port))
        if decision.allowed != test.expect:
            yield Problem(
                test.place.file, test.place.line, test.place.path, _failure(test, names[test.client], decision)
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
