"""Start, stop, reload and refusal of the gateway: what it changes on the host, and that it takes it back."""

import re
import signal

import pytest
from flow import reaches, tcp
from world import PYTHON, World, wait_until

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
POLICY = """
  rules:
    - client_id: alice
      allow:
        - {to: 10.20.0.10, proto: tcp, ports: [8080, 9000]}
        - {to: 'fd20::10', proto: tcp, ports: [8080, 9000]}
"""


@pytest.fixture
def world(world_factory):
    with world_factory() as made:
        made.configure(POLICY)
        yield made


def state(node):
    """Return everything that a gateway may change in a node, as a set of lines that say what they are of."""
    shown = {
        "rule": node("ip", "-4", "rule") + node("ip", "-6", "rule"),
        "route": node("ip", "-4", "route", "show", "table", "all") + node("ip", "-6", "route", "show", "table", "all"),
        "address": node("ip", "-o", "address"),
        "nftables": node("nft", "list", "ruleset"),
        "sysctl": node("sysctl", "net.ipv4.ip_forward", "net.ipv4.conf", "net.ipv6.conf"),
        "wireguard": node("wg", "show", "wgd0", "dump").replace("\t", "\n"),
        "file": node("find", "/run", "-type", "f"),
    }
    # A link without a hardware address keeps the secret that its first link-local address was made of.
    once = ("conf.wgd0.stable_secret", "conf.wgd0.addr_gen_mode")
    return {
        f"{what}: {line}"
        for what, text in shown.items()
        for line in text.splitlines()
        if not any(setting in line for setting in once)
    }


class TestStop:
    def test_takes_back_everything_and_leaves_the_interface_that_was_there(self, world):
        world.gateway.wireguard("wgd0")
        before = state(world.gateway)
        daemon = world.serve()
        world.connect(world.alice)
        assert state(world.gateway) != before
        assert daemon.end() == 0, daemon.output
        assert state(world.gateway) == before

    def test_leaves_what_the_interface_had_before(self, world):
        node = world.gateway
        node.wireguard("wgd0")
        node("wg", "set", "wgd0", "private-key", f"{world.scratch}/gateway.key", "listen-port", "4242")
        node("ip", "address", "add", "10.99.0.1/24", "dev", "wgd0")
        node("ip", "link", "set", "wgd0", "mtu", "1380", "up")
        before = state(node)
        daemon = world.serve()
        assert daemon.end() == 0, daemon.output
        assert state(node) == before

    def test_puts_back_what_a_killed_run_before_it_changed(self, world):
        world.gateway.wireguard("wgd0")
        before = state(world.gateway)
        world.serve().kill()
        daemon = world.serve()
        assert daemon.end() == 0, daemon.output
        assert state(world.gateway) == before

    def test_believes_no_chain_that_was_changed_while_it_was_dead(self, world):
        """What is done to a rule behind its chain's first one leaves the mark standing by which the chain is known."""
        listing = ("nft", "-a", "list", "chain", "inet", "wgd", "unmarked")
        daemon = world.serve()
        before = world.gateway(*listing)
        daemon.kill()
        handle = re.search(r'oifname "wgd0" drop # handle (\d+)', before)[1]
        world.gateway("nft", "replace", "rule", "inet", "wgd", "unmarked", "handle", handle, "accept")
        daemon = world.serve()
        assert re.sub(r"handle \d+", "", world.gateway(*listing)) == re.sub(r"handle \d+", "", before)
        assert daemon.end() == 0, daemon.output

    def test_writes_that_it_started_and_stopped(self, world):
        world.serve().end()
        assert [line["event"] for line in world.lines()] == ["started", "stopped"]


class TestForwarding:
    """Promise 11: the host does not become a router for others."""

    @pytest.fixture
    def routed(self, world):
        """The LAN and what is behind the gateway's other cable could reach each other through it."""
        world.gateway.wireguard("wgd0")
        world.bob("ip", "route", "add", "10.20.0.0/24", "via", "198.51.100.1")
        world.gateway("ip", "address", "add", "fd99::1/64", "dev", "to-bob", "nodad")
        world.bob("ip", "address", "add", "fd99::2/64", "dev", "outer", "nodad")
        world.bob("ip", "-6", "route", "add", "fd20::/64", "via", "fd99::1")
        world.lan("ip", "route", "add", "198.51.100.0/24", "via", "10.20.0.1")
        world.lan("ip", "-6", "route", "add", "fd99::/64", "via", "fd20::1")
        return world

    @FAMILIES
    def test_is_not_opened_for_others_while_wgd_holds_the_switch(self, routed, family):
        routed.serve()
        routed.connect(routed.alice)
        assert routed.alice.gets(World.LAN[family])
        assert not routed.bob.pings(World.LAN[family])

    @FAMILIES
    def test_stays_as_it_is_where_the_host_forwarded_before(self, routed, family):
        routed.gateway("sysctl", "-q", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        daemon = routed.serve()
        assert routed.bob.pings(World.LAN[family])
        daemon.end()
        assert routed.bob.pings(World.LAN[family])

    def test_is_left_alone_when_it_is_manual(self, world):
        world.configure(POLICY, more="forwarding: manual\n")
        daemon = world.serve()
        assert world.gateway("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding").split() == [
            "0",
            "0",
        ]
        assert "forwarding is manual" in daemon.output

    def test_keeps_a_default_route_that_was_learned_from_router_advertisements(self, world):
        """`accept_ra` must be 2 before the switch, or the kernel purges the route."""
        node = world.gateway
        # What the kernel does when it hears an advertisement: a default route marked RTF_ADDRCONF | RTF_DEFAULT.
        node("sysctl", "-q", "net.ipv6.conf.inner.accept_ra=1")
        advertise(world)
        wait_until("a default route from the advertisement", lambda: "proto ra" in node("ip", "-6", "route"))
        daemon = world.serve()
        assert "default" in node("ip", "-6", "route", "show", "proto", "ra")
        daemon.end()
        assert node("sysctl", "-n", "net.ipv6.conf.inner.accept_ra").strip() == "1"
        assert "default" in node("ip", "-6", "route", "show", "proto", "ra")

    @pytest.mark.parametrize("strictness", ["1", "2"])
    def test_works_where_the_host_filters_by_reverse_path(self, world, strictness):
        world.gateway("sysctl", "-q", f"net.ipv4.conf.all.rp_filter={strictness}")
        world.serve()
        world.connect(world.alice)
        assert reaches(world.alice, world.lan, World.LAN[0], 9000)
        assert not reaches(world.alice, world.lan, World.OTHER[0], 9000)


def advertise(world):
    """Send one router advertisement (RFC 4861, 4.2) from the LAN: lifetime 1800 seconds, no prefix."""
    program = (
        "import socket, struct\n"
        "s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'inner')\n"
        "s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)\n"
        "advertisement = struct.pack('!BBHBBHII', 134, 0, 0, 64, 0, 1800, 0, 0)\n"
        "s.sendto(advertisement, ('ff02::1', 0, 0, socket.if_nametoindex('inner')))\n"
    )
    world.lan(PYTHON, "-c", program)


class TestReload:
    def test_with_a_bad_config_changes_nothing_and_says_what_is_wrong(self, world):
        daemon = world.serve()
        world.connect(world.alice)
        before = state(world.gateway)
        world.configure(POLICY + "    - {client_id: nobody, allow: [10.20.0.0/24]}\n")
        said = daemon.reload()
        assert "reload refused" in said
        assert f"{world.server_yaml}:" in said
        assert "nobody" in said
        assert state(world.gateway) == before
        assert world.alice.gets(World.LAN[0])

    def test_with_the_same_config_changes_nothing(self, world):
        daemon = world.serve()
        before = world.gateway("nft", "-a", "list", "ruleset")
        daemon.reload()
        assert world.gateway("nft", "-a", "list", "ruleset") == before

    @FAMILIES
    def test_keeps_flows_and_sessions_that_it_does_not_concern(self, world, family):
        daemon = world.serve()
        world.connect(world.alice)
        handshake = world.handshake(world.alice)
        with tcp(world.alice, world.lan, World.LAN[family], 9000) as flow:
            world.configure(POLICY + "    - {client_id: bob, allow: [10.20.0.0/24]}\n")
            assert "reloaded" in daemon.reload()
            assert flow.passes()
            assert flow.passes(back=True)
        assert world.handshake(world.alice) == handshake

    def test_takes_away_a_peer(self, world):
        daemon = world.serve()
        world.connect(world.alice)
        world.connect(world.bob)
        text = world.server_yaml.read_text()
        start = text.index("  - name: bob")
        world.server_yaml.write_text(text[:start] + text[text.index("policy:") :])
        daemon.reload()
        assert world.keys["bob"] not in world.gateway("wg", "show", "wgd0", "peers")
        assert not world.bob.pings(World.TUNNEL[0])
        assert world.alice.pings(World.TUNNEL[0])

    def test_of_another_interface_name_is_refused(self, world):
        daemon = world.serve()
        world.server_yaml.write_text(world.server_yaml.read_text().replace("name: wgd0", "name: wgd1"))
        assert "restart" in daemon.reload()

    @FAMILIES
    def test_goes_to_observe_and_back(self, world, family):
        daemon = world.serve()
        world.connect(world.alice)
        assert not world.alice.gets(World.OTHER[family])
        world.configure(POLICY, mode="observe")
        daemon.reload()
        assert world.alice.gets(World.OTHER[family])
        world.event(event="open", verdict="would_deny", client="alice", dst_ip=World.OTHER[family])
        assert reaches(world.lan, world.alice, World.ADDRESSES["alice"][family], 9000), "observe drops nothing"
        world.gateway("nft", "flush", "ruleset")
        assert world.alice.gets(World.OTHER[family]), "even without a ruleset"
        world.configure(POLICY)
        daemon.reload()
        assert not world.alice.gets(World.OTHER[family])
        assert world.alice.gets(World.LAN[family])

    def test_reopens_the_log_on_usr1(self, world):
        daemon = world.serve()
        world.connect(world.alice)
        rotated = world.events.with_suffix(".1")
        world.events.rename(rotated)
        daemon.send(signal.SIGUSR1)
        wait_until("a new log file", world.events.exists)
        assert world.alice.gets(World.LAN[0])
        assert world.event(event="open", dst_ip=World.LAN[0])


class TestRefusal:
    """What cannot be done safely is refused with exit code and reason, and nothing is touched."""

    def refused(self, world, code):
        before = state(world.gateway)
        daemon = world.gateway.service("-m", "wgd.cli.server", "run", "--config", str(world.server_yaml))
        assert daemon.wait() == code, daemon.output
        assert "READY=1" not in daemon.notified
        assert state(world.gateway) == before
        return daemon.output

    @pytest.fixture
    def world(self, world):
        world.gateway.wireguard("wgd0")
        return world

    def test_of_a_bad_config_is_78_and_names_every_problem(self, world):
        text = world.server_yaml.read_text()
        world.server_yaml.write_text(text.replace("listen_port: 51820", "listen_port: 0").replace("alice\n", "a/b\n"))
        said = self.refused(world, 78)
        assert "listen_port" in said
        assert "a/b" in said

    def test_of_a_key_that_everybody_can_read(self, world):
        (world.scratch / "gateway.key").chmod(0o644)
        assert "gateway.key: can be read" in self.refused(world, 78)

    def test_of_a_missing_key_file(self, world):
        (world.scratch / "gateway.key").unlink()
        assert "gateway.key" in self.refused(world, 78)

    def test_of_a_failing_policy_test(self, world):
        world.configure(
            POLICY + "  tests:\n    - {client_id: bob, to: 10.20.0.10, proto: tcp, port: 8080, expect: allow}\n"
        )
        assert "no rule of bob covers it" in self.refused(world, 78)

    def test_of_a_routing_table_that_is_in_use(self, world):
        world.gateway("ip", "route", "add", "10.66.0.0/24", "dev", "inner", "table", "7780")
        assert "routing table 7780" in self.refused(world, 1)

    def test_of_a_rule_priority_that_is_in_use(self, world):
        world.gateway("ip", "rule", "add", "priority", "7782", "lookup", "main")
        assert "routing rule 7782" in self.refused(world, 1)

    def test_of_an_interface_that_is_somebody_elses(self, world):
        other = world.scratch / "other.key"
        other.write_text(world.gateway("wg", "genkey"))
        world.gateway("wg", "set", "wgd0", "private-key", str(other))
        assert "somebody else's tunnel" in self.refused(world, 1)

    def test_of_a_log_group_that_another_program_reads(self, world):
        program = (
            "import time; from wgd.kernel.nflog import open_nflog; s = open_nflog(100); print('bound', flush=True); "
        )
        reader = world.gateway.start(PYTHON, "-c", f"{program} time.sleep(60)")
        wait_until("the other program", lambda: "bound" in reader.output)
        assert "100" in self.refused(world, 1)

    def test_never_shows_a_key(self, world):
        private = (world.scratch / "gateway.key").read_text().strip()
        daemon = world.serve()
        world.connect(world.alice)
        daemon.reload()
        arguments = world.gateway("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        daemon.end()
        for place in (daemon.output, arguments, world.events.read_text()):
            assert private not in place
            assert private[:20] not in place


class TestReady:
    def test_watchdog_is_fed_only_while_everything_is_there(self, world):
        daemon = world.serve()
        wait_until("the watchdog's first meal", lambda: "WATCHDOG=1" in daemon.notified)
        world.gateway("ip", "link", "set", "wgd0", "down")
        wait_until(
            "a drift event",
            lambda: any(line["event"] == "drift" and line["object"] == "link" for line in world.lines()),
        )
        assert "wgd0" in world.gateway("ip", "link", "show", "up", "dev", "wgd0")

    def test_failing_is_said_and_not_fed(self, world):
        daemon = world.serve()
        holder = world.gateway._processes[0]
        holder.end()
        wait_until("a status that says so", lambda: any("failing" in line for line in daemon.notified))
        fed = daemon.notified.count("WATCHDOG=1")
        wait_until(
            "another check",
            lambda: sum("failing" in line for line in daemon.notified) > 2,
        )
        assert daemon.notified.count("WATCHDOG=1") == fed


class TestReloadOfLogging:
    def deny(self, world, port):
        assert not reaches(world.alice, world.lan, World.LAN[0], port)

    def test_goes_on_in_another_file(self, world):
        daemon = world.serve()
        world.connect(world.alice)
        first, world.events = world.events, world.scratch / "elsewhere.jsonl"
        world.configure(POLICY)
        daemon.reload()
        self.deny(world, 9101)
        world.event(event="deny", dst_port=9101)
        assert "9101" not in first.read_text()

    def test_to_a_file_that_cannot_be_opened_is_refused(self, world):
        daemon = world.serve()
        world.connect(world.alice)
        first, world.events = world.events, world.scratch / "missing" / "events.jsonl"
        world.configure(POLICY)
        assert "reload refused" in daemon.reload()
        world.events = first
        self.deny(world, 9102)
        world.event(event="deny", dst_port=9102)

    def test_goes_on_in_other_groups(self, world):
        daemon = world.serve()
        world.connect(world.alice)
        text = world.server_yaml.read_text()
        world.server_yaml.write_text(text.replace("logging: {", "logging: {nflog_group: 300, "))
        assert "reloaded" in daemon.reload()
        self.deny(world, 9103)
        world.event(event="deny", dst_port=9103)

    def test_can_be_switched_off_and_on(self, world):
        daemon = world.serve()
        world.connect(world.alice)
        text = world.server_yaml.read_text()
        world.server_yaml.write_text(text.replace("logging_enabled: true", "logging_enabled: false"))
        daemon.reload()
        assert "log" not in world.gateway("nft", "list", "chain", "inet", "wgd", "deny")
        self.deny(world, 9104)
        world.server_yaml.write_text(text)
        daemon.reload()
        self.deny(world, 9105)
        world.event(event="deny", dst_port=9105)
        assert not [line for line in world.lines() if line.get("dst_port") == 9104]
