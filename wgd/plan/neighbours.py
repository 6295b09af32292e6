"""What else on the host drops what wgd allows, or lets flows around it: docker, ufw, firewalld, an operator's rules.

Nothing of it is touched. Each finding names the place, what it does to wgd's traffic, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

from wgd.model import Network, Peer, ServerConfig
from wgd.plan.foreign_rules import Packet, mark_bit, matches, puts_into_zone, verdicts
from wgd.plan.foreign_tables import Chain, Tables, parse_tables
from wgd.plan.remedy import accept_remedy, port_remedy, prefixed
from wgd.plan.routing import RULES_A_FAMILY
from wgd.plan.state import PROTOCOL, RoutingRule
from wgd.policy.remembered import remembered

OUR_PREROUTING_PRIORITY = 1000
"""Of policy/skeleton.py."""
LOCAL_TABLE = 255
MOST_OF_A_RULE = 120
MOST_NETWORKS = 50
FAMILIES = {4: "ip", 6: "ip6"}


@dataclass(frozen=True)
class Finding:
    """One neighbour that gets in the way: where it is, what it does to wgd's traffic, and a remedy in a sentence."""

    where: str
    effect: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.effect}. {self.remedy}."


def findings(
    listing: Iterable[Mapping[str, Any]],
    rules: Iterable[RoutingRule],
    settings: Mapping[str, str],
    config: ServerConfig,
) -> tuple[Finding, ...]:
    """Return what gets in the way of `config`'s gateway, each once; none on a host that has nothing of the kind.

    `listing` is what nft's JSON lists of every table but ours, a rule with itself as `text` (kernel/nft_others.py);
    `rules` are all routing rules of the host, `settings` sysctls by path below net/.
    """
    tables = parse_tables(listing)
    packets = tuple(_packets(config))
    found = [
        *_drops(tables, packets, config),
        *_flowtables(tables, packets, config),
        *_conntrack(tables, packets),
        *_marks(tables, packets, config),
        *_translations(tables, packets, config),
        *_routing_rules(rules, config),
        *_settings(settings, config),
    ]
    return tuple(dict.fromkeys(found))


def _packets(config: ServerConfig) -> Iterator[Packet]:
    """Yield one packet of each kind that the host must let pass: from clients, their replies, and the tunnel's own."""
    name, bit = config.interface.name, config.routing.mark
    for version in FAMILIES:
        networks = _clients(config.peers)[version]
        if networks and any(address.version == version for address in config.interface.address):
            of_clients = Packet("", version, name, "new", networks=networks, bit=bit)
            yield replace(of_clients, what="what clients send", incoming=True)
            yield replace(of_clients, what="replies to clients", state="established", outgoing=True)
            if any(rule.allow_from for rule in config.policy.rules):
                yield replace(of_clients, what="what the network begins", outgoing=True)
        if config.interface.listen_port is not None:
            yield Packet("the tunnel's own packets", version, name, "new", port=config.interface.listen_port)


@remembered
def _clients(peers: tuple[Peer, ...]) -> Mapping[int, tuple[Network, ...]]:
    """Return the clients' networks by IP version."""
    return {
        version: _few([network for peer in peers for network in peer.allowed_ips if network.version == version])
        for version in FAMILIES
    }


def _few(networks: list[Network]) -> tuple[Network, ...]:
    """Return the networks, or where they are many what they lie in: a rule is about all of them or about few."""
    if len(networks) <= MOST_NETWORKS:
        return tuple(networks)
    first = min(int(network.network_address) for network in networks)
    last = max(int(network.broadcast_address) for network in networks)
    length = networks[0].max_prefixlen - (first ^ last).bit_length()
    return (ip_network(f"{networks[0].network_address}/{length}", strict=False),)


def _chains(tables: Tables, packet: Packet, *hooks: str) -> Iterator[Chain]:
    """Yield the filtering base chains on hooks that see packets of this version."""
    for chain in tables.chains.values():
        if chain.hook in hooks and chain.family in ("inet", FAMILIES[packet.version]):
            yield chain


@dataclass(frozen=True)
class _Hit:
    """A place that drops a packet: a rule, or the policy of a base chain (`rule` None); `certain` False: it may."""

    chain: Chain
    rule: Mapping[str, Any] | None
    certain: bool


def _drops(tables: Tables, packets: tuple[Packet, ...], config: ServerConfig) -> Iterator[Finding]:
    hits: dict[tuple[str, str, int | None], list[tuple[_Hit, Packet]]] = {}
    for packet in packets:
        hooks = ("prerouting", "input") if packet.port is not None else ("prerouting", "forward", "postrouting")
        for chain in _chains(tables, packet, *hooks):
            if chain.kind == "nat":
                continue
            for hit in _walked(tables, chain, packet):
                number = hit.rule["handle"] if hit.rule is not None else None
                key = (hit.chain.table, hit.chain.name, number)
                hits.setdefault(key, []).append((hit, packet))
    for dropped in hits.values():
        (hit, packet), *_ = dropped
        chain, rule = hit.chain, hit.rule
        what = _dropped(dropped)
        remedy = accept_remedy if packet.port is None else port_remedy
        yield Finding(
            chain.where if rule is None else _where(chain, rule),
            f"its policy {what}" if rule is None else what,
            remedy(tables, chain, config),
        )


def _dropped(dropped: list[tuple[_Hit, Packet]]) -> str:
    """Return in words what is dropped for sure and what may be."""
    sure = dict.fromkeys(packet.what for hit, packet in dropped if hit.certain)
    perhaps = dict.fromkeys(packet.what for _, packet in dropped if packet.what not in sure)
    parts = [f"{verb} {' and '.join(what)}" for verb, what in (("drops", sure), ("may drop", perhaps)) if what]
    return " and ".join(parts)


def _walked(tables: Tables, base: Chain, packet: Packet) -> list[_Hit]:
    """Return where a packet is dropped on its way through a base chain."""
    hits: list[_Hit] = []
    end = _walk(tables, base, packet, hits, certain=True)
    if end == "continue" and base.policy == "drop":
        hits.append(_Hit(base, None, certain=True))
    return hits


def _walk(tables: Tables, chain: Chain, packet: Packet, hits: list[_Hit], *, certain: bool) -> str:
    """Go through a chain and note drops; return how it ends for sure: accept, drop, or continue with the caller."""
    for rule in chain.rules:
        holds = matches(rule, packet)
        if holds is False:
            continue
        for word, target, chosen in verdicts(rule, packet):
            sure = holds is True and chosen is True
            end = word
            if word in ("jump", "goto"):
                called = tables.chains.get((chain.table, target))
                end = "continue"
                if called is not None:
                    end = _walk(tables, called, packet, hits, certain=certain and sure)
            elif word == "drop":
                hits.append(_Hit(chain, rule, certain and sure))
            if sure and (end in ("accept", "drop") or word in ("goto", "return")):
                return "continue" if end in ("return", "goto") else end
    return "continue"


def _where(chain: Chain, rule: Mapping[str, Any]) -> str:
    text = rule.get("text") or f"with handle {rule['handle']}"
    shown = text if len(text) <= MOST_OF_A_RULE else f"{text[:MOST_OF_A_RULE]}…"
    return f"{chain.where}, rule `{prefixed(shown)}`"


def _flowtables(tables: Tables, packets: tuple[Packet, ...], config: ServerConfig) -> Iterator[Finding]:
    for table, name, devices in tables.flowtables:
        used = any(
            matches(rule, packet) is not False
            for chain in tables.chains.values()
            if chain.table == table
            for rule in chain.rules
            if any(part.get("flow", {}).get("flowtable") == f"@{name}" for part in rule["expr"])
            for packet in packets
            if packet.port is None
        )
        if used or config.interface.name in devices:
            yield Finding(
                f"table {table}, flowtable {name}",
                "takes flows of clients past wgd's chains: a revoked flow goes on",
                f'Put `iifname "{config.interface.name}" accept` and `oifname "{config.interface.name}" accept`'
                " before its `flow add` rule, and take the interface out of its devices",
            )


def _touching(tables: Tables, packets: tuple[Packet, ...], *hooks: str) -> Iterator[tuple[Chain, Chain, Any]]:
    """Yield the rules that clients' packets may meet, with their chain and the base chain it is reached from."""
    for packet in packets:
        if packet.port is None:
            for base in _chains(tables, packet, *hooks):
                yield from ((base, chain, rule) for chain, rule in _met(tables, base, packet))


def _met(tables: Tables, chain: Chain, packet: Packet) -> Iterator[tuple[Chain, Any]]:
    for rule in chain.rules:
        if matches(rule, packet) is False:
            continue
        yield chain, rule
        for word, target, _ in verdicts(rule, packet):
            called = tables.chains.get((chain.table, target)) if word in ("jump", "goto") else None
            if called is not None:
                yield from _met(tables, called, packet)


def _conntrack(tables: Tables, packets: tuple[Packet, ...]) -> Iterator[Finding]:
    for _, chain, rule in _touching(tables, packets, "prerouting"):
        names = {part["xt"].get("name") for part in rule["expr"] if "xt" in part}
        text = rule.get("text", "")
        if any("notrack" in part for part in rule["expr"]) or ("CT" in names and "notrack" in text):
            yield Finding(
                _where(chain, rule),
                "keeps packets of clients out of conntrack: replies are dropped as nobody's",
                "Remove the rule, or have it leave out wgd's interface and the clients' addresses",
            )
        elif puts_into_zone(rule) or "CT" in names:
            may = "puts" if puts_into_zone(rule) else "may put"
            yield Finding(
                _where(chain, rule),
                f"{may} packets of clients into another conntrack zone: a reply in another one is dropped as nobody's",
                "Remove the rule, or have it leave out wgd's interface and the clients' addresses",
            )


def _marks(tables: Tables, packets: tuple[Packet, ...], config: ServerConfig) -> Iterator[Finding]:
    bit = config.routing.mark
    for base, chain, rule in _touching(tables, packets, "prerouting", "input", "forward"):
        becomes = mark_bit(rule, bit)
        if becomes is None:
            continue
        after = base.hook != "prerouting" or base.priority >= OUR_PREROUTING_PRIORITY
        if becomes == "cleared" and not after:
            # Our chain comes later and begins with clearing it, too.
            continue
        effect = {
            ("set", True): f"sets wgd's mark 0x{bit:x}: what wgd has denied passes for allowed",
            ("set", False): f"sets wgd's mark 0x{bit:x}: while wgd's table is gone, everything passes for allowed",
            ("cleared", True): f"clears wgd's mark 0x{bit:x}: what wgd has allowed passes for denied",
        }.get((becomes, after), f"may change wgd's mark 0x{bit:x}, by which it knows what it has allowed")
        yield Finding(
            _where(chain, rule),
            effect,
            f"Give the rule a mask without that bit (0x{0xFFFFFFFF & ~bit:x}), or choose another routing.mark",
        )


def _translations(tables: Tables, packets: tuple[Packet, ...], config: ServerConfig) -> Iterator[Finding]:
    """Find source NAT. It is asked at the first packet of a flow, so replies have none of their own."""
    first = tuple(packet for packet in packets if packet.state == "new" and packet.incoming)
    for base, chain, rule in _touching(tables, first, "postrouting"):
        names = {part["xt"].get("name") for part in rule["expr"] if "xt" in part}
        native = any(word in part for part in rule["expr"] for word in ("masquerade", "snat"))
        if base.kind == "nat" and (native or names & {"MASQUERADE", "SNAT", "NETMAP"}):
            yield Finding(
                _where(chain, rule),
                "hides the clients' addresses from the network behind the gateway's",
                f'Have it leave out `iifname "{config.interface.name}"`, unless that is what you want',
            )


def _routing_rules(rules: Iterable[RoutingRule], config: ServerConfig) -> Iterator[Finding]:
    first, bit, name = config.routing.priority, config.routing.mark, config.interface.name
    last = first + RULES_A_FAMILY - 1
    for rule in rules:
        if rule.protocol == PROTOCOL or (rule.priority == 0 and rule.table == LOCAL_TABLE):
            continue
        where = f"routing rule {rule.priority} (IPv{rule.family}), {_rule_words(rule)}"
        if rule.mask & bit and rule.mark & bit:
            yield Finding(
                where,
                f"takes what wgd has allowed elsewhere: it matches wgd's mark 0x{bit:x}",
                "Give the rule another mark, or choose another routing.mark",
            )
        elif rule.priority < first:
            takes = "takes packets past" if rule.action == "lookup" else "drops packets before"
            yield Finding(
                where,
                f"{takes} wgd's routing rules: what enters by {name} or goes to a client may not be asked there",
                f"Give the rule a priority after {last}, or choose a routing.priority before {rule.priority}",
            )


def _rule_words(rule: RoutingRule) -> str:
    """Return a routing rule the way `ip rule` writes it."""
    words = [f"iif {rule.incoming}"] if rule.incoming is not None else []
    words += [f"fwmark 0x{rule.mark:x}/0x{rule.mask:x}"] if rule.mask else []
    words.append(f"lookup {rule.table}" if rule.action == "lookup" else rule.action)
    return "`" + " ".join(words) + "`"


def _settings(settings: Mapping[str, str], config: ServerConfig) -> Iterator[Finding]:
    name = f"ipv4/conf/{config.interface.name}/forwarding"
    if settings.get(name) == "0" and settings.get("ipv4/ip_forward") == "1":
        yield Finding(
            f"sysctl net.{name.replace('/', '.')}",
            "keeps what clients send by IPv4 from being forwarded",
            f"Set it to 1: sysctl net.{name.replace('/', '.')}=1",
        )
