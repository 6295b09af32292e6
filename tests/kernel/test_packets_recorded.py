"""`record: packets`: a line for every packet of a client that passes, in both directions, and none for flows."""

import pytest
from closes import POLICY, lines_of, talk
from flow import tcp, udp
from world import World, wait_until

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
PORT, DENIED, OTHER = 9000, 9300, 9400


def record(world, what, **more):
    world.configure(POLICY, **more)
    world.server_yaml.write_text(world.server_yaml.read_text().replace("logging: {", f"logging: {{record: {what}, "))


@pytest.fixture(scope="module")
def world(world_factory):
    with world_factory() as made:
        record(made, "packets")
        made.daemon = made.serve()
        made.connect(made.alice)
        made.connect(made.bob)
        yield made


def settled(world):
    """Return the lines, when a ping that is sent now has been logged: all before it has."""
    before = len(lines_of(world, "packet", proto="icmp"))
    assert world.alice.pings(World.LAN[0])
    wait_until("the ping's two lines", lambda: len(lines_of(world, "packet", proto="icmp")) == before + 2)
    return world.lines()


def packets_of(world, port):
    return [line for line in settled(world) if port in (line.get("src_port"), line.get("dst_port"))]


def sizes(lines, sender):
    return [line["length"] for line in lines if line["src_ip"] == sender]


@FAMILIES
@pytest.mark.parametrize(("make", "header"), [(udp, 8), (tcp, None)], ids=["udp", "tcp"])
def test_every_packet_has_a_line_and_the_flow_has_none(world, family, make, header):
    alice, lan = World.ADDRESSES["alice"][family], World.LAN[family]
    port = PORT + 10 * family + (header or 0)
    with make(world.alice, world.lan, lan, port) as flow:
        talk(flow)
    lines = packets_of(world, port)
    assert {(line["event"], line["verdict"], line["client"]) for line in lines} == {("packet", "allow", "alice")}
    assert {line["rule"] for line in lines} == {f"out[{family}]"}
    ways = {(line["src_ip"], line["dst_ip"], line["in_iface"], line["out_iface"]) for line in lines}
    assert ways == {(alice, lan, "wgd0", "inner"), (lan, alice, "inner", "wgd0")}
    if header is not None:
        overhead = header + (20, 40)[family]
        assert [len(sizes(lines, end)) for end in (alice, lan)] == [2, 2]
        assert sizes(lines, alice)[0] == overhead + len(b"first")


@FAMILIES
def test_what_the_network_begins_is_named_by_what_lets_it_in(world, family):
    alice, lan = World.ADDRESSES["alice"][family], World.LAN[family]
    with udp(world.lan, world.alice, alice, OTHER + family, lan) as flow:
        talk(flow)
    lines = packets_of(world, OTHER + family)
    assert {line["src_ip"] for line in lines} == {alice, lan}
    assert {(line["client"], line["rule"]) for line in lines} == {("alice", f"in.allow_from[{family}]")}


@FAMILIES
def test_between_clients_the_one_who_began_is_the_client_in_both_directions(world, family):
    alice, bob = (World.ADDRESSES[name][family] for name in ("alice", "bob"))
    with udp(world.alice, world.bob, bob, PORT + 50 + family) as flow:
        talk(flow)
    lines = packets_of(world, PORT + 50 + family)
    assert {line["src_ip"] for line in lines} == {alice, bob}
    assert {(line["client"], line["rule"]) for line in lines} == {("alice", f"out[{2 + family}]")}


@FAMILIES
def test_what_the_gateway_itself_is_sent_and_answers_has_lines(world, family):
    alice, inner = World.ADDRESSES["alice"][family], World.INNER[family]
    with udp(world.alice, world.gateway, inner, PORT + 60 + family) as flow:
        talk(flow)
    lines = packets_of(world, PORT + 60 + family)
    assert [len(sizes(lines, end)) for end in (alice, inner)] == [2, 2]
    assert {(line["client"], line["rule"]) for line in lines} == {("alice", f"out[{4 + family}]")}
    assert {(line.get("in_iface"), line.get("out_iface")) for line in lines} == {("wgd0", None), (None, "wgd0")}


@FAMILIES
def test_a_denial_is_a_denial(world, family):
    with udp(world.bob, world.lan, World.OTHER[family], DENIED + family) as flow:
        assert flow is None
    lines = packets_of(world, DENIED + family)
    assert {(line["event"], line["verdict"], line["client"]) for line in lines} == {("deny", "deny", "bob")}


def test_in_observe_what_no_rule_allows_would_be_denied_packet_by_packet(world):
    try:
        record(world, "packets", mode="observe")
        world.daemon.reload()
        with udp(world.bob, world.lan, World.OTHER[0], DENIED + 50) as flow:
            talk(flow)
        lines = packets_of(world, DENIED + 50)
        assert [line["event"] for line in lines] == ["packet"] * 4
        assert {(line["verdict"], line["client"]) for line in lines} == {("would_deny", "bob")}
    finally:
        record(world, "packets")
        world.daemon.reload()


def test_from_flows_to_packets_closes_what_was_opened_and_back_opens_what_is_new(world):
    try:
        record(world, "flows")
        world.daemon.reload()
        with udp(world.alice, world.lan, World.LAN[0], PORT + 200) as flow:
            talk(flow)
            world.event(event="open", dst_port=PORT + 200)
            record(world, "packets")
            world.daemon.reload()
            assert world.event(event="close", dst_port=PORT + 200)["rx_packets"] == 2
            talk(flow)
            world.event(event="packet", dst_port=PORT + 200)
            record(world, "flows")
            world.daemon.reload()
            talk(flow)
        with udp(world.alice, world.lan, World.LAN[0], PORT + 201) as flow:
            talk(flow)
            world.gateway("conntrack", "-F")
            world.event(event="close", dst_port=PORT + 201)
        assert len(lines_of(world, "open", dst_port=PORT + 200)) == 1
        assert len(lines_of(world, "close", dst_port=PORT + 200)) == 1
        assert not lines_of(world, "packet", dst_port=PORT + 201)
    finally:
        record(world, "packets")
        world.daemon.reload()
