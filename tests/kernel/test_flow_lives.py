"""Flows that are open when the daemon ends, or stops to record them: one open, one close."""

from pathlib import Path

import pytest
from closes import COUNTED, POLICY, counted_by, lines_of, one_close, talk
from flow import reaches, udp
from kept import Kept
from world import PYTHON, World, wait_until

SETTINGS = tuple(f"net.netfilter.nf_conntrack_{name}" for name in ("acct", "timestamp", "events"))
PORT = 20000


@pytest.fixture
def world(world_factory):
    with world_factory() as made:
        made.configure(POLICY)
        made.daemon = made.serve("--leave-up")
        made.client = made.connect(made.alice)
        yield made


@pytest.mark.parametrize("end", ["end", "kill"], ids=["restart", "kill-9"])
def test_a_flow_lives_on_and_is_closed_once(world, end):
    with (
        counted_by(world.alice, PORT) as counters,
        udp(world.alice, world.lan, World.LAN[0], PORT) as flow,
    ):
        talk(flow)
        world.event(event="open", dst_port=PORT)
        getattr(world.daemon, end)()
        talk(flow)
        world.daemon = world.serve("--leave-up")
        talk(flow)
        close = one_close(world, dst_port=PORT)
        assert [close[key] for key in COUNTED] == counters.read()
        assert close["rule"] == "out[0]"


@pytest.mark.parametrize("end", ["end", "kill"], ids=["restart", "kill-9"])
def test_an_end_that_nobody_hears_is_counted(world, end):
    with (
        udp(world.alice, world.lan, World.LAN[0], PORT) as gone,
        udp(world.alice, world.lan, World.LAN[0], PORT + 1) as alive,
    ):
        talk(gone)
        talk(alive)
        wait_until("both opens", lambda: len(lines_of(world, "open")) == 2)
        recorder = Path("/proc", world.gateway("pgrep", "-P", str(world.daemon.pid)).strip(), "cmdline")
        getattr(world.daemon, end)()
        # Until it has ended, it writes what it hears.
        wait_until("the recorder's end", lambda: not recorder.exists() or not recorder.read_bytes())
        world.gateway("conntrack", "-D", "-p", "udp", "--orig-port-dst", str(PORT))
        world.daemon = world.serve("--leave-up")
        lost = world.event(event="lost")
        assert (lost["count"], lost["reason"]) == (1, "restart")
        one_close(world, dst_port=PORT + 1)
        world.daemon.end()
        world.daemon = world.serve("--leave-up")
        talk(alive)
        world.event(event="open", dst_port=PORT + 1)
    assert len(lines_of(world, "lost")) == 1
    assert not lines_of(world, "close", dst_port=PORT)


@pytest.mark.parametrize("end", ["end", "kill"], ids=["restart", "kill-9"])
def test_an_end_between_two_daemons_is_told_where_the_manager_keeps_the_socket(world, end):
    world.daemon.end()
    kept = Kept()
    world.daemon = world.serve("--leave-up", kept=kept)
    try:
        with udp(world.alice, world.lan, World.LAN[0], PORT) as flow:
            talk(flow)
            world.event(event="open", dst_port=PORT)
            wait_until("the sockets are kept", lambda: "flow-ends" in kept.names())
            getattr(world.daemon, end)()
            world.gateway("conntrack", "-F")
            world.daemon = world.serve("--leave-up", kept=kept)
            assert world.event(event="close", dst_port=PORT)["rx_packets"] == 2
        assert not lines_of(world, "lost")
        assert len(lines_of(world, "close", dst_port=PORT)) == 1
    finally:
        kept.close()


def test_a_stop_closes_it_and_a_start_opens_it_again(world):
    world.daemon.end()
    world.daemon = world.serve()
    with udp(world.alice, world.lan, World.LAN[0], PORT) as flow:
        talk(flow)
        world.event(event="open", dst_port=PORT)
        assert world.daemon.end() == 0, world.daemon.output
        assert [line["event"] for line in world.lines()][-2:] == ["close", "stopped"]
        assert world.lines()[-2]["rx_packets"] == 2
        world.daemon = world.serve()
        # Else alice would use the old session until she finds that nobody answers.
        world.client.end()
        world.client = world.connect(world.alice)
        assert flow.passes()
        wait_until("a second open", lambda: len(lines_of(world, "open", dst_port=PORT)) == 2)
        world.gateway("conntrack", "-F")
        wait_until("a second close", lambda: len(lines_of(world, "close", dst_port=PORT)) == 2)


def test_taking_down_what_a_daemon_left_up_closes_it(world):
    with udp(world.alice, world.lan, World.LAN[0], PORT) as flow:
        talk(flow)
        world.event(event="open", dst_port=PORT)
        world.daemon.end()
        assert not lines_of(world, "close")
        assert flow.passes()
        world.gateway(PYTHON, "-m", "wgd.cli.server", "down", "--config", str(world.server_yaml))
        (close,) = lines_of(world, "close", dst_port=PORT)
        assert (close["tx_packets"], close["rx_packets"], close["rule"]) == (3, 2, "out[0]")


def test_what_conntrack_was_told_is_taken_back(world):
    world.daemon.end()
    assert world.gateway("sysctl", "-n", *SETTINGS).split() == ["1", "1", "2"]
    world.gateway(PYTHON, "-m", "wgd.cli.server", "down")
    assert world.gateway("sysctl", "-n", *SETTINGS).split() == ["0", "0", "2"]
    world.gateway("sysctl", "-q", "net.netfilter.nf_conntrack_events=0")
    world.daemon = world.serve()
    assert world.gateway("sysctl", "-n", *SETTINGS).split() == ["1", "1", "1"]
    world.daemon.end()
    assert world.gateway("sysctl", "-n", *SETTINGS).split() == ["0", "0", "0"]


def test_logging_that_is_switched_off_closes_it_and_tells_of_no_other_end(world):
    with udp(world.alice, world.lan, World.LAN[0], PORT) as flow:
        talk(flow)
        world.event(event="open", dst_port=PORT)
        text = world.server_yaml.read_text()
        world.server_yaml.write_text(text.replace("logging_enabled: true", "logging_enabled: false"))
        world.daemon.reload()
        assert world.event(event="close", dst_port=PORT)["rx_packets"] == 2
        assert world.gateway("sysctl", "-n", *SETTINGS).split() == ["0", "0", "2"]
        talk(flow)
        world.server_yaml.write_text(text)
        world.daemon.reload()
        talk(flow)
        with udp(world.alice, world.lan, World.LAN[0], PORT + 1) as other:
            talk(other)
            one_close(world, dst_port=PORT + 1)
    assert len(lines_of(world, "close", dst_port=PORT)) == len(lines_of(world, "open", dst_port=PORT)) == 1


def test_other_groups_tell_of_it_once(world):
    with udp(world.alice, world.lan, World.LAN[0], PORT) as flow:
        talk(flow)
        world.event(event="open", dst_port=PORT)
        text = world.server_yaml.read_text()
        world.server_yaml.write_text(text.replace("logging: {", "logging: {nflog_group: 300, "))
        world.daemon.reload()
        talk(flow)
        one_close(world, dst_port=PORT)


def test_the_recorders_death_loses_none(world):
    recorder = world.gateway("pgrep", "-P", str(world.daemon.pid)).split()
    assert reaches(world.alice, world.lan, World.LAN[0], PORT)
    world.event(event="open", dst_port=PORT)
    world.gateway("kill", "-9", *recorder)
    one_close(world, dst_port=PORT)
