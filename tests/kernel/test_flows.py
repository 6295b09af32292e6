"""Flows with a beginning and an end: one open and one close each, and the close says what its two ends counted."""

import itertools

import pytest
from closes import COUNTED, POLICY, counted_by, lines_of, one_close, talk
from flow import made_in, tcp, udp
from world import World, wait_until

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
PORTS = itertools.count(20000)


@pytest.fixture(scope="module")
def world(serving):
    with serving(POLICY) as made:
        yield made


@pytest.fixture
def port():
    return next(PORTS)


def address(name, family):
    return World.ADDRESSES[name][family]


@FAMILIES
@pytest.mark.parametrize("make", [tcp, udp])
class TestEachClose:
    def test_of_what_a_client_began_says_what_the_client_counted(self, world, family, make, port):
        with (
            counted_by(world.alice, port) as counters,
            make(world.alice, world.lan, World.LAN[family], port) as flow,
        ):
            talk(flow)
            close = one_close(world, dst_port=port)
            assert [close[key] for key in COUNTED] == counters.read()
        assert (close["client"], close["rule"]) == ("alice", f"out[{family}]")

    def test_is_not_made_for_what_is_denied(self, world, family, make, port):
        with make(world.bob, world.lan, World.OTHER[family], port) as flow:
            assert flow is None
        world.event(event="deny", dst_port=port)
        with make(world.alice, world.lan, World.LAN[family], port) as flow:
            talk(flow)
            one_close(world, dst_port=port)

    def test_is_not_made_for_what_is_not_a_clients(self, world, family, make, port):
        with make(world.gateway, world.lan, World.LAN[family], port) as flow:
            talk(flow)
            world.gateway("conntrack", "-F")
        with make(world.alice, world.lan, World.LAN[family], port + 5000) as flow:
            talk(flow)
            one_close(world, dst_port=port + 5000)
        assert not lines_of(world, "open", dst_port=port)
        assert not lines_of(world, "close", dst_port=port)


@FAMILIES
class TestADirection:
    def test_from_the_network_has_the_clients_packets_as_tx(self, world, family, port):
        with (
            counted_by(world.lan, port) as counters,
            udp(world.lan, world.alice, address("alice", family), port, World.LAN[family]) as flow,
        ):
            talk(flow)
            close = one_close(world, dst_port=port)
            sent, sent_bytes, received, received_bytes = counters.read()
        assert [close[key] for key in COUNTED] == [received, received_bytes, sent, sent_bytes]
        assert (close["client"], close["rule"]) == ("alice", f"in.allow_from[{family}]")

    def test_between_two_clients_is_that_of_the_one_who_began(self, world, family, port):
        with (
            counted_by(world.alice, port) as counters,
            udp(world.alice, world.bob, address("bob", family), port) as flow,
        ):
            talk(flow)
            close = one_close(world, dst_port=port)
            assert [close[key] for key in COUNTED] == counters.read()
        assert (close["client"], close["rule"]) == ("alice", f"out[{2 + family}]")

    def test_to_the_gateway_itself_is_named_by_the_rule_for_that_host(self, world, family, port):
        with (
            counted_by(world.alice, port) as counters,
            udp(world.alice, world.gateway, World.INNER[family], port) as flow,
        ):
            talk(flow)
            close = one_close(world, dst_port=port)
            assert [close[key] for key in COUNTED] == counters.read()
        assert close["rule"] == f"out[{4 + family}]"

    def test_by_a_rule_with_an_end_is_told_too(self, world, family, port):
        with udp(world.bob, world.lan, World.LAN[family], port) as flow:
            talk(flow)
            assert one_close(world, dst_port=port)["rule"] == f"for now[{family}]"

    def test_of_a_ping_has_its_type_and_the_size_of_its_packets(self, world, family):
        world.alice("ping", "-c2", "-i0.2", "-n", "-q", "-s100", World.LAN[family])
        proto, kind, header = (("icmp", 8, 20), ("icmpv6", 128, 40))[family]
        close = one_close(world, proto=proto, dst_ip=World.LAN[family])
        assert close["icmp_type"] == kind
        assert [close[key] for key in COUNTED] == [2, 2 * (header + 8 + 100)] * 2

    def test_through_masquerade_and_dnat_shows_both_ends_as_they_are(self, world, family, port):
        away = ("10.20.0.99", "fd20::99")[family]
        nat, to = (("ip", World.LAN[0]), ("ip6", f"[{World.LAN[1]}]"))[family]
        world.gateway(
            *("nft", "-f", "-"),
            text=f"""table inet foreign {{
                chain pre {{
                    type nat hook prerouting priority -100;
                    {nat} daddr {away} udp dport 53 dnat {nat} to {to}:{port}
                }}
                chain post {{
                    type nat hook postrouting priority 100;
                    oifname inner masquerade
                }}
            }}""",
        )
        try:
            family_of = made_in(world.lan, (2, 10)[family], 2)
            with family_of as server, made_in(world.alice, (2, 10)[family], 2) as client:
                server.bind((World.LAN[family], port))
                client.sendto(b"question", (away, 53))
                data, sender = server.recvfrom(64)
                assert sender[0] == World.INNER[family]
                server.sendto(data * 2, sender)
                assert client.recv(64) == data * 2
            close = one_close(world, dst_port=port)
        finally:
            world.gateway("nft", "delete", "table", "inet", "foreign")
        header = (28, 48)[family]
        assert [close[key] for key in COUNTED] == [1, header + 8, 1, header + 16]
        assert (close["src_ip"], close["dst_ip"]) == (address("alice", family), World.LAN[family])


def test_the_kernel_ends_flows_by_itself(world, port):
    world.gateway("sysctl", "-q", "net.netfilter.nf_conntrack_udp_timeout=1")
    with made_in(world.alice, 2, 2) as client:
        client.sendto(b"x", (World.LAN[0], port))

    def closed():
        # Who lists the flows has the kernel look at once for those whose time is over.
        world.gateway("conntrack", "-L")
        return lines_of(world, "close", dst_port=port)

    (close,) = wait_until("a close", closed)
    assert [close[key] for key in COUNTED] == [1, 29, 0, 0]
    assert 900 < close["duration_ms"] < 5000
    world.gateway("sysctl", "-q", "net.netfilter.nf_conntrack_udp_timeout=30")


def test_a_flow_is_named_as_at_its_open_after_a_reload(world, port):
    with udp(world.alice, world.lan, World.LAN[0], port) as flow:
        talk(flow)
        world.configure(POLICY.replace("name: out", "name: another name"))
        world.daemon.reload()
        talk(flow)
        try:
            assert one_close(world, dst_port=port)["rule"] == "out[0]"
        finally:
            world.configure(POLICY)
            world.daemon.reload()


def test_the_close_of_a_revoked_flow_is_what_passed_and_what_was_denied(world, port):
    with (
        counted_by(world.alice, port) as counters,
        udp(world.alice, world.lan, World.LAN[0], port) as flow,
    ):
        talk(flow)
        passed, passed_bytes, received, received_bytes = counters.read()
        try:
            world.configure(POLICY.replace("        - 10.20.0.0/24\n", ""))
            world.daemon.reload()
            assert not flow.passes()
            assert not flow.passes()
            denied = wait_until(
                "two denials", lambda: len(found := lines_of(world, "deny", dst_port=port)) == 2 and found
            )
            close = one_close(world, dst_port=port)
        finally:
            world.configure(POLICY)
            world.daemon.reload()
    assert (close["tx_packets"] - 2, close["rx_packets"]) == (passed, received)
    assert close["tx_bytes"] - sum(line["length"] for line in denied) == passed_bytes
    assert close["rx_bytes"] == received_bytes
