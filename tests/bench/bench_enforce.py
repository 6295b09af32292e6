"""What a packet through the gateway costs, with the whole of wgd and without it."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from paths import Flow, Path, inside, within
from report import figure
from sizes import UDP, client, config, last_rule, server

from wgd.host import sysctl
from wgd.kernel.links import Links
from wgd.kernel.nflog import open_nflog
from wgd.kernel.nft import Nft
from wgd.model import ServerConfig
from wgd.plan import forwarding, routing
from wgd.plan.ruleset import transactions
from wgd.policy.table import desired_ruleset

ROUNDS, FIRST_ROUNDS = 300, 31
BURSTS = 8
"""Few packets at a time: what else the machine does meets few of the rounds."""
CLIENT = 5
CONNTRACK_ALONE = """table inet t {
  chain c { type filter hook forward priority 0; policy accept; ct state invalid drop; }
}"""


@dataclass(frozen=True)
class Size:
    """Clients, how many different policies they have, and how many rules each policy has."""

    clients: int
    policies: int
    rules: int

    @property
    def config(self) -> ServerConfig:
        return config(self.clients, self.policies, self.rules)

    def __str__(self) -> str:
        return f"{self.clients} clients x {self.rules} rules, {self.policies} policies"


SMALL, LARGE, DISTINCT = Size(10, 10, 100), Size(10_000, 10, 100), Size(10_000, 10_000, 10)
LINEAR, CONCATENATED = Size(10, 10, 100), Size(1_000, 10, 10)


def load_wgd(path: Path, size: Size) -> list[object]:
    """Set both locks for a config, with a log that takes new flows; return what has to stay open."""
    wanted = size.config
    path.filtered = ("inner",)
    # What the daemon would find to set where the reverse path is filtered.
    path.filter_reverse_path(2)
    with within(path.gateway):
        sysctl.write_settings(forwarding.desired_settings(wanted, sysctl.read_settings(), {}))
        kept = [open_nflog(wanted.logging.nflog_group + number) for number in range(2)]
        Nft().apply(transactions(replace(desired_ruleset(wanted, frozenset()), generation=1), None, time.time()))
        links = Links()
        for rule in routing.desired_rules(wanted):
            links.add_rule(rule)
        links.add_routes(routing.desired_routes(wanted))
        links.close()
    return [*kept]


def load_conntrack(path: Path, size: Size) -> list[object]:
    """Let conntrack alone see every packet."""
    del size
    inside(path.gateway, "nft", "-f", "-", text=CONNTRACK_ALONE)
    routes_to_clients(path)
    return []


def grants(size: Size, family: int) -> Iterator[tuple[str, str, int]]:
    """Yield client, destination and port of every logical rule of a family."""
    for number in range(size.clients):
        for rule in range(size.rules):
            to, port = server(number % size.policies, rule, size.rules)
            if (":" in to) == (family == 6):
                yield client(number, family), to, port


def load_linear(path: Path, size: Size) -> list[object]:
    """Write one rule for each logical rule, as scripts do."""
    rules = [
        f"    {ip} saddr {source} {ip} daddr {to} udp dport {port} accept\n"
        for ip, family in (("ip", 4), ("ip6", 6))
        for source, to, port in grants(size, family)
    ]
    replies = '    iifname "inner" ct state established accept\n'
    head = f"  chain c {{\n    type filter hook forward priority 0; policy drop;\n{replies}"
    inside(path.gateway, "nft", "-f", "-", text="table inet t {\n" + head + "".join(rules) + "  }\n}\n")
    routes_to_clients(path)
    return []


def load_concatenated(path: Path, size: Size) -> list[object]:
    """Put every logical rule into one set, client first."""
    sets = "".join(
        f"  set s{family} {{ type {kind} . {kind} . inet_proto . inet_service; flags interval;\n    elements = {{ "
        + ", ".join(f"{source} . {to} . {UDP} . {port}" for source, to, port in grants(size, family))
        + " }\n  }\n"
        for family, kind in ((4, "ipv4_addr"), (6, "ipv6_addr"))
    )
    chain = """  chain c {
    type filter hook forward priority 0; policy drop;
    iifname "inner" ct state established accept
    ip saddr . ip daddr . meta l4proto . th dport @s4 accept
    ip6 saddr . ip6 daddr . meta l4proto . th dport @s6 accept
  }
"""
    inside(path.gateway, "nft", "-f", "-", text="table inet t {\n" + sets + chain + "}\n")
    routes_to_clients(path)
    return []


def routes_to_clients(path: Path) -> None:
    """Route as a gateway without wgd does."""
    inside(path.gateway, "ip", "route", "add", "10.80.0.0/14", "dev", "wgd0")
    inside(path.gateway, "ip", "-6", "route", "add", "fd80::/64", "dev", "wgd0")


Loader = Callable[[Path, Size], list[object]]
NOTHING = "conntrack alone"
VARIANTS: dict[str, tuple[Loader, Size]] = {
    NOTHING: (load_conntrack, SMALL),
    "wgd small": (load_wgd, SMALL),
    "wgd large": (load_wgd, LARGE),
    "wgd distinct": (load_wgd, DISTINCT),
    "wgd of the set's size": (load_wgd, CONCATENATED),
    "linear rules": (load_linear, LINEAR),
    "one concatenated set": (load_concatenated, CONCATENATED),
}


def measured(flows: dict[str, Flow], rounds: int, measure: Callable[[Flow], float]) -> dict[str, list[float]]:
    """Measure all variants round by round, so that what else the machine does meets them all."""
    found: dict[str, list[float]] = {name: [] for name in flows}
    for turn in range(rounds):
        order = list(flows)[turn % len(flows) :] + list(flows)[: turn % len(flows)]
        for name in order:
            found[name].append(measure(flows[name]) * 1e6)
    return found


def compare(found: dict[str, list[float]], what: str, one: str, other: str) -> None:
    ours, theirs = (statistics.median(found[name]) for name in (one, other))
    sizes = [f"{name} ({VARIANTS[name][1]})" for name in (one, other) if name != NOTHING]
    figure("enforce", f"{what}, us: {', '.join(sizes)}", ours, theirs, other)


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with contextlib.ExitStack() as stack:
        paths = {name: stack.enter_context(Path()) for name in VARIANTS}
        kept = [load(paths[name], size) for name, (load, size) in VARIANTS.items()]
        for family in (4, 6):
            flows = {}
            for name, (_, size) in VARIANTS.items():
                address = client(CLIENT, family)
                to, port = server(CLIENT % size.policies, last_rule(size.rules, family), size.rules)
                paths[name].hosts(address, to)
                flows[name] = paths[name].flow(address, to, port)
                stack.callback(flows[name].close)
            for filtered in (2, 0) if family == 4 else (0,):
                for path in paths.values():
                    path.filter_reverse_path(filtered)
                run(flows, "IPv6" if family == 6 else f"IPv4 (rp_filter {filtered})")
        kept.clear()


def run(flows: dict[str, Flow], where: str) -> None:
    for flow in flows.values():
        flow.establish()
    before = {name: flow.arrived() for name, flow in flows.items()}
    each = measured(flows, ROUNDS, lambda flow: flow.seconds_a_packet(BURSTS))
    answers = measured(flows, ROUNDS, lambda flow: flow.seconds_a_packet(BURSTS, back=True))
    for name, flow in flows.items():
        arrived, sent = flow.arrived() - before[name], 2 * ROUNDS * BURSTS * 64
        if arrived != sent:
            raise RuntimeError(f"{name}: {arrived} of {sent} packets have arrived")
    for one, other in (
        ("wgd small", NOTHING),
        ("wgd large", NOTHING),
        ("wgd large", "wgd small"),
        ("wgd distinct", NOTHING),
        ("wgd small", "linear rules"),
        ("wgd of the set's size", "one concatenated set"),
    ):
        compare(each, f"a packet of a flow, {where}", one, other)
        compare(answers, f"a packet of the answer, {where}", one, other)
    first = measured(flows, FIRST_ROUNDS, lambda flow: flow.seconds_a_first_packet())
    for one, other in (
        ("wgd small", NOTHING),
        ("wgd large", NOTHING),
        ("wgd distinct", NOTHING),
        ("wgd small", "linear rules"),
        ("wgd of the set's size", "one concatenated set"),
    ):
        compare(first, f"the first packet of a flow, {where}", one, other)


if __name__ == "__main__":
    main()
