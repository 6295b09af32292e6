"""What the end of a flow costs the process that reads conntrack's events and writes their lines, ours and ulogd2.

Both listen to the same kernel, each in a namespace of its own; every flow there is one that is recorded. Each end comes
as a datagram of its own, with the counts of both directions.
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from paths import within
from pyroute2 import NFCTSocket
from readers import BUFFER_SIZE, Reader, run_ulogd2
from report import figure
from sizes import client, config, server

from wgd.daemon.recording import Recording
from wgd.daemon.sources import Handed, Kind
from wgd.daemon.tally import open_tally
from wgd.kernel.flow_ends import open_flow_ends
from wgd.kernel.nflog import open_nflog
from wgd.policy.names import Names, names
from wgd.policy.ruleset import RECORDED_FORWARDED

CLIENTS, POLICIES, RULES = 1000, 10, 10
ROUNDS, FLOWS = 5, 20_000
GROUPS = 100, 101
FIRST_PORT, UDP = 1024, 17
DESTROYED = 4
"""NF_NETLINK_CONNTRACK_DESTROY."""
SOURCE, (TO, PORT) = client(0, 4), server(0, 0, RULES)
PLUGINS = "inpflow_NFCT", "filter_IP2STR", "output_JSON"
STACK = "ct1:NFCT,ip2str1:IP2STR,json1:JSON"
NFCT = ("[ct1]", f"event_mask={DESTROYED}", "hash_enable=0", *BUFFER_SIZE)
RULESET = f"""table inet t {{
    chain output {{
        type filter hook output priority 0
        ct mark set {RECORDED_FORWARDED}
    }}
}}"""


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """Make a network namespace in which flows from the first client to the first destination are recorded."""
    made = f"wgdb{os.getpid()}{name}"
    subprocess.run(["ip", "netns", "add", made], check=True)
    try:
        with within(made):
            for words in (["link", "set", "lo", "up"], *(["address", "add", at, "dev", "lo"] for at in (SOURCE, TO))):
                subprocess.run(["ip", *words], check=True)
            for setting in ("acct", "timestamp"):
                Path(f"/proc/sys/net/netfilter/nf_conntrack_{setting}").write_text("1")
            subprocess.run(["nft", RULESET], check=True)
        yield made
    finally:
        subprocess.run(["ip", "netns", "delete", made], check=True)


@contextmanager
def ours(where: str, known: Names, folder: Path) -> Iterator[Reader]:
    """Run the recorder as the daemon runs it."""
    path = folder / "ours.jsonl"
    with within(where):
        handed = [Handed(Kind.NFLOG, open_nflog(group)) for group in GROUPS]
        handed.append(Handed(Kind.FLOW_ENDS, open_flow_ends()))
        recording = Recording(open_tally(folder / "tally"), handed, path, known)
        recording.start()
    try:
        yield Reader(recording.pid or 0, path)
    finally:
        recording.stop()


def begin_and_end(where: str) -> None:
    """Begin FLOWS flows of one packet each, and end them all."""
    with within(where), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, UDP, 0, *map(socket.inet_aton, (SOURCE, TO)))
        for port in range(FIRST_PORT, FIRST_PORT + FLOWS):
            sender.sendto(header + struct.pack("!HHHH", port, PORT, 8, 0), (TO, 0))
        with NFCTSocket() as conntrack:
            conntrack.flush()


def main() -> None:
    known = names(config(CLIENTS, POLICIES, RULES), "1f2e3d4c")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        one, other = (stack.enter_context(namespace(name)) for name in ("ours", "theirs"))
        readers = {
            one: stack.enter_context(ours(one, known, folder)),
            other: stack.enter_context(run_ulogd2(other, PLUGINS, [STACK], NFCT, folder)),
        }
        found: dict[str, list[float]] = {one: [], other: []}
        for _ in range(ROUNDS + 1):
            for where, reader in readers.items():
                before = reader.cpu_seconds()
                begin_and_end(where)
                lines = reader.take(FLOWS)
                if abs(len(lines) - FLOWS) > reader.kept:
                    raise RuntimeError(f"{reader.path.name}: {len(lines)} ends of {FLOWS} flows")
                found[where].append((reader.cpu_seconds() - before) / len(lines) * 1e6)
        # The first round has made them warm.
        mine, theirs = (statistics.median(results[1:]) for results in found.values())
        figure("flows", "CPU time of a flow's end, us", mine, theirs, "ulogd2")


if __name__ == "__main__":
    main()
