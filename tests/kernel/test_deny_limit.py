"""A flood of denials is limited for who sends it, and for nobody else; what is not logged is counted and told.

Each blocked flood has its twin: denials within the limit, which are all logged.
"""

import pytest
from test_accounting import counters, settle, told
from world import PYTHON, World, wait_until

from wgd.policy.limits import BURST

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
SCAN = """
import socket, sys
to, count = sys.argv[1], int(sys.argv[2])
with socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM) as sender:
    if len(sys.argv) > 3:
        sender.bind((sys.argv[3], 0))
    for number in range(count):
        sender.sendto(b"x", (to, 10000 + number % 20000))
"""
MANY = 20 * BURST


@pytest.fixture(scope="module")
def world(world_factory):
    with world_factory() as made:
        made.configure("  rules: []")
        text = made.server_yaml.read_text()
        # Bob has a network of each family beside his addresses.
        made.server_yaml.write_text(text.replace("10.80.0.3/32, ", "10.80.0.3/32, 10.81.0.0/16, 'fd81::/64', "))
        made.daemon = made.serve(watchdog_seconds=0.5)
        made.connect(made.alice)
        made.connect(made.bob)
        made.bob("sysctl", "-q", "net.ipv6.ip_nonlocal_bind=1")
        for network, option in (("10.81.0.0/16", "-4"), ("fd81::/64", "-6")):
            made.bob("ip", option, "route", "add", "local", network, "dev", "lo")
            made.lan("ip", option, "route", "add", network, "via", World.INNER[option == "-6"])
        yield made


@pytest.fixture(autouse=True)
def _quiet(world):
    """Each test finds limits that nobody has used."""
    for direction in ("from", "to", "spoof"):
        for family in (4, 6):
            world.gateway("nft", "flush", "set", "inet", "wgd", f"limit_{direction}{family}")


def scan(world, node, to, count, *source):
    program = world.scratch / "scan.py"
    program.write_text(SCAN)
    node(PYTHON, str(program), to, str(count), *source)


class Growth:
    """What the log and the kernel's counters have more than at the beginning, when both agree."""

    def __init__(self, world):
        settle(world)
        self._world, self._before = world, self._now(world)

    def _now(self, world):
        lines, lost = told(world)
        return lines, lost.get("rate_limit", 0), counters(world)["limited"]

    def settled(self):
        settle(self._world)
        return tuple(now - before for now, before in zip(self._now(self._world), self._before, strict=True))


@FAMILIES
def test_denials_within_the_limit_are_all_logged(world, family):
    growth = Growth(world)
    scan(world, world.alice, World.LAN[family], BURST // 2)
    assert growth.settled() == (BURST // 2, 0, 0)


@FAMILIES
def test_a_scan_at_full_rate_is_logged_in_part_and_counted_to_the_last_packet(world, family):
    growth = Growth(world)
    scan(world, world.alice, World.LAN[family], MANY)
    lines, told_of, limited = growth.settled()
    assert BURST <= lines < MANY / 2
    assert told_of == limited > 0


@FAMILIES
def test_a_scan_hides_the_denials_of_no_other_client(world, family):
    scan(world, world.alice, World.LAN[family], MANY)
    scan(world, world.bob, World.LAN[family], 1)
    world.event(event="deny", client="bob", dst_port=10000, dst_ip=World.LAN[family])


@FAMILIES
def test_what_the_network_sends_to_a_client_hides_nothing_of_what_it_sends(world, family):
    client = World.ADDRESSES["alice"][family]
    growth = Growth(world)
    scan(world, world.lan, client, MANY)
    assert growth.settled()[2] > 0
    before = len(world.lines())
    scan(world, world.alice, World.OTHER[family], 1)
    wait_until(
        "alice's denial",
        lambda: any(line.get("src_ip") == client and line["event"] == "deny" for line in world.lines()[before:]),
    )


@FAMILIES
def test_a_client_with_a_whole_network_has_one_limit(world, family):
    sources = [f"10.81.{number}.1" if family == 0 else f"fd81::{number:x}" for number in range(1, 11)]
    growth = Growth(world)
    for source in sources:
        scan(world, world.bob, World.LAN[family], BURST // 2, source)
    lines, told_of, limited = growth.settled()
    assert lines + told_of == 10 * BURST // 2
    assert limited > 0
    listed = world.gateway("nft", "list", "set", "inet", "wgd", f"limit_from{(4, 6)[family]}")
    assert listed.count("limit rate over") == 1


@FAMILIES
def test_spoofed_packets_have_a_limit_of_their_own(world, family):
    victim = World.ADDRESSES["alice"][family]
    world.lan("ip", "address", "add", victim, "dev", "lo", *(("nodad",) if family else ()))
    try:
        growth = Growth(world)
        scan(world, world.lan, World.INNER[family], MANY, victim)
        lines, told_of, limited = growth.settled()
        assert 0 < lines < MANY / 2
        assert told_of == limited > 0
    finally:
        world.lan("ip", "address", "del", victim, "dev", "lo")
    growth = Growth(world)
    scan(world, world.alice, World.LAN[family], 10)
    assert growth.settled() == (10, 0, 0)


def test_the_limits_are_no_drift(world):
    scan(world, world.alice, World.LAN[0], MANY)
    fed = world.daemon.notified.count("WATCHDOG=1")
    wait_until("some checks", lambda: world.daemon.notified.count("WATCHDOG=1") > fed + 2)
    assert world.daemon.reload().count("reloaded")
    assert not [line for line in world.lines() if line["event"] == "drift"]
