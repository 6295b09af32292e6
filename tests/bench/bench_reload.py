"""What it takes to load a large policy and to change one client's rule in it: the daemon, and its parts apart."""

from __future__ import annotations

import os
import re
import resource
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from paths import inside, within
from report import figure
from sizes import config, write, write_one
from world import Node, Service, new_key, wait_until

from wgd.config.server import load_server
from wgd.daemon.table import Table
from wgd.host.files import read_server_sources
from wgd.model import ServerConfig
from wgd.plan.ruleset_text import whole_table as text_of_table
from wgd.policy.ruleset import Ruleset
from wgd.policy.table import desired_ruleset

CLIENTS = 10_000
TEN = f"{CLIENTS} clients x 100 rules, 10 policies"
DISTINCT = f"{CLIENTS} clients x 10 rules, {CLIENTS} policies"
ROUNDS = 5
NONE_HELD: frozenset[int] = frozenset()
TICKS = os.sysconf("SC_CLK_TCK")
READY_SECONDS = 300.0


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far, its threads and the kernel's part included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_megabytes(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the CPU time that this process takes for `work`: all of it, and the kernel's part."""
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_stime
    work()
    return time.process_time() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_stime - before


def nft_seconds(namespace: str, text: Path) -> float:
    """Return what `nft -f` takes for the whole table: CPU time, as for ours."""
    begun = os.times()
    inside(namespace, "nft", "-f", str(text))
    ended = os.times()
    return ended.children_user + ended.children_system - begun.children_user - begun.children_system


def whole_table(node: Node, ruleset: Ruleset, folder: Path) -> float:
    """Return the median of what `nft -f` takes to replace the table."""
    text = folder / "table.nft"
    text.write_text("add table inet wgd\ndelete table inet wgd\n" + text_of_table(ruleset, time.time()) + "\n")
    found = statistics.median(nft_seconds(node.namespace, text) for _ in range(3))
    inside(node.namespace, "nft", "delete", "table", "inet", "wgd")
    return found


def rulesets(folder: Path, main: Path) -> tuple[Ruleset, Ruleset]:
    """Return the ruleset before and after the change of one client's rule."""
    found = []
    for port in (80, 8080):
        write_one(folder, port)
        found.append(desired_ruleset(load_server(read_server_sources(main)), NONE_HELD))
    return found[0], found[1]


def door(node: Node, before: Ruleset, after: Ruleset, nft: float) -> None:
    """Measure the kernel's part of a change alone: from ruleset to ruleset."""
    with within(node.namespace):
        table = Table()
        table.set(before)
        table.trust(table.read())
        taken, kernel = [], []
        for wanted in (after, before) * ROUNDS:
            whole, inside_kernel = timed(lambda wanted=wanted: table.set(wanted))
            read_back, _ = timed(lambda: table.trust(table.read()))
            taken.append(whole + read_back)
            kernel.append(inside_kernel)
        table.delete()
        table.close()
    figure("reload", f"one client's rule, set and read back, CPU ms ({TEN})", *ms(taken, nft), "nft -f")
    figure("reload", f"one client's rule, the kernel's part, CPU ms, at most 10 ({TEN})", *ms(kernel, nft), "nft -f")


def ms(taken: list[float], theirs: float) -> tuple[float, float]:
    return 1000 * statistics.median(taken), 1000 * theirs


def load(node: Node, wanted: ServerConfig, folder: Path, size: str) -> None:
    """Measure the first load of a policy from its values: compiled, written, and taken by the kernel."""
    nft = whole_table(node, desired_ruleset(wanted, NONE_HELD), folder)
    with within(node.namespace):
        table = Table()
        fresh = replace(wanted, peers=tuple(replace(peer) for peer in wanted.peers))
        taken, _ = timed(lambda: table.set(desired_ruleset(fresh, NONE_HELD)))
        table.delete()
        table.close()
    figure("reload", f"first load, policy to kernel, CPU s ({size})", taken, nft, "nft -f")


def whole_daemon(node: Node, folder: Path, main: Path, nft: float) -> None:
    """Measure the daemon itself: start to READY, peak of memory, a reload."""
    node.wireguard("wgd0")
    begun = time.monotonic()
    # Not read back as often as in the tests: it is the reload that is measured.
    service = node.service("-m", "wgd.cli.server", "run", "--config", str(main), watchdog_seconds=60.0)
    wait_until("READY=1", lambda: "READY=1" in service.notified or service.code is not None, READY_SECONDS)
    if service.code is not None:
        raise RuntimeError(f"the daemon ended with {service.code}: {service.output[:2000]}")
    figure("reload", f"daemon, start to READY, s ({TEN})", time.monotonic() - begun, nft, "nft -f")
    pid = service.pid
    figure("reload", f"daemon, start to READY, CPU s, at most 3 times ({TEN})", cpu_seconds(pid), nft, "nft -f")
    taken, waited = [], []
    for port in (8081, 8082, 8083):
        write_one(folder, port)
        cpu, begun = cpu_seconds(pid), time.monotonic()
        reload(service)
        taken.append(cpu_seconds(pid) - cpu)
        waited.append(time.monotonic() - begun)
    figure("reload", f"daemon, reload of one client's rule, CPU ms, at most 150 ({TEN})", *ms(taken, nft), "nft -f")
    figure("reload", f"daemon, reload of one client's rule, ms ({TEN})", *ms(waited, nft), "nft -f")
    figure("reload", f"daemon, peak of memory, MB, at most 250 ({TEN})", peak_megabytes(pid), None, None)
    begun = time.monotonic()
    inside(node.namespace, "nft", "flush", "ruleset")
    wait_until("the table to be back", lambda: "restored" in service.output, READY_SECONDS)
    figure("reload", f"daemon, a flushed table is back, s, at most 2 ({TEN})", time.monotonic() - begun, nft, "nft -f")
    service.send(signal.SIGTERM)
    wait_until("the end", lambda: service.code is not None, READY_SECONDS)


def reload(service: Service) -> None:
    """Send HUP and wait until the daemon is ready again."""
    before = service.notified.count("READY=1")
    service.send(signal.SIGHUP)
    wait_until("READY=1 after HUP", lambda: service.notified.count("READY=1") > before, READY_SECONDS)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="wgd-bench-") as scratch:
        folder = Path(scratch)
        new_key(folder / "gateway.key")
        node = Node("bench", folder)
        try:
            ten = config(CLIENTS, 10, 100)
            file = write(folder, ten, folder / "gateway.key")
            before, after = rulesets(folder, file)
            nft = whole_table(node, before, folder)
            load(node, ten, folder, TEN)
            door(node, before, after, nft)
            whole_daemon(node, folder, file, nft)
            load(node, config(CLIENTS, CLIENTS, 10), folder, DISTINCT)
        finally:
            node.end()


if __name__ == "__main__":
    main()
