"""The client: interface, server peer, routes, and that stop takes back what start did."""

import signal
import subprocess

import pytest
from flow import made_in
from world import PYTHON, World, wait_until

POLICY = "  rules:\n    - {client_id: alice, allow: [10.20.0.0/24, 'fd20::/64']}\n"


@pytest.fixture(scope="module")
def served(world_factory):
    """A world with a gateway; each test has alice for itself."""
    with world_factory() as made:
        made.configure(POLICY)
        made.serve()
        yield made


@pytest.fixture
def world(served):
    """A client node without anything of the test before."""
    served.wireguard_go = served.alice.wireguard("wgd-office")
    before = state(served.alice)
    served.daemon = None
    yield served
    if served.daemon is not None:
        served.daemon.end()
    for word in ("-4", "-6"):
        served.alice("ip", word, "route", "flush", "proto", "static")
    served.wireguard_go.end()
    assert before


def state(node):
    """Return what a client may change in a node, as a set of lines."""
    shown = {
        "route": node("ip", "-4", "route", "show", "table", "all") + node("ip", "-6", "route", "show", "table", "all"),
        "address": node("ip", "-o", "address"),
        "rule": node("ip", "rule"),
        "wireguard": node("wg", "show", "wgd-office", "dump").replace("\t", "\n"),
        "file": node("find", "/run", "-type", "f"),
    }
    return {f"{what}: {line}" for what, text in shown.items() for line in text.splitlines()}


def start(world, replace=(), path=None):
    """Start the client, with parts of its config replaced; give the daemon, which may end by itself."""
    path = path or world.client_yaml(world.alice)
    text = path.read_text()
    for old, new in replace:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    world.daemon = world.alice.service("-m", "wgd.cli.client", "run", "office", "--config", str(path))
    return world.daemon


class TestStart:
    def test_reaches_what_it_was_granted_over_both_families(self, world):
        start(world).wait_ready()
        assert wait_until("ipv4", lambda: world.alice.gets(World.LAN[0]))
        assert world.alice.gets(World.LAN[1])

    def test_installs_a_route_for_each_of_the_allowed_ips(self, world):
        start(world).wait_ready()
        for network in ("10.20.0.0/24", "10.30.0.0/24", "10.80.0.0/24"):
            assert "dev wgd-office" in world.alice("ip", "route", "show", "exact", network)
        for network in ("fd20::/64", "fd30::/64"):
            assert "dev wgd-office" in world.alice("ip", "-6", "route", "show", "exact", network)

    def test_uses_the_table_and_metric_that_are_asked_for(self, world):
        start(world, [("server:", "routes: {table: 4242, metric: 7}\nserver:")]).wait_ready()
        assert "metric 7" in world.alice("ip", "route", "show", "table", "4242", "exact", "10.20.0.0/24")
        assert not world.alice("ip", "route", "show", "exact", "10.20.0.0/24")

    def test_uses_listen_port_mtu_and_keepalive(self, world):
        start(world, [("  private_key_file", "  listen_port: 51999\n  mtu: 1380\n  private_key_file")]).wait_ready()
        assert world.alice("wg", "show", "wgd-office", "listen-port").strip() == "51999"
        assert "mtu 1380" in world.alice("ip", "link", "show", "wgd-office")
        assert world.alice("wg", "show", "wgd-office", "persistent-keepalive").split()[1] == "25"


class TestRoutesInTheWay:
    @pytest.mark.parametrize(
        ("version", "network", "how"),
        [
            ("-4", "10.20.0.0/24", ("via", "192.0.2.1")),
            ("-4", "10.20.0.0/24", ("dev", "outer", "metric", "900")),
            ("-6", "fd20::/64", ("dev", "outer")),
        ],
    )
    def test_are_named_and_refused(self, world, version, network, how):
        world.alice("ip", version, "route", "add", network, *how, "proto", "static")
        before = state(world.alice)
        daemon = start(world)
        assert daemon.wait() == 1
        assert f"route to {network}: exists already" in daemon.output
        assert "dev outer" in daemon.output
        assert state(world.alice) == before

    def test_that_are_more_specific_are_named_and_kept(self, world):
        world.alice("ip", "route", "add", "10.20.0.128/25", "dev", "outer", "proto", "static")
        daemon = start(world).wait_ready()
        assert "10.20.0.128/25 goes around the tunnel" in daemon.output

    def test_that_lead_the_tunnel_into_itself_are_refused(self, world):
        daemon = start(world, [("allowed_ips: [", "allowed_ips: [192.0.2.0/24, ")])
        assert daemon.wait() == 1
        assert "into the tunnel" in daemon.output


class TestStop:
    def test_takes_back_what_start_did(self, world):
        before = state(world.alice)
        daemon = start(world).wait_ready()
        assert state(world.alice) != before
        assert daemon.end() == 0, daemon.output
        assert state(world.alice) == before

    def test_takes_back_what_a_killed_run_left(self, world):
        before = state(world.alice)
        start(world).wait_ready().kill()
        daemon = start(world).wait_ready()
        assert daemon.end() == 0, daemon.output
        assert state(world.alice) == before


class TestLeaveUp:
    def test_keeps_routes_and_session_for_the_next_run_and_down_takes_them_away(self, world):
        node = world.alice
        before = state(node)
        path = world.client_yaml(node)
        words = ("-m", "wgd.cli.client", "run", "office", "--config", str(path), "--leave-up")
        daemon = node.service(*words).wait_ready()
        wait_until("an answer", lambda: node.gets(World.LAN[0]))
        up, handshake = state(node), world.handshake(node)
        assert daemon.end() == 0, daemon.output
        assert node.gets(World.LAN[0])
        daemon = node.service(*words).wait_ready()
        assert node.gets(World.LAN[0])
        assert world.handshake(node) == handshake
        assert {line for line in up if line.startswith("route")} <= state(node)
        assert daemon.end() == 0, daemon.output
        node(PYTHON, "-m", "wgd.cli.client", "down", "office")
        assert state(node) == before


class TestReload:
    def test_adds_and_removes_routes_and_keeps_the_session(self, world):
        daemon = start(world).wait_ready()
        wait_until("the handshake", lambda: world.handshake(world.alice))
        handshake = world.handshake(world.alice)
        path = world.client_yaml(world.alice, "10.20.0.0/24, 10.44.0.0/24")
        daemon.reload()
        assert "dev wgd-office" in world.alice("ip", "route", "show", "exact", "10.44.0.0/24")
        assert not world.alice("ip", "route", "show", "exact", "10.30.0.0/24")
        assert world.handshake(world.alice) == handshake
        assert world.alice.gets(World.LAN[0])
        path.write_text("interface: {}\n")
        assert "reload refused" in daemon.reload()
        assert world.alice.gets(World.LAN[0])


class TestControl:
    def client(self, world, *words):
        """Run a command of wgd-client beside the daemon."""
        command = world.alice.inside(PYTHON, "-m", "wgd.cli.client", *words)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def test_reload_waits_until_the_routes_are_there(self, world):
        start(world).wait_ready()
        world.client_yaml(world.alice, "10.20.0.0/24, 10.44.0.0/24")
        assert self.client(world, "reload", "office").returncode == 0
        assert "dev wgd-office" in world.alice("ip", "route", "show", "exact", "10.44.0.0/24")

    def test_a_reload_that_is_refused_is_1_with_the_reasons_and_changes_nothing(self, world):
        start(world).wait_ready()
        world.client_yaml(world.alice).write_text("interface: {}\n")
        done = self.client(world, "reload", "office")
        assert done.returncode == 1
        assert "interface.address" in done.stderr
        assert "dev wgd-office" in world.alice("ip", "route", "show", "exact", "10.20.0.0/24")

    def test_status_tells_of_the_handshake_with_the_gateway(self, world):
        start(world).wait_ready()
        wait_until("the handshake", lambda: world.handshake(world.alice))
        shown = self.client(world, "status").stdout
        assert "connection: office connected" in shown
        assert f"   gateway: {world.keys['gateway']}" in shown.splitlines()
        assert "  endpoint: 192.0.2.1:51820" in shown.splitlines()

    def test_a_second_daemon_of_the_name_is_refused_and_the_first_goes_on(self, world):
        start(world).wait_ready()
        second = self.client(world, "run", "office", "--config", str(world.client_yaml(world.alice)))
        assert second.returncode == 1
        assert "another daemon already runs" in second.stderr
        assert world.alice.gets(World.LAN[0])

    def test_the_socket_is_gone_with_the_daemon(self, world):
        daemon = start(world).wait_ready()
        daemon.end()
        done = self.client(world, "status")
        assert (done.returncode, "no wgd-client runs here" in done.stderr) == (4, True)


class TestDrift:
    def test_a_removed_route_is_put_back(self, world):
        daemon = start(world).wait_ready()
        world.alice("ip", "route", "del", "10.20.0.0/24", "dev", "wgd-office")
        wait_until("the route", lambda: world.alice("ip", "route", "show", "exact", "10.20.0.0/24"))
        wait_until("a word of it", lambda: "route to 10.20.0.0/24 is gone; it is put back" in daemon.output)


class TestEndpoint:
    def test_that_is_a_name_is_looked_up(self, world):
        start(world, [("endpoint: 192.0.2.1:51820", "endpoint: localhost:51820")]).wait_ready()

        def endpoint():
            return world.alice("wg", "show", "wgd-office", "endpoints").split()[1]

        wait_until("a looked-up endpoint", lambda: endpoint() in ("127.0.0.1:51820", "[::1]:51820"))

    def test_that_cannot_be_looked_up_is_said_and_does_not_end_the_client(self, world):
        daemon = start(world, [("endpoint: 192.0.2.1:51820", "endpoint: gateway.invalid:51820")]).wait_ready()
        wait_until("a status", lambda: any("gateway.invalid" in line for line in daemon.notified))
        assert daemon.code is None
        daemon.send(signal.SIGTERM)
        assert daemon.wait() == 0

    def test_that_does_not_answer_is_left_for_the_next(self, world):
        """A port that nobody reads swallows the first endpoint's packets."""
        with made_in(world.gateway, 2, 2) as silent:
            silent.bind(("192.0.2.1", 4999))
            start(
                world, [("endpoint: 192.0.2.1:51820", "endpoint: ['192.0.2.1:4999', '192.0.2.1:51820']")]
            ).wait_ready()
            wait_until("the handshake with the second", lambda: world.alice.pings(World.TUNNEL[0]), 60)
