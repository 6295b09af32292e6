"""What an event costs the process that reads and writes it, ours and ulogd2, and whether any is lost at a high rate."""

from __future__ import annotations

import json
import os
import re
import statistics
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

from readers import Reader, ours, ulogd2
from report import figure
from sizes import client, config
from traffic import CLIENTS, DENIED, ECHO_REQUEST, MIXES, POLICIES, RULES, Flow, Gateway, Mix

from wgd.events.lines import PROTOCOL_NAMES
from wgd.model import AllowRule, Rule, ServerConfig
from wgd.policy.names import Names, names
from wgd.policy.skeleton import Context, log_chains

DIGEST = "1f2e3d4c"
ROUNDS, EVENTS = 7, 60_000
RATE, PACED_EVENTS, PACED_ROUNDS = 200_000, 600_000, 3


def the_config() -> ServerConfig:
    """Return many clients with few policies of hosts and ports, and after these two networks that all may reach."""
    made = config(CLIENTS, POLICIES, RULES)
    networks = (AllowRule(ip_network("10.64.0.0/10")), AllowRule(ip_network("fd40::/32")))
    everyone = Rule("networks", tuple(peer.public_key for peer in made.peers), networks)
    return replace(made, policy=replace(made.policy, rules=(*made.policy.rules, everyone)))


def ruleset(wanted: ServerConfig) -> str:
    """Return a ruleset with the gateway's own log rules: it denies the clients from DENIED on, and opens all else.

    Denials are not limited, which is what is measured. Nothing goes on from here, whatever the log says.
    """
    lines = []
    for name, chain in log_chains(wanted, Context(DIGEST), enforce=True).items():
        lines += [f"chain {name} {{", *(rule for rule in chain.rules if " log prefix " in rule), "}"]
    counters = [f"counter {name} {{ }}" for name in sorted(set(re.findall(r'counter name "(\w+)"', "\n".join(lines))))]
    lines += ["chain prerouting {", "type filter hook prerouting priority 1000", "iifname != wgd0 drop"]
    for ip, family in (("ip", 4), ("ip6", 6)):
        denied = f"{ip} saddr {client(DENIED, family)}-{client(CLIENTS, family)}"
        lines += [f"{denied} jump log_deny", f"{denied} drop"]
    lines += ["}", "chain forward {", "type filter hook forward priority 1000", "jump log_allow", "drop", "}"]
    return "\n".join(["table inet t {", *counters, *lines, "}"])


def expected(flow: Flow, known: Names) -> dict[str, object]:
    """Return what the line of a flow's packet must say besides its time, found out in the plain way."""
    source, to = ip_address(flow.source), ip_address(flow.to)
    peer = known.client(source.packed)
    if peer is None:
        raise RuntimeError(f"{source} is nobody's address")
    number = int(peer.name.removeprefix("c"))
    is_ping = flow.protocol in ECHO_REQUEST
    first, second = flow.ports
    port = None if is_ping else second
    line = {
        **({"event": "deny", "verdict": "deny"} if number >= DENIED else {"event": "open", "verdict": "allow"}),
        "client_id": peer.public_key,
        "client": peer.name,
        "src_ip": str(source),
        "src_port": None if is_ping else first,
        "dst_ip": str(to),
        "dst_port": port,
        "proto": PROTOCOL_NAMES[flow.protocol],
        "icmp_type": first if is_ping else None,
        "rule": known.rule(peer, to.packed, flow.protocol, port) if number < DENIED else None,
        "in_iface": "wgd0",
        "out_iface": "inner" if number < DENIED else None,
        "length": len(flow.packet),
    }
    return {key: value for key, value in line.items() if value is not None}


class Side:
    """A gateway and the one process that reads its log."""

    def __init__(self, gateway: Gateway, reader: Reader) -> None:
        self.gateway = gateway
        self.reader = reader

    def lines_of(self, packets: list[bytes]) -> tuple[float, list[bytes]]:
        """Return the CPU seconds that the reader takes for packets, and its lines: each packet must give one."""
        before = self.reader.cpu_seconds()
        self.gateway.send(packets)
        lines = self.reader.take(len(packets))
        if abs(len(lines) - len(packets)) > self.reader.kept:
            raise RuntimeError(f"{self.reader.path.name}: {len(lines)} events for {len(packets)} packets")
        return self.reader.cpu_seconds() - before, lines

    def at_rate(self, packets: list[bytes]) -> tuple[float, float, int]:
        """Return the packets offered a second, the reader's CPU seconds for a second of that, and the lines missing."""
        before = self.reader.cpu_seconds()
        rate = self.gateway.send_paced(packets, RATE)
        missing = len(packets) - len(self.reader.take(len(packets)))
        spent = self.reader.cpu_seconds() - before
        return rate, spent * rate / len(packets), missing if abs(missing) > self.reader.kept else 0


def check(flows: list[Flow], lines: list[bytes], known: Names) -> None:
    """Raise unless the lines say of each flow what must be said, no more and no less."""
    found = Counter(line.partition(b",")[2] for line in lines)
    wanted = Counter(json.dumps(expected(flow, known), separators=(",", ":"))[1:].encode() for flow in flows)
    if found != wanted:
        raise RuntimeError(f"lines that are wrong: {list(found - wanted)[:3]} instead of {list(wanted - found)[:3]}")


def main() -> None:
    sender, *others = sorted(os.sched_getaffinity(0))
    wanted = the_config()
    known = names(wanted, DIGEST)
    groups = [wanted.logging.nflog_group, wanted.logging.nflog_group + 1]
    with ExitStack() as stack:
        # Not on a disk, which other programs may keep busy for longer than a round takes.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        # What sends has a CPU of its own, and what reads the others.
        os.sched_setaffinity(0, others or [sender])
        sides = []
        for run in (
            lambda namespace: ours(namespace, groups, known, folder),
            lambda namespace: ulogd2(namespace, groups, folder),
        ):
            gateway = stack.enter_context(Gateway(ruleset(wanted)))
            sides.append(Side(gateway, stack.enter_context(run(gateway.namespace))))
        os.sched_setaffinity(0, {sender})
        for name, mix in MIXES.items():
            measure(name, mix, sides, known)
        measure_loss(MIXES["mixed"], sides)


def measure(name: str, mix: Mix, sides: list[Side], known: Names) -> None:
    """Measure both sides by turns. The first round makes them warm, and there each line of ours is checked."""
    found: list[list[float]] = [[], []]
    for turn in range(ROUNDS + 1):
        flows = list(mix(EVENTS, turn))
        packets = [flow.packet for flow in flows]
        for side, results in zip(sides, found, strict=True):
            seconds, lines = side.lines_of(packets)
            if turn == 0 and side is sides[0]:
                check(flows, lines, known)
            results.append(seconds / len(lines) * 1e6)
    mine, theirs = (statistics.median(results[1:]) for results in found)
    figure("events", f"CPU time of an event, us: {name}", mine, theirs, "ulogd2")


def measure_loss(mix: Mix, sides: list[Side]) -> None:
    """Offer a high rate to both sides by turns."""
    packets = [flow.packet for flow in mix(EVENTS, 0)] * (PACED_EVENTS // EVENTS)
    found: list[list[tuple[float, float, int]]] = [[], []]
    for _ in range(PACED_ROUNDS):
        for side, results in zip(sides, found, strict=True):
            results.append(side.at_rate(packets))
    rate, load, lost = (
        [statistics.median(result[place] for result in results) for results in found] for place in range(3)
    )
    limit = "as asked" if rate[0] > 0.98 * RATE else f"the generator's limit, {RATE} were asked"
    figure("events", f"events offered a second ({limit})", *rate, "ulogd2")
    figure("events", "CPU seconds a second at that rate", *load, "ulogd2")
    figure("events", f"events lost of {PACED_EVENTS} at that rate", *lost, "ulogd2")


if __name__ == "__main__":
    main()
