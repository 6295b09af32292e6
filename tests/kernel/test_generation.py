"""A flow is asked about once for each generation of the ruleset; the next one ends what it does not allow."""

import contextlib
import re
import signal

import pytest
from flow import tcp, udp
from world import World, wait_until

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
PORT = 9000
BOBS = """
    - name: untouched
      client_id: bob
      allow: [{to: 10.20.0.10, proto: tcp, ports: [9001]}, {to: 'fd20::10', proto: tcp, ports: [9001]}]
"""
GRANTED = f"""
  rules:
    - name: granted
      client_id: alice
      allow:
        - {{to: 10.20.0.10, ports: [9000, 9002], proto: tcp}}
        - {{to: 'fd20::10', ports: [9000, 9002], proto: tcp}}
        - {{to: 10.20.0.10, ports: [9000, 9002], proto: udp}}
        - {{to: 'fd20::10', ports: [9000, 9002], proto: udp}}
        - {{to: 10.20.0.1, ports: [9000, 9002], proto: tcp}}
        - {{to: 'fd20::1', ports: [9000, 9002], proto: tcp}}
{BOBS}"""
REVOKED = f"  rules:\n{BOBS}"
MAPS = [f"{question}{family}" for question in ("out", "in", "own_out", "own_in") for family in (4, 6)]


@pytest.fixture(scope="module")
def world(serving):
    with serving(GRANTED) as made:
        yield made


@pytest.fixture
def granted(world):
    world.configure(GRANTED)
    world.daemon.reload()
    return world


@contextlib.contextmanager
def nobody_repairs(world):
    """Hold the daemon, so that what the test takes from the ruleset stays away."""
    world.daemon.send(signal.SIGSTOP)
    try:
        yield
    finally:
        world.daemon.send(signal.SIGCONT)


def empty_every_map(world):
    for name in MAPS:
        world.gateway("nft", "flush", "map", "inet", "wgd", name)


def take_out_of_force(world):
    """Let nothing be accepted by its generation, as a change does on its way."""
    listed = world.gateway("nft", "-s", "list", "chain", "inet", "wgd", "prerouting")
    changed = re.sub(r"ct mark & 0x3[ef]000000 == 0x[0-9a-f]+", "ct mark & 0x3e000000 == 1", listed)
    assert changed != listed
    world.gateway("nft", "flush chain inet wgd prerouting; flush set inet wgd generation;", changed)


def restored(world):
    return wait_until("the maps", lambda: "jump" in world.gateway("nft", "list", "map", "inet", "wgd", "out4"))


@FAMILIES
@pytest.mark.parametrize("end", ["lan", "gateway"])
class TestFastPath:
    def test_goes_on_without_asking_the_policy_and_stops_at_the_next_packet_of_a_revocation(self, granted, end, family):
        node, to = (granted.lan, World.LAN[family]) if end == "lan" else (granted.gateway, World.INNER[family])
        with (
            tcp(granted.alice, node, to, PORT) as flow,
            tcp(granted.bob, granted.lan, World.LAN[family], PORT + 1) as untouched,
        ):
            assert flow.passes()
            assert flow.passes(back=True)
            with nobody_repairs(granted):
                empty_every_map(granted)
                assert flow.passes(), "nobody is asked"
                assert flow.passes(back=True)
                with tcp(granted.alice, node, to, PORT + 2) as other:
                    assert other is None, "the control: a new flow is asked about"
            restored(granted)
            assert flow.passes()
            granted.configure(REVOKED)
            granted.daemon.reload()
            assert not flow.passes(back=True)
            assert not flow.passes()
            assert untouched.passes()
            assert untouched.passes(back=True)

    def test_ends_when_the_generation_is_taken_out_of_force(self, granted, end, family):
        node, to = (granted.lan, World.LAN[family]) if end == "lan" else (granted.gateway, World.INNER[family])
        with tcp(granted.alice, node, to, PORT) as flow:
            assert flow.passes()
            with nobody_repairs(granted):
                empty_every_map(granted)
                take_out_of_force(granted)
                assert not flow.passes()
            restored(granted)


@FAMILIES
def test_a_generation_that_somebody_brings_back_is_taken_away_again(granted, family):
    with udp(granted.alice, granted.lan, World.LAN[family], PORT) as flow:
        assert flow.passes(back=True)
        marks = granted.gateway("nft", "list", "set", "inet", "wgd", "generation")
        old = marks[marks.index("{ 0x") :].split()[1]
        granted.configure(REVOKED)
        granted.daemon.reload()
        assert not flow.passes(back=True)
        granted.gateway("nft", "add", "element", "inet", "wgd", "generation", f"{{ {old} }}")
        wait_until("it is gone", lambda: old not in granted.gateway("nft", "list", "set", "inet", "wgd", "generation"))
        assert not flow.passes(back=True)


@FAMILIES
def test_all_other_bits_of_the_conntrack_mark_are_the_hosts(granted, family):
    granted.gateway(
        "nft",
        "table inet foreign {\n"
        " chain before { type filter hook prerouting priority -150; ct state new ct mark set 0x00345678; }\n"
        " chain after { type filter hook postrouting priority 300;"
        " ct mark & 0x00ffffff == 0x00345678 ct mark & 0xff000000 != 0 meta l4proto tcp counter; }\n}",
    )
    try:
        with tcp(granted.alice, granted.lan, World.LAN[family], PORT) as flow:
            assert flow.passes()
            assert "counter packets 0 " not in granted.gateway("nft", "list", "table", "inet", "foreign")
    finally:
        granted.gateway("nft", "delete", "table", "inet", "foreign")
