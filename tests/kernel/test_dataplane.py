"""The promises of DESIGN 2 on real WireGuard and the real kernel: every blocked case has its allowed twin."""

import pytest
from world import World

POLICY = """
  rules:
    - name: web
      client_id: alice
      allow:
        - {to: 10.20.0.10, proto: tcp, ports: [8080]}
        - {to: 'fd20::10', proto: tcp, ports: [8080]}
        - {to: 10.20.0.10, proto: icmp}
        - {to: 'fd20::10', proto: icmp}
"""
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])


@pytest.fixture(scope="module")
def enforced(world_factory):
    """A gateway in enforce where alice may reach port 8080 of one host and ping it, and bob nothing."""
    with world_factory() as world:
        world.configure(POLICY)
        world.serve()
        world.connect(world.alice)
        world.connect(world.bob)
        yield world


@FAMILIES
class TestEnforce:
    def test_passes_what_a_rule_covers(self, enforced, family):
        assert enforced.alice.gets(World.LAN[family])

    def test_drops_another_port_of_the_same_host(self, enforced, family):
        assert not enforced.alice.gets(World.LAN[family], 8081)
        enforced.event(event="deny", client="alice", dst_ip=World.LAN[family], dst_port=8081)

    def test_drops_another_host_on_the_same_port(self, enforced, family):
        assert not enforced.alice.gets(World.OTHER[family])

    def test_drops_a_client_without_a_rule(self, enforced, family):
        assert not enforced.bob.gets(World.LAN[family])
        assert enforced.alice.gets(World.LAN[family])

    def test_passes_an_echo_that_a_rule_covers(self, enforced, family):
        assert enforced.alice.pings(World.LAN[family])

    def test_drops_an_echo_that_no_rule_covers(self, enforced, family):
        assert not enforced.alice.pings(World.OTHER[family])

    def test_answers_an_echo_to_the_tunnel_address(self, enforced, family):
        assert enforced.bob.pings(World.TUNNEL[family])
