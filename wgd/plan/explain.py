"""Whether a client may reach something: what the config says and what the kernel would do, each with its reasons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from wgd.model import Address, AuthzMode, Peer, ServerConfig
from wgd.plan import routing
from wgd.plan.gateway import Actual, Desired
from wgd.plan.state import RoutingRule, Way
from wgd.policy.compile import addresses_of
from wgd.policy.decide import ECHO, Decider, Flow, IncomingFlow
from wgd.policy.loaded import NotReadableError, Packet, changed_chains, passes, passes_to_client, readable
from wgd.policy.ruleset import Ruleset

MOST_RULES = 5
"""How many rules that come near are named."""
DELIVERED = frozenset({"local", "broadcast", "anycast", "multicast"})


class Verdict(Enum):
    """Whether a flow may begin; UNKNOWN where somebody else has changed what decides it."""

    ALLOW = "allow"
    DENY = "deny"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Question:
    """Whether `client` may begin a flow to `to`. `proto` None is every protocol, `port` None every port.

    `incoming`: whether `to` may begin one to the client; the port is the client's then.
    """

    client: Peer
    to: Address
    proto: int | None
    port: int | None
    incoming: bool = False


@dataclass(frozen=True)
class Answer:
    """What one of the two says. `rule` is the config's rule that allows it, None where none has to."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    rule: str | None = None


OWN_CONNECTIONS = Answer(Verdict.ALLOW, ("the gateway's own connections to clients are free",))


def sources(question: Question) -> tuple[Address, ...]:
    """Return an address of each network of the client in the family of the other end."""
    kind = type(question.to)
    return tuple(kind(first) for first, _ in addresses_of(question.client, question.to.version))


def is_delivered(address: Address, way: Way) -> bool:
    """Tell whether the kernel takes a packet to `address` for the gateway itself (`fib daddr type`)."""
    return way.kind in DELIVERED or address.is_loopback or address.is_multicast


def by_config(config: ServerConfig, question: Question, way: Way, now: float) -> Answer:
    """Return what the policy says at `now` (POSIX seconds). `way` is the kernel's for a packet that is authorised."""
    if not sources(question):
        return Answer(Verdict.DENY, (_no_address(question),))
    if question.incoming:
        return _incoming_by_config(config, question, way, now)
    delivered = is_delivered(question.to, way)
    flow = Flow(question.client.public_key, question.to, question.proto, question.port)
    decision = Decider(config).decide(flow, (question.to,) if delivered else (), now)
    if decision.rule is not None:
        return Answer(Verdict.ALLOW, rule=decision.rule)
    if decision.allowed:
        return Answer(Verdict.ALLOW, ("every client may send an echo request to the tunnel address",))
    near = _near(config, question, now, delivered=delivered)
    return Answer(Verdict.DENY, (f"no rule of {question.client.name} covers it", *near))


def _incoming_by_config(config: ServerConfig, question: Question, way: Way, now: float) -> Answer:
    if _is_own(question, way):
        return OWN_CONNECTIONS
    flow = IncomingFlow(question.client.public_key, question.to, question.proto, question.port)
    decision = Decider(config).decide(flow, now=now)
    if decision.allowed:
        return Answer(Verdict.ALLOW, rule=decision.rule)
    if any(question.to in network for peer in config.peers for network in peer.allowed_ips):
        return Answer(Verdict.DENY, (f"{question.to} is a client's: ask what that one may begin",))
    return Answer(Verdict.DENY, (f"no allow_from of {question.client.name} covers it",))


def _is_own(question: Question, way: Way) -> bool:
    """Tell whether the one who begins is the gateway itself."""
    return question.incoming and (way.kind == "local" or question.to.is_loopback)


def by_kernel(desired: Desired, actual: Actual, question: Question, way: Way) -> Answer:
    """Return what the kernel would do with the first packet, as far as it can be read. `way` as for `by_config`."""
    absent = tuple(_absent(actual, question))
    if absent:
        return Answer(Verdict.DENY, absent)
    if _is_own(question, way):
        return OWN_CONNECTIONS
    if actual.ruleset is None:
        return _without_table(desired, delivered=is_delivered(question.to, way))
    changed = tuple(_changed(desired, actual.ruleset, actual.rules))
    if changed:
        return Answer(Verdict.UNKNOWN, changed)
    return _by_ruleset(desired, actual.ruleset, question, way)


def _without_table(desired: Desired, *, delivered: bool) -> Answer:
    """Return what remains when nothing marks: the routing's lock, which what is delivered here does not meet."""
    if desired.config.authz_mode is AuthzMode.ENFORCE and not delivered:
        return Answer(Verdict.DENY, ("the table inet wgd is gone, and the routing refuses what nothing marks",))
    return Answer(Verdict.ALLOW, ("the table inet wgd is gone, and nothing else refuses it",))


def _by_ruleset(desired: Desired, loaded: Ruleset, question: Question, way: Way) -> Answer:
    try:
        found = set(_asked(desired, loaded, question, delivered=is_delivered(question.to, way)))
    except NotReadableError as error:
        return Answer(Verdict.UNKNOWN, (str(error),))
    if len(found) > 1:
        return Answer(Verdict.UNKNOWN, (f"it depends on which address of {question.client.name} is meant",))
    if found == {False}:
        return Answer(Verdict.DENY, ("no rule that is loaded covers it",))
    if way.refusal is not None and not question.incoming:
        return Answer(Verdict.DENY, (f"the rules allow it, but the routing does not: {way.refusal}",))
    return Answer(Verdict.ALLOW)


def _asked(desired: Desired, loaded: Ruleset, question: Question, *, delivered: bool) -> Iterator[bool]:
    """Yield the loaded rules' answer for each of the client's networks."""
    text = readable(loaded, desired.ruleset)
    tunnel = {address.ip for address in desired.config.interface.address}
    free = question.to in tunnel and question.proto == ECHO[question.to.version]
    for source in sources(question):
        if question.incoming:
            yield passes_to_client(text, Packet(question.to, source, question.proto, None, question.port))
            continue
        packet = Packet(source, question.to, question.proto, None, question.port)
        yield passes(text, packet, delivered=delivered, free=free)


def _absent(actual: Actual, question: Question) -> Iterator[str]:
    """Yield why no packet of the client arrives at all."""
    if not sources(question):
        yield _no_address(question)
        return
    if actual.link is None or actual.device is None:
        yield "the interface is gone"
        return
    if not actual.link.up:
        yield f"{actual.link.name} is down"
    peer = next((peer for peer in actual.device.peers if peer.public_key == question.client.public_key), None)
    if peer is None:
        yield f"{question.client.name} is no peer of {actual.link.name}"
    elif not peer.allowed_ips >= frozenset(question.client.allowed_ips):
        yield f"{actual.link.name} does not take all allowed_ips of {question.client.name}"


def _changed(desired: Desired, loaded: Ruleset, rules: Iterable[RoutingRule]) -> Iterator[str]:
    """Yield what others have changed of what decides every packet."""
    for chain in changed_chains(loaded, desired.ruleset):
        yield f"chain {chain} is not as wgd loaded it"
    change = routing.change(desired.rules, rules)
    for found, what in ((change.add, "is missing"), (change.remove, "is left over")):
        yield from (f"routing rule {rule.priority} (IPv{rule.family}) {what}" for rule in found)


def _no_address(question: Question) -> str:
    return f"{question.client.name} has no IPv{question.to.version} address in its allowed_ips"


def _near(config: ServerConfig, question: Question, now: float, *, delivered: bool) -> Iterator[str]:
    """Yield which of the client's rules come near: they cover the destination, and still not this."""
    labels = [
        rule.label(index)
        for rule in config.policy.rules
        if question.client.public_key in rule.clients and (rule.until is None or now < rule.until)
        for index, allow in enumerate(rule.allow)
        if allow.to.version == question.to.version and question.to in allow.to
    ]
    for rule in config.policy.rules:
        if rule.until is not None and rule.until <= now and question.client.public_key in rule.clients:
            end = datetime.fromtimestamp(rule.until, UTC).isoformat()
            yield f"rule {rule.name or rule.place.path} has ended at {end}"
    if labels:
        more = f" and {len(labels) - MOST_RULES} more" if len(labels) > MOST_RULES else ""
        named = ", ".join(labels[:MOST_RULES]) + more
        if delivered:
            yield f"an address of the gateway itself needs a rule that names just that host; near are {named}"
        else:
            yield f"for other protocols or ports there is {named}"
