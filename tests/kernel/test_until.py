"""`until`: the kernel ends a grant at its time, the daemon dead or alive; nothing else stops."""

import re
import time
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest
from flow import reaches, tcp
from world import World, wait_until

from wgd.plan.expiry import SLACK

PORT = 9000
FAMILIES = [0, 1]
SECONDS = 6
"""How long a grant of these tests lives: long enough for a reload and for the flows to be made."""
REST = """
    - name: without an end
      client_id: alice
      allow: [{to: 10.20.0.10, proto: tcp, ports: [9001]}, {to: 'fd20::10', proto: tcp, ports: [9001]}]
"""


def policy(until: float) -> str:
    written = datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds")
    return f"""
  rules:
    - name: for now
      client_id: alice
      allow:
        - {{to: 10.20.0.10, proto: tcp, ports: [9000]}}
        - {{to: 'fd20::10', proto: tcp, ports: [9000]}}
        - 10.20.0.1
        - 'fd20::1'
      allow_from: [{{from: 10.20.0.10, proto: tcp, ports: [9000]}}, {{from: 'fd20::10', proto: tcp, ports: [9000]}}]
      until: {written}
{REST}"""


@pytest.fixture(scope="module")
def world(world_factory):
    with world_factory() as made:
        made.configure(policy(time.time() + 3600))
        made.daemon = made.serve()
        made.connect(made.alice)
        yield made


def granted_for_a_while(world):
    """Give alice what she has until SECONDS from now; return when that is."""
    until = int(time.time()) + SECONDS
    world.configure(policy(until))
    world.daemon.reload()
    return until


def flows(world, opened, port=PORT):
    """Return flows of both families from alice to the LAN, to the gateway, and from the LAN to alice."""
    alice = World.ADDRESSES["alice"]
    return [
        opened.enter_context(tcp(near, far, to[family], port, source[family]))
        for near, source, far, to in (
            (world.alice, alice, world.lan, World.LAN),
            (world.alice, alice, world.gateway, World.INNER),
            (world.lan, World.LAN, world.alice, alice),
        )
        for family in FAMILIES
    ]


def test_flows_stop_at_the_time_though_the_daemon_is_dead_and_others_go_on(world):
    until = granted_for_a_while(world)
    with ExitStack() as opened:
        ending = flows(world, opened)
        staying = [opened.enter_context(tcp(world.alice, world.lan, World.LAN[f], PORT + 1)) for f in FAMILIES]
        world.daemon.kill()
        assert all(flow.passes() and flow.passes(back=True) for flow in ending)
        assert time.time() < until, "what passed was before the end"
        wait_until("the end", lambda: time.time() > until + 0.1)
        # Each direction by itself: what is sent one way would be acknowledged the other.
        assert [flow.passes(back=True) for flow in ending] == [False] * len(ending)
        assert [flow.passes() for flow in ending] == [False] * len(ending)
        assert all(flow.passes() and flow.passes(back=True) for flow in staying)
    assert not any(reaches(world.alice, world.lan, World.LAN[family], PORT) for family in FAMILIES)
    world.daemon = world.serve()
    assert "started" in {line["event"] for line in world.lines()}, (
        "a rule that has ended keeps no gateway from starting"
    )
    assert not any(reaches(world.alice, world.lan, World.LAN[family], PORT) for family in FAMILIES)
    assert all(reaches(world.alice, world.lan, World.LAN[family], PORT + 1) for family in FAMILIES)


def test_what_the_kernel_ended_is_no_drift_and_no_obstacle_to_a_reload(world):
    until = granted_for_a_while(world)
    drifted = sum(line["event"] == "drift" for line in world.lines())
    fed = world.daemon.notified.count("WATCHDOG=1")
    wait_until("the end", lambda: time.time() > until + SLACK)
    wait_until("two checks after it", lambda: world.daemon.notified.count("WATCHDOG=1") > fed + 2 * SECONDS)
    assert sum(line["event"] == "drift" for line in world.lines()) == drifted
    assert "nothing was changed" not in world.daemon.reload()
    world.configure(policy(time.time() + 3600))
    world.daemon.reload()
    assert all(reaches(world.alice, world.lan, World.LAN[family], PORT) for family in FAMILIES)


def test_an_end_that_is_moved_while_it_is_close_is_moved(world):
    granted_for_a_while(world)
    later = int(time.time()) + 3600
    world.configure(policy(later))
    world.daemon.reload()
    # The sets of the log's limits have elements that end, too, by themselves.
    sets = re.split(r"\n\tset ", world.gateway("nft", "list", "table", "inet", "wgd"))
    left = [found for each in sets if not each.startswith("limit_") for found in re.findall(r"expires (\w+)", each)]
    assert left
    assert all(duration.startswith(("59m", "1h")) for duration in left)


def test_an_element_whose_time_somebody_took_away_is_drift(world):
    world.configure(policy(time.time() + 3600))
    world.daemon.reload()
    name = next(
        line.split()[1]
        for line in world.gateway("nft", "list", "sets", "inet").splitlines()
        if line.strip().startswith("set until_") and "port4" in line
    )
    world.gateway("nft", "flush", "set", "inet", "wgd", name)
    world.event(event="drift", object="set", action="restored", detail=f"set {name}")
    assert reaches(world.alice, world.lan, World.LAN[0], PORT)


def test_events_name_the_rule_while_it_stands(world):
    world.configure(policy(time.time() + 3600))
    world.daemon.reload()
    with tcp(world.lan, world.alice, World.ADDRESSES["alice"][0], PORT, World.LAN[0]) as flow:
        assert flow is not None
    assert world.event(event="open", src_ip=World.LAN[0], dst_port=PORT)["rule"] == "for now.allow_from[0]"
