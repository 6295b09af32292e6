"""The chains that are the same for every policy: who is asked what, where, and what happens to the rest.

They stand here as text because that is how those who judge them read nftables. A line may begin with the
conditions under which it is there, `enforce|` or `observe,log|`. Protocols stand as numbers: nft knows some of
their names, such as ipv6-icmp, only where the host has /etc/protocols (package netbase).

    prerouting   decides every packet from or to a client and marks what is authorised; after everybody else's
                 prerouting chains: after DNAT, so that the real destination is judged, and so that no other
                 chain or CONNMARK can set our mark after us
    forward      drops what is not marked: the first lock (the second is the routing, plan/routing.py); after
                 everybody else's filters, so that the first packet of each flow is logged that really passes
    input        the first lock for what is delivered to the gateway itself, where routing has no second one
    source_nat   only where the config has it: source NAT for what clients send by the interfaces it names
    output       asks again for the gateway's replies to clients, so that a revoked flow that ends here stops too

A flow is asked about once, not at every packet: `allow` writes the ruleset's generation into the flow's ct mark, and
established packets that carry the current one are accepted before any policy is asked. A change of the ruleset takes
the generation out of force (plan/ruleset.py), so that the next packet of every flow is asked anew. A policy's rule
that must be asked each time, because the kernel itself ends it, goes to `allow_packet` instead.

In observe the same chains decide, but nothing is dropped: the mark then tells allow from would_deny.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from string import Template

from wgd.model import AuthzMode, Record, ServerConfig
from wgd.policy.limits import limit_rules
from wgd.policy.ruleset import (
    ANSWERED,
    ANSWERED_WORD,
    DECIDED_MASK,
    GENERATION_MASK,
    GENERATION_WORD,
    IN_FORCE_WORD,
    LOGGED,
    RECORDED,
    RECORDED_DELIVERED,
    RECORDED_FORWARDED,
    Chain,
)

FIXED_CHAINS = """
chain prerouting: type filter hook prerouting priority 1000; policy accept;
    # Most packets end here (tests/bench/README.md says what each word costs). A plain header has no source routing,
    # and what is established is not invalid. Version 4 with a header of 5 words:
    @nh,0,8 0x45 ct state established ct mark & $generations == $in_force iifname $interface $authorise
    ip6 nexthdr $plain ct state established ct mark & $generations == $in_force iifname $interface $authorise
    # What the network answers. That it is not another client that answers was seen at the first answer.
    @nh,0,8 0x45 ct state established ct mark & $decided == $answered ct direction reply $authorise
    ip6 nexthdr $plain ct state established ct mark & $decided == $answered ct direction reply $authorise
    meta mark set meta mark & $others
    iifname $interface goto from_client
    iifname "lo" accept
    # A host that claims a client's address would make the client's own packets look like replies.
    ip saddr @clients4 goto spoofed
    ip6 saddr @clients6 goto spoofed
    ip daddr @clients4 goto to_client
    ip6 daddr @clients6 goto to_client

chain from_client
    # An invalid packet would leave with its private address, past the host's NAT.
    ct state invalid goto deny
    # Options may hold a source route. nft finds only one of which no hop is gone (ipv4_find_option in nft_exthdr.c
    # parses as a sender does), and the kernel goes on along any.
    ip hdrlength > 5 goto deny
    rt seg-left != 0 goto deny
    ct state related meta l4proto { 1, 58 } jump related_from_client
    ct state related meta l4proto { 1, 58 } goto related
    ct state established ct mark & $generations == @generation goto allow_packet
    # The kernel leaves it to us to refuse these (plan/forwarding.py). IPv6 has never refused its own addresses.
    meta nfproto ipv4 fib saddr type { local, broadcast, multicast } goto deny
    fib daddr type { local, broadcast, anycast, multicast } goto to_gateway
    # Only what the client began: else its answers would vouch for a flow that the network began and may no longer.
    ct direction original ip saddr vmap @out4
    ct direction original ip6 saddr vmap @out6
    ct direction original ip saddr vmap @until_out4
    ct direction original ip6 saddr vmap @until_out6
    # The reply of one client to another's flow.
    ct direction reply ct state established ip daddr vmap @in4
    ct direction reply ct state established ip6 daddr vmap @in6
    ct direction reply ct state established ip daddr vmap @until_in4
    ct direction reply ct state established ip6 daddr vmap @until_in6
    # The reply to what the network began. Another client is not the network: only its own rule lets it begin.
    ct direction reply ct state established ip daddr != @clients4 ip saddr vmap @from_out4
    ct direction reply ct state established ip6 daddr != @clients6 ip6 saddr vmap @from_out6
    goto deny

chain to_gateway
    ct direction reply ct state established accept
    ipv4| icmp type echo-request ip daddr { $tunnel4 } accept
    ipv6| icmpv6 type echo-request ip6 daddr { $tunnel6 } accept
    ip saddr vmap @own_out4
    ip6 saddr vmap @own_out6
    ip saddr vmap @until_own_out4
    ip6 saddr vmap @until_own_out6
    goto deny

chain to_client
    ct state invalid goto deny
    ip hdrlength > 5 goto deny
    rt seg-left != 0 goto deny
    ct state related meta l4proto { 1, 58 } goto related
    ct direction reply ct state established ct mark & $generations == @generation goto answered
    ct state established ct mark & $generations == @generation goto allow_packet
    ct direction reply ct state established ip daddr vmap @in4
    ct direction reply ct state established ip6 daddr vmap @in6
    ct direction reply ct state established ip daddr vmap @until_in4
    ct direction reply ct state established ip6 daddr vmap @until_in6
    # Only what the network began: the reply to a client's revoked flow is not covered by what may begin here.
    ct direction original ip daddr vmap @from_in4
    ct direction original ip6 daddr vmap @from_in6
    goto deny

chain related_from_client
    # A client speaks for its own end of a flow, never for another client's: an error made up by hand would end it.
    # Back to the one that asked: whenever a rule is added, the kernel follows all verdicts on each way to a map.
    ip saddr . ct original ip saddr @pairs4 return
    ip saddr . ct reply ip saddr @pairs4 return
    ip6 saddr . ct original ip6 saddr @pairs6 return
    ip6 saddr . ct reply ip6 saddr @pairs6 return
    goto deny

chain related
    # Errors only: a redirect would move a flow.
    meta l4proto 1 icmp type != { destination-unreachable, time-exceeded, parameter-problem } goto deny
    meta l4proto 58 icmpv6 type < 1 goto deny
    meta l4proto 58 icmpv6 type > 4 goto deny
    # About a flow that the gateway itself began with a client.
    fib daddr type local ct direction reply ct original ip daddr @clients4 accept
    fib daddr type local ct direction reply ct original ip6 daddr @clients6 accept
    ip saddr vmap @related4
    ip6 saddr vmap @related6
    ip daddr vmap @related4
    ip6 daddr vmap @related6
    ip saddr vmap @until_related4
    ip6 saddr vmap @until_related6
    ip daddr vmap @until_related4
    ip6 daddr vmap @until_related6
    # What a client may be sent says nothing of the flows that it began.
    ct original ip saddr != @clients4 ip saddr vmap @from_related4
    ct original ip6 saddr != @clients6 ip6 saddr vmap @from_related6
    ct original ip saddr != @clients4 ip daddr vmap @from_related4
    ct original ip6 saddr != @clients6 ip6 daddr vmap @from_related6
    goto deny

chain allow
    ct mark set ct mark & $undecided | $generation
    goto allow_packet

chain answered
    ct mark set ct mark | $answered_bit
    goto allow_packet

chain allow_packet
    # What ends by itself (policy/extra.py): this packet is allowed, and the flow's next one is asked about again.
    $authorise

chain deny
    enforce,log| jump log_deny
    # A reset for a segment that is late or forged would end a good connection, and what is sent to many is answered
    # by nobody (RFC 1122, 3.2.2). Here, before the routing: the second lock would answer with its own error.
    enforce,reject| ct state invalid counter drop
    enforce,reject| fib daddr type { broadcast, multicast } counter drop
    enforce,reject| meta l4proto 6 counter reject with tcp reset
    enforce,reject| counter reject with icmpx admin-prohibited
    enforce,drop| counter drop
    observe| accept

chain spoofed
    enforce,log| jump log_spoof
    enforce| counter drop
    observe| accept

chain forward: type filter hook forward priority 1000; policy accept;
    # Few rules for what is authorised: every packet of every flow comes by here.
    meta mark & $bit == 0 jump unmarked
    tcp flags & (syn|rst) == syn jump clamp
    # `ct state new` alone matches each retransmission and each datagram before the first reply.
    flows| ct state new ct status ! confirmed jump opened
    packets| iifname $interface goto log_packet
    packets| oifname $interface goto log_packet

chain unmarked
    enforce| iifname $interface drop
    enforce| oifname $interface drop
    held4| meta nfproto ipv4 iifname != $interface oifname != $interface drop
    held6| meta nfproto ipv6 iifname != $interface oifname != $interface drop
    return

chain clamp
    oifname $interface tcp option maxseg size set rt mtu
    iifname $interface tcp option maxseg size set rt mtu

chain opened
    iifname $interface goto log_open
    oifname $interface goto log_open
    return

chain log_open
    flows| meta mark & $bit != 0 goto log_forwarded
    flows,observe| goto log_would_deny
    accept

chain log_forwarded
    # The kernel tells of the end of the flows whose ct mark says so (kernel/flow_ends.py).
    flows| counter name "$recorded" ct mark set ct mark | $forwarded
    flows| goto log_allow
    accept

chain log_delivered
    flows| counter name "$recorded" ct mark set ct mark | $delivered
    flows| goto log_allow
    accept

chain log_packet
    # What lets an answer pass is the rule for the end that began the flow.
    packets| meta mark & $bit != 0 ct direction reply goto log_packet_reply
    packets| meta mark & $bit != 0 goto log_packet_allow
    packets,observe| goto log_packet_would_deny
    accept

chain input: type filter hook input priority filter; policy accept;
    iifname != $interface accept
    meta mark & $bit == 0 goto input_free
    flows| ct state new ct status ! confirmed goto log_delivered
    packets| goto log_packet
    accept

chain input_free
    ct direction reply ct state { established, related } accept
    ipv4| icmp type echo-request ip daddr { $tunnel4 } accept
    ipv6| icmpv6 type echo-request ip6 daddr { $tunnel6 } accept
    flows,observe| ct state new ct status ! confirmed jump log_would_deny
    packets,observe| jump log_packet_would_deny
    enforce| drop
    observe| accept

chain output: type filter hook output priority filter; policy accept;
    oifname != $interface accept
    # The interface is one link for all clients: a redirect would tell them to leave the gateway out.
    icmp type redirect drop
    icmpv6 type nd-redirect drop
    ct direction reply ct state established goto from_gateway

chain from_gateway
    ipv4| icmp type echo-reply ip saddr { $tunnel4 } accept
    ipv6| icmpv6 type echo-reply ip6 saddr { $tunnel6 } accept
    # Marked, it is a packet to be logged.
    packets| ct mark & $generations == @generation goto allow_packet
    ct mark & $generations == @generation accept
    ip daddr vmap @own_in4
    ip6 daddr vmap @own_in6
    ip daddr vmap @until_own_in4
    ip6 daddr vmap @until_own_in6
    goto deny
"""

CONDITIONAL = re.compile(r"(?P<conditions>[a-z0-9,]+)\| (?P<rule>.+)")
ALL_BITS = 0xFFFFFFFF
PLAIN_NEXT_HEADERS = "{ 6, 17, 33, 58, 132, 136 }"
LOG_CHAIN = (
    "ip hdrlength 5 $log4 snaplen 28 queue-threshold 512 return",
    "meta nfproto ipv4 $log4 snaplen 68 queue-threshold 512 return",
    f"ip6 nexthdr {PLAIN_NEXT_HEADERS} $log6 snaplen 48 queue-threshold 512 return",
    "$log6 snaplen 256 queue-threshold 512",
)
"""Each packet meets one of them. The smallest part that still holds addresses and ports halves what that costs."""
LOG_CHAINS = {
    "log_allow": "open allow",
    "log_would_deny": "open would_deny",
    "log_packet_allow": "packet allow",
    "log_packet_reply": "packet reply",
    "log_packet_would_deny": "packet would_deny",
    "log_deny": "deny deny",
    "log_spoof": "deny spoof",
}
"""Chain to event and verdict; `spoof` is a denial that is no client's own, `reply` allows what answers."""
_NOT_RECORDED = {Record.FLOWS: "packet", Record.PACKETS: "open"}
"""The event that a log does not have."""


@dataclass(frozen=True)
class Context:
    """What the fixed chains depend on besides the config.

    `policy_digest` names the names table against which the events of this ruleset are resolved. `held` are the
    families (4, 6) whose forwarding switch wgd holds, where no other traffic may be forwarded (promise 11).
    """

    policy_digest: str
    held: frozenset[int] = frozenset()


def fixed_chains(config: ServerConfig, context: Context) -> dict[str, Chain]:
    """Return the chains of `inet wgd` that do not depend on the policy's rules, by name."""
    tunnel = {family: [str(a.ip) for a in config.interface.address if a.version == family] for family in (4, 6)}
    holds = {
        config.authz_mode.value: True,
        config.deny_with.value: True,
        "log": config.logging.enabled,
        "flows": config.logging.flows,
        "packets": config.logging.packets,
        "ipv4": bool(tunnel[4]),
        "ipv6": bool(tunnel[6]),
        "held4": 4 in context.held,  # noqa: PLR2004 - the IP version
        "held6": 6 in context.held,  # noqa: PLR2004 - the IP version
    }
    words = {
        "interface": f'"{config.interface.name}"',
        "bit": f"0x{config.routing.mark:08x}",
        "authorise": f"meta mark set meta mark | 0x{config.routing.mark:08x} accept",
        "others": f"0x{ALL_BITS & ~config.routing.mark:08x}",
        "generations": f"0x{GENERATION_MASK:08x}",
        "decided": f"0x{DECIDED_MASK:08x}",
        "undecided": f"0x{ALL_BITS & ~DECIDED_MASK:08x}",
        "answered_bit": f"0x{ANSWERED:08x}",
        "answered": ANSWERED_WORD,
        "generation": GENERATION_WORD,
        "in_force": IN_FORCE_WORD,
        "recorded": RECORDED,
        "forwarded": f"0x{RECORDED_FORWARDED:08x}",
        "delivered": f"0x{RECORDED_DELIVERED:08x}",
        "plain": PLAIN_NEXT_HEADERS,
        "tunnel4": ", ".join(tunnel[4]),
        "tunnel6": ", ".join(tunnel[6]),
    }
    chains = dict(_chains(frozenset(word for word, true in holds.items() if true), words))
    if config.masquerade:
        chains["source_nat"] = source_nat_chain(config, words)
    if config.logging.packets:
        chains["log_output"] = Chain.of(
            f"oifname {words['interface']} meta mark & {words['bit']} != 0 goto log_packet",
            hook="type filter hook output priority 1000; policy accept;",
        )
    if config.logging.enabled:
        chains |= log_chains(config, context, enforce=config.authz_mode is AuthzMode.ENFORCE)
    return chains


def source_nat_chain(config: ServerConfig, words: dict[str, str]) -> Chain:
    """Return the chain that gives what clients send the gateway's address: in enforce only what was authorised."""
    outside = ", ".join(f'"{name}"' for name in config.masquerade)
    authorised = f"meta mark & {words['bit']} != 0 " if config.authz_mode is AuthzMode.ENFORCE else ""
    rule = f"iifname {words['interface']} oifname {{ {outside} }} {authorised}masquerade"
    return Chain.of(rule, hook="type nat hook postrouting priority 100; policy accept;")


def log_chains(config: ServerConfig, context: Context, *, enforce: bool) -> dict[str, Chain]:
    """Return the chains that hand a packet to the event log."""
    unused = {
        *((name for name in LOG_CHAINS if name.endswith("would_deny")) if enforce else ()),
        *((name for name, event in LOG_CHAINS.items() if event.startswith(_NOT_RECORDED[config.logging.record]))),
    }
    limits = limit_rules(config)
    return {
        name: Chain.of(
            *limits.get(name, ()),
            *(Template(rule).substitute(_log_words(config, context, event)) for rule in LOG_CHAIN),
        )
        for name, event in LOG_CHAINS.items()
        if name not in unused
    }


def _log_words(config: ServerConfig, context: Context, event: str) -> dict[str, str]:
    """Return the statements that count a packet of each family and hand it to its log group."""
    return {
        word: f'counter name "{counter}" log prefix "{event} {context.policy_digest}" group {group}'
        for group, (word, counter) in enumerate(zip(("log4", "log6"), LOGGED, strict=True), config.logging.nflog_group)
    }


def _chains(holds: frozenset[str], words: dict[str, str]) -> Iterator[tuple[str, Chain]]:
    """Read FIXED_CHAINS under the conditions that hold."""
    for block in FIXED_CHAINS.strip().split("\n\n"):
        head, *body = block.splitlines()
        name, _, hook = head.removeprefix("chain ").partition(": ")
        rules = []
        for line in map(str.strip, body):
            if line.startswith("#"):
                continue
            conditional = CONDITIONAL.fullmatch(line)
            if conditional is None:
                rules.append(line)
            elif holds.issuperset(conditional["conditions"].split(",")):
                rules.append(conditional["rule"])
        yield name, Chain.of(*(Template(rule).substitute(words) for rule in rules), hook=hook or None)
