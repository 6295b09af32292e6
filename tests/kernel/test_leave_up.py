"""A daemon that ends without taking anything down: a restart is not a stop, and down is."""

import pytest
from flow import tcp
from world import PYTHON, World

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
POLICY = """
  rules:
    - client_id: alice
      allow:
        - {to: 10.20.0.10, proto: tcp, ports: [8080, 9000]}
        - {to: 'fd20::10', proto: tcp, ports: [8080, 9000]}
"""
DOWN = (PYTHON, "-m", "wgd.cli.server", "down")


@pytest.fixture(scope="module")
def world(world_factory):
    with world_factory() as made:
        made.configure(POLICY)
        made.serve("--leave-up").end()
        made.daemon = made.serve("--leave-up")
        made.connect(made.alice)
        yield made


@FAMILIES
def test_a_restart_keeps_flow_and_session_and_opens_nothing(world, family):
    handshake = world.handshake(world.alice)
    with tcp(world.alice, world.lan, World.LAN[family], 9000) as flow:
        assert flow
        assert world.daemon.end() == 0, world.daemon.output
        assert flow.passes()
        assert flow.passes(back=True)
        assert world.alice.gets(World.LAN[family])
        assert not world.alice.gets(World.OTHER[family])
        world.daemon = world.serve("--leave-up")
        assert flow.passes()
        assert flow.passes(back=True)
    assert not world.alice.gets(World.OTHER[family])
    assert world.handshake(world.alice) == handshake


def test_down_is_refused_while_the_daemon_runs(world):
    assert world.gateway.code(*DOWN) == 1
    assert world.alice.gets(World.LAN[0])


def test_down_takes_everything_away(world):
    world.daemon.end()
    node = world.gateway
    assert "wgd" in node("nft", "list", "tables")
    assert node("ip", "rule", "list", "priority", "7780")
    node(*DOWN)
    assert node("nft", "list", "tables") == ""
    for version in ("-4", "-6"):
        assert "7780" not in node("ip", version, "rule")
        assert "7780" not in node("ip", version, "route", "show", "table", "all")
    assert node("sysctl", "-n", "net.ipv4.ip_forward").strip() == "0"
    assert node("wg", "show", "wgd0", "peers") == ""
    assert node("find", "/run", "-name", "found.json") == ""


def test_down_without_anything_to_take_down_is_no_error(world):
    world.gateway(*DOWN)
