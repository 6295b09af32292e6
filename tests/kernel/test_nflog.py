"""From the kernel's NFLOG to the event log: real packets, real groups, the real recorder.

    alice    wgd0 10.80.0.2 ──── 10.80.0.1 wgd0    gateway    inner 10.20.0.1 ──── inner 10.20.0.10    lan
                  fd80::2        fd80::1                            fd20::1              fd20::10

Here wgd0 is a cable: what is asked is how a packet becomes a line, not how it came.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from world import Node, cable, wait_until

from tests.unit.events.event_schema import checked
from wgd.daemon.recording import Recording
from wgd.daemon.sources import Handed, Kind
from wgd.daemon.tally import open_tally
from wgd.errors import ConflictError
from wgd.kernel.nflog import open_nflog
from wgd.kernel.nft_counters import Logged
from wgd.policy.names import Client, Destination, NamedRule, Names, Prefix

GROUP = 400
DIGEST = "1f2e3d4c"
KEY = "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="
LAN = "10.20.0.10"
PORT, DENIED_PORT = 7000, 7001
CLONE_NEWNET = 0x40000000


def number(address):
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    return 8 * len(packed), int.from_bytes(packed, "big")


def prefix(address, length):
    bits, first = number(address)
    return Prefix(bits, first, length)


NAMES = Names(
    DIGEST,
    "wgd0",
    (Client(KEY, "alice", 0, (prefix("10.80.0.2", 32), prefix("fd80::2", 128))),),
    ((0,),),
    (NamedRule("staff", 0),),
    ((Destination(prefix("10.20.0.0", 24), None, ()), Destination(prefix("fd20::", 64), 17, ((PORT, PORT),))),),
)

TO_IPV4 = f"group {GROUP} snaplen 28 queue-threshold 512"
TO_IPV6 = f"group {GROUP + 1} snaplen 48 queue-threshold 512"
RULESET = f"""
table inet wgdtest {{
    counter ipv4 {{ }}
    counter ipv6 {{ }}
    chain deny {{
        meta nfproto ipv4 counter name ipv4 log prefix "deny deny {DIGEST}" {TO_IPV4}
        meta nfproto ipv6 counter name ipv6 log prefix "deny deny {DIGEST}" {TO_IPV6}
        drop
    }}
    chain open {{
        meta nfproto ipv4 counter name ipv4 log prefix "open allow {DIGEST}" {TO_IPV4}
        meta nfproto ipv6 counter name ipv6 log prefix "open allow {DIGEST}" {TO_IPV6}
    }}
    chain prerouting {{
        type filter hook prerouting priority 1000;
        iifname "wgd0" udp dport {DENIED_PORT} goto deny
    }}
    chain forward {{
        type filter hook forward priority 1000;
        udp dport {PORT} jump open
        icmp type {{ echo-request, echo-reply }} jump open
        icmpv6 type {{ echo-request, echo-reply }} jump open
    }}
}}
"""

SEND = """
import socket, sys
to, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sender = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(count):
    sender.sendto(b"x" * 10, (to, port))
"""


def send(node, to, port=PORT, count=1):
    node("/usr/bin/python3", "-c", SEND, to, str(port), str(count))


def kill(log):
    """Kill the recorder and wait until that can be seen."""
    pid = log.recording.pid
    os.kill(pid, signal.SIGKILL)
    wait_until("the recorder's death", lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")


@contextlib.contextmanager
def in_network_of(node):
    """This thread, and what it starts, in the network namespace of a node."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as before, Path(f"/run/netns/{node.namespace}").open() as there:
        assert libc.setns(there.fileno(), CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert libc.setns(before.fileno(), CLONE_NEWNET) == 0


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    made = {}
    try:
        for name in ("gateway", "alice", "lan"):
            made[name] = Node(name, tmp_path_factory.getbasetemp())
        gateway, alice, lan = made["gateway"], made["alice"], made["lan"]
        cable(gateway, "wgd0", alice, "wgd0")
        cable(gateway, "inner", lan, "inner")
        gateway.address("wgd0", "10.80.0.1/24", "fd80::1/64")
        gateway.address("inner", "10.20.0.1/24", "fd20::1/64")
        alice.address("wgd0", "10.80.0.2/24", "fd80::2/64")
        lan.address("inner", "10.20.0.10/24", "fd20::10/64")
        gateway("sysctl", "-q", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for node, v4, v6 in ((alice, "10.80.0.1", "fd80::1"), (lan, "10.20.0.1", "fd20::1")):
            node("ip", "route", "add", "default", "via", v4)
            node("ip", "-6", "route", "add", "default", "via", v6)
        yield made
    finally:
        for node in made.values():
            node.end()


class Log:
    """A recording in the gateway, with the kernel's own count of what it logged."""

    def __init__(self, gateway, path):
        self.gateway = gateway
        self.path = path
        self.sockets = [open_nflog(GROUP), open_nflog(GROUP + 1)]
        handed = [Handed(Kind.NFLOG, each) for each in self.sockets]
        self.recording = Recording(open_tally(path.with_name("tally")), handed, path, NAMES)
        self.recording.start()
        gateway("nft", "-f", "-", text=RULESET)

    def close(self):
        self.gateway("nft", "delete", "table", "inet", "wgdtest")
        self.recording.stop()

    def lines(self):
        """Everything in the file; every line is whole and valid."""
        return checked(self.path.read_bytes())

    def logged(self):
        """How many packets the kernel's rules have logged."""
        listed = json.loads(self.gateway("nft", "-j", "list", "counters", "table", "inet", "wgdtest"))["nftables"]
        return sum(entry["counter"]["packets"] for entry in listed if "counter" in entry)

    def waiting(self):
        """How many messages of the IPv4 group the kernel has not sent yet."""
        listed = self.gateway("cat", "/proc/net/netfilter/nfnetlink_log").splitlines()
        return next(int(row.split()[2]) for row in listed if int(row.split()[0]) == GROUP)

    def told(self):
        """How many packets the file has lines for, and how many it says are lost."""
        lines = self.lines()
        lost = sum(line["count"] for line in lines if line["event"] == "lost")
        return sum(line["event"] in ("open", "deny") for line in lines), lost


@pytest.fixture
def log(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr("wgd.daemon.recording.RESTART_SECONDS", 0.0)
    with in_network_of(nodes["gateway"]):
        made = Log(nodes["gateway"], tmp_path / "events.jsonl")
        try:
            yield made
        finally:
            made.close()


class Family(NamedTuple):
    client: str
    lan: str
    rule: str
    headers: int
    ping: tuple[str, int, int]


FAMILIES = pytest.mark.parametrize(
    "family",
    [
        Family("10.80.0.2", "10.20.0.10", "staff[0]", 28, ("icmp", 8, 0)),
        Family("fd80::2", "fd20::10", "staff[1]", 48, ("icmpv6", 128, 129)),
    ],
    ids=["ipv4", "ipv6"],
)


@FAMILIES
def test_an_allowed_packet_names_client_rule_and_both_interfaces(nodes, log, family):
    send(nodes["alice"], family.lan)
    log.recording.settle()
    line = log.lines()[-1]
    assert list(line)[:2] == ["ts", "event"]
    assert line.pop("ts").startswith("20")
    assert 0 < line.pop("src_port") < 65536
    assert line == {
        "event": "open",
        "verdict": "allow",
        "client_id": KEY,
        "client": "alice",
        "src_ip": family.client,
        "dst_ip": family.lan,
        "dst_port": PORT,
        "proto": "udp",
        "rule": family.rule,
        "in_iface": "wgd0",
        "out_iface": "inner",
        "length": family.headers + 10,
    }


@FAMILIES
def test_a_denied_packet_names_the_client_and_no_rule(nodes, log, family):
    send(nodes["alice"], family.lan, DENIED_PORT)
    log.recording.settle()
    line = log.lines()[-1]
    assert (line["event"], line["verdict"], line["client"], line["dst_port"]) == ("deny", "deny", "alice", DENIED_PORT)
    assert "rule" not in line
    assert "out_iface" not in line


@FAMILIES
def test_a_packet_towards_a_client_names_it_too(nodes, log, family):
    send(nodes["lan"], family.client)
    log.recording.settle()
    line = log.lines()[-1]
    assert (line["src_ip"], line["dst_ip"], line["client"]) == (family.lan, family.client, "alice")
    assert (line["in_iface"], line["out_iface"]) == ("inner", "wgd0")
    assert "rule" not in line


@FAMILIES
def test_ping_shows_its_type(nodes, log, family):
    assert nodes["alice"].pings(family.lan)
    log.recording.settle()
    request, reply = log.lines()[-2:]
    assert (request["proto"], request["icmp_type"], reply["icmp_type"]) == family.ping


@FAMILIES
def test_every_packet_of_a_burst_is_a_line(nodes, log, family):
    send(nodes["alice"], family.lan, count=20_000)
    counters = log.recording.settle()
    assert (counters.events, counters.lost, counters.undecoded) == (20_000, 0, 0)
    assert log.told() == (20_000, 0)
    assert log.logged() == 20_000


def test_what_an_overrun_takes_is_counted_to_the_last_packet(nodes, log):
    log.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
    os.kill(log.recording.pid, signal.SIGSTOP)
    send(nodes["alice"], LAN, count=20_000)
    os.kill(log.recording.pid, signal.SIGCONT)
    log.recording.settle()
    send(nodes["alice"], LAN)
    counters = log.recording.settle()
    assert counters.overruns > 0
    assert counters.lost > 0
    assert log.told() == (counters.events, counters.lost)
    assert counters.events + counters.lost == log.logged() == 20_001


def test_an_overrun_at_the_end_is_counted_without_another_event(nodes, log):
    log.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
    os.kill(log.recording.pid, signal.SIGSTOP)
    send(nodes["alice"], LAN, count=20_000)
    wait_until("the kernel's last messages, for which there is no room", lambda: log.waiting() == 0)
    os.kill(log.recording.pid, signal.SIGCONT)
    log.recording.settle()
    assert sum(log.told()) < 20_000
    log.recording.compare(lambda: Logged((log.logged(), 0), 0))
    wait_until("the loss", lambda: sum(log.told()) == 20_000)
    send(nodes["alice"], LAN)
    log.recording.compare(lambda: Logged((log.logged(), 0), 0))
    counters = log.recording.settle()
    assert sum(log.told()) == counters.events + counters.lost == 20_001, "the next event's number is no second loss"


def test_kill_9_of_the_recorder_loses_nothing_that_was_queued(nodes, log):
    send(nodes["alice"], LAN, count=100)
    log.recording.settle()
    pid = log.recording.pid
    os.kill(pid, signal.SIGSTOP)
    send(nodes["alice"], LAN, count=5_000)
    kill(log)
    send(nodes["alice"], LAN, count=5_000)
    log.recording.handle()
    counters = log.recording.settle()
    assert log.recording.pid != pid
    assert log.told() == (10_100, 0)
    assert (counters.events, counters.lost) == (10_100, 0)


def test_kill_9_under_load_leaves_every_packet_told_or_counted(nodes, log):
    sender = nodes["alice"].start("/usr/bin/python3", "-c", SEND, LAN, str(PORT), "100000")
    for _ in range(3):
        before = log.recording.counters().events
        wait_until("more events", lambda before=before: log.recording.counters().events > before + 2000)
        kill(log)
        log.recording.handle()
    assert sender.wait() == 0
    log.recording.settle()
    send(nodes["alice"], LAN)
    counters = log.recording.settle()
    lines, lost = log.told()
    assert log.logged() == 100_001
    assert counters.events + counters.lost == 100_001
    assert lines + lost == 100_001


def test_after_a_rename_and_reopen_no_line_is_lost_or_doubled(nodes, log):
    sender = nodes["alice"].start("/usr/bin/python3", "-c", SEND, LAN, str(PORT), "30000")
    wait_until("the first lines", lambda: log.path.stat().st_size > 0)
    old = log.path.rename(log.path.with_suffix(".1"))
    log.recording.reopen()
    assert sender.wait() == 0
    log.recording.settle()
    written = [path.read_text().count("\n") for path in (old, log.path)]
    assert sum(written) == 30_000
    assert all(written)


def test_stopping_writes_what_the_kernel_still_holds_back(nodes, log):
    send(nodes["alice"], LAN, count=1_000)
    log.recording.stop()
    assert log.told() == (1_000, 0)


def test_the_recorder_that_reads_the_wire_holds_no_capability(log):
    status = Path(f"/proc/{log.recording.pid}/status").read_text().splitlines()
    values = dict(line.split(":\t", 1) for line in status if line.startswith(("Cap", "NoNewPrivs")))
    assert values.pop("NoNewPrivs") == "1"
    assert {int(value, 16) for value in values.values()} == {0}
    assert len(values) == 5


@pytest.mark.usefixtures("log")
def test_a_group_that_another_program_reads_is_refused_by_name():
    with pytest.raises(ConflictError, match=f"NFLOG group {GROUP}: another program reads .* logging.nflog_group"):
        open_nflog(GROUP)


def test_without_the_capability_the_refusal_says_which(nodes):
    script = (
        "import os; os.setuid(65534)\n"
        "from wgd.errors import KernelError\nfrom wgd.kernel.nflog import open_nflog\n"
        "try:\n    open_nflog(7)\nexcept KernelError as error:\n    print(error)"
    )
    said = nodes["gateway"](sys.executable, "-c", script)
    assert said.strip() == "NFLOG group 7: binding to it needs CAP_NET_ADMIN"


def test_the_kernel_holds_what_was_asked_for(nodes, log):
    listed = nodes["gateway"]("cat", "/proc/net/netfilter/nfnetlink_log")
    rows = {int(row.split()[0]): row.split()[3:6] for row in listed.splitlines()}
    for group in (GROUP, GROUP + 1):
        copy_mode, _, timeout = rows[group]
        assert (copy_mode, timeout) == ("2", "10")
    assert log.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 32 << 20


def test_a_closed_group_is_free_again(nodes):
    with in_network_of(nodes["gateway"]):
        open_nflog(GROUP + 7).close()
        open_nflog(GROUP + 7).close()
