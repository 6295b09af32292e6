"""Two locks (promise 4), default drop without the daemon, and revocation on the next packet (promise 3)."""

import pytest
from flow import reaches, tcp, udp
from world import World, wait_until

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
PORT = 9000
GRANTED = """
  rules:
    - name: granted
      client_id: alice
      allow:
        - {to: 10.20.0.10, proto: tcp, ports: [8080, 9000]}
        - {to: 'fd20::10', proto: tcp, ports: [8080, 9000]}
        - {to: 10.20.0.10, proto: udp, ports: [9000]}
        - {to: 'fd20::10', proto: udp, ports: [9000]}
    - name: to the gateway
      client_id: alice
      allow:
        - {to: 10.20.0.1, proto: tcp, ports: [9000]}
        - {to: 'fd20::1', proto: tcp, ports: [9000]}
    - name: untouched
      client_id: bob
      allow:
        - {to: 10.20.0.10, proto: tcp, ports: [9001]}
        - {to: 'fd20::10', proto: tcp, ports: [9001]}
"""
REVOKED = GRANTED[: GRANTED.index("    - name: granted")] + GRANTED[GRANTED.index("    - name: untouched") :]


@pytest.fixture(scope="module")
def world(serving):
    with serving(GRANTED) as made:
        yield made


@pytest.fixture
def granted(world):
    """The world with its gateway serving and the first policy loaded, whatever the test before left."""
    world.configure(GRANTED)
    if world.daemon.code is None:
        world.daemon.reload()
    else:
        world.daemon = world.serve()
    return world


class TestWithoutTheDaemon:
    @FAMILIES
    def test_kill_and_flush_open_nothing(self, granted, family):
        assert granted.alice.gets(World.LAN[family])
        granted.daemon.kill()
        assert granted.alice.gets(World.LAN[family]), "what was granted goes on without the daemon"
        assert not granted.alice.gets(World.OTHER[family])
        granted.gateway("nft", "flush", "ruleset")
        assert not granted.alice.gets(World.OTHER[family])
        assert not granted.alice.gets(World.LAN[family]), "nothing marks, so nothing is forwarded"

    @FAMILIES
    def test_a_flush_opens_nothing_from_the_network_to_a_client(self, granted, family):
        to = World.ADDRESSES["alice"][family]
        granted.daemon.kill()
        granted.gateway("nft", "flush", "ruleset")
        assert not reaches(granted.lan, granted.alice, to, PORT)

    @FAMILIES
    def test_the_routing_alone_is_what_refuses_then(self, granted, family):
        """The control: without the second lock, the flushed gateway is open. This is what it is for."""
        granted.daemon.kill()
        granted.gateway("nft", "flush", "ruleset")
        for option in ("-4", "-6"):
            for priority in ("7780", "7783"):
                granted.gateway("ip", option, "rule", "del", "priority", priority)
            granted.gateway("ip", option, "rule", "add", "priority", "7783", "lookup", "7780", "protocol", "119")
        assert granted.alice.gets(World.OTHER[family])

    def test_a_restart_adopts_what_a_killed_daemon_left(self, granted):
        with tcp(granted.alice, granted.lan, World.LAN[0], PORT) as flow:
            handshake = granted.handshake(granted.alice)
            granted.daemon.kill()
            granted.daemon = granted.serve()
            assert flow.passes()
            assert granted.handshake(granted.alice) == handshake
        assert not granted.alice.gets(World.OTHER[0])


@FAMILIES
class TestRevocation:
    """A rule that is taken away stops its live flows at the next packet, in both directions, and no other flow."""

    def test_stops_a_tcp_flow_in_both_directions(self, granted, family):
        with (
            tcp(granted.alice, granted.lan, World.LAN[family], PORT) as flow,
            tcp(granted.bob, granted.lan, World.LAN[family], PORT + 1) as untouched,
        ):
            assert flow.passes()
            assert flow.passes(back=True)
            granted.configure(REVOKED)
            granted.daemon.reload()
            assert not flow.passes()
            assert not flow.passes(back=True)
            assert untouched.passes()
            assert untouched.passes(back=True)

    def test_stops_the_answers_of_a_udp_flow(self, granted, family):
        with udp(granted.alice, granted.lan, World.LAN[family], PORT) as flow:
            assert flow.passes(back=True)
            granted.configure(REVOKED)
            granted.daemon.reload()
            assert not flow.passes(back=True)
            assert not flow.passes()

    def test_stops_a_flow_that_ends_on_the_gateway(self, granted, family):
        with tcp(granted.alice, granted.gateway, World.INNER[family], PORT) as flow:
            assert flow.passes(back=True)
            granted.configure(REVOKED)
            granted.daemon.reload()
            assert not flow.passes(back=True)
            assert not flow.passes()

    def test_lets_a_flow_go_on_when_the_rule_comes_back(self, granted, family):
        with tcp(granted.alice, granted.lan, World.LAN[family], PORT) as flow:
            granted.configure(REVOKED)
            granted.daemon.reload()
            assert not flow.passes()
            granted.configure(GRANTED)
            granted.daemon.reload()
            assert wait_until("the retransmission", flow.passes)
