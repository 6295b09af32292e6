"""Who may begin what (promises 1 and 2): clients, the network behind the gateway, and the gateway itself."""

import socket

import pytest
import raw
from flow import made_in, reaches, udp
from world import World, wait_until

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
PORT = 9000
POLICY = """
  rules:
    - name: broad
      client_id: alice
      allow:
        - 10.20.0.0/24
        - 'fd20::/64'
        - 10.30.0.0/24
        - 'fd30::/64'
    - name: client to client
      client_id: alice
      allow:
        - {to: 10.80.0.3, proto: tcp, ports: [9000]}
        - {to: 'fd80::3', proto: tcp, ports: [9000]}
        - {to: 10.80.0.3, proto: udp, ports: [9000]}
        - {to: 'fd80::3', proto: udp, ports: [9000]}
        - {to: 10.20.0.1, proto: udp, ports: [9002]}
        - {to: 'fd20::1', proto: udp, ports: [9002]}
    - name: the gateway by name
      client_id: bob
      allow:
        - {to: 10.20.0.1, proto: tcp, ports: [9000]}
        - {to: 'fd20::1', proto: tcp, ports: [9000]}
        - {to: 10.20.0.10, proto: udp, ports: [9000]}
        - {to: 'fd20::10', proto: udp, ports: [9000]}
"""


@pytest.fixture(scope="module")
def world(serving):
    with serving(POLICY) as made:
        yield made


def arrives(world, to, source, family):
    """Tell whether a datagram that the LAN sends with a source address arrives at the gateway itself."""
    internet = socket.AF_INET6 if family else socket.AF_INET
    with (
        made_in(world.gateway, internet, socket.SOCK_DGRAM) as receiver,
        made_in(world.lan, internet, socket.SOCK_DGRAM) as sender,
    ):
        # Linux lets root send from any address if it asks: IP_TRANSPARENT, ip(7), IPV6_TRANSPARENT, linux/in6.h.
        sender.setsockopt(*((socket.IPPROTO_IPV6, 75) if family else (socket.IPPROTO_IP, 19)), 1)
        receiver.bind((to, PORT))
        sender.bind((source, 0))
        sender.sendto(b"from whom?", (to, PORT))
        try:
            return receiver.recv(64) == b"from whom?"
        except TimeoutError:
            return False


@FAMILIES
class TestTheNetwork:
    def test_may_answer_what_a_client_began(self, world, family):
        assert reaches(world.alice, world.lan, World.LAN[family], PORT)

    def test_may_not_begin_a_flow_to_a_client(self, world, family):
        assert not reaches(world.lan, world.alice, World.ADDRESSES["alice"][family], PORT)
        world.event(
            event="deny", dst_ip=World.ADDRESSES["alice"][family], dst_port=PORT, in_iface="inner", client="alice"
        )

    def test_may_not_ping_a_client(self, world, family):
        assert not world.lan.pings(World.ADDRESSES["alice"][family])
        assert world.alice.pings(World.LAN[family])

    def test_may_not_claim_the_address_of_a_client(self, world, family):
        address, to = World.ADDRESSES["alice"][family], World.INNER[family]
        assert arrives(world, to, World.LAN[family], family)
        assert not arrives(world, to, address, family)
        denied = world.event(event="deny", src_ip=address, dst_ip=to, in_iface="inner")
        assert "client_id" not in denied

    def test_may_do_so_in_observe(self, world, family):
        """The control of the test before: without the block, the same datagram arrives."""
        world.configure(POLICY, mode="observe")
        world.daemon.reload()
        try:
            assert arrives(world, World.INNER[family], World.ADDRESSES["alice"][family], family)
        finally:
            world.configure(POLICY)
            world.daemon.reload()


@FAMILIES
class TestAnEstablishedFlow:
    """What is established is accepted before anybody is asked: still only from where it can come."""

    def test_is_not_joined_by_a_host_that_claims_the_clients_address(self, world, family):
        address, to, port = World.ADDRESSES["alice"][family], World.INNER[family], PORT + 2
        with udp(world.alice, world.gateway, to, port) as flow:
            assert flow.passes()
            assert flow.passes(back=True)
            forged = raw.udp_segment(address, to, flow.near.getsockname()[1], port, b"forged")
            raw.send(world.lan, raw.packet(address, to, socket.IPPROTO_UDP, forged))
            with pytest.raises(TimeoutError):
                flow.far.recv(64)
            assert flow.passes()

    @pytest.mark.parametrize("spoken_for", ["bob", "lan"])
    def test_is_answered_for_a_client_by_nobody_else(self, world, family, spoken_for):
        """The control: for itself, the network answers with the same packet."""
        ends = {"bob": (world.bob, World.ADDRESSES["bob"]), "lan": (world.lan, World.LAN)}
        (node, addresses), alice = ends[spoken_for], World.ADDRESSES["alice"][family]
        source = addresses[family]
        with udp(world.alice, node, source, PORT) as flow:
            for _ in range(2):
                assert flow.passes()
                assert flow.passes(back=True)
            answer = raw.udp_segment(source, alice, PORT, flow.near.getsockname()[1], b"answer")
            raw.send(world.lan, raw.packet(source, alice, socket.IPPROTO_UDP, answer))
            if spoken_for == "lan":
                assert flow.near.recv(64) == b"answer"
            else:
                with pytest.raises(TimeoutError):
                    flow.near.recv(64)
            assert flow.passes(back=True)


@FAMILIES
class TestClientToClient:
    def test_passes_what_the_rule_of_the_one_who_begins_covers(self, world, family):
        assert reaches(world.alice, world.bob, World.ADDRESSES["bob"][family], PORT)

    def test_drops_another_port(self, world, family):
        assert not reaches(world.alice, world.bob, World.ADDRESSES["bob"][family], PORT + 1)

    def test_drops_the_other_direction(self, world, family):
        assert not reaches(world.bob, world.alice, World.ADDRESSES["alice"][family], PORT)


@FAMILIES
class TestTheGatewaysOwnAddresses:
    def test_are_closed_by_a_broad_rule_that_covers_them(self, world, family):
        assert not reaches(world.alice, world.gateway, World.INNER[family], PORT)
        world.event(event="deny", client="alice", dst_ip=World.INNER[family], dst_port=PORT)

    def test_are_opened_by_a_rule_that_names_them(self, world, family):
        assert reaches(world.bob, world.gateway, World.INNER[family], PORT)
        world.event(event="open", client="bob", dst_ip=World.INNER[family], rule=f"the gateway by name[{family}]")

    def test_are_closed_on_other_ports_than_the_rule_names(self, world, family):
        assert not reaches(world.bob, world.gateway, World.INNER[family], PORT + 1)

    def test_are_closed_at_the_tunnel_address_without_a_rule(self, world, family):
        assert not reaches(world.bob, world.gateway, World.TUNNEL[family], PORT)

    def test_answer_an_echo_at_the_tunnel_address_only(self, world, family):
        assert world.bob.pings(World.TUNNEL[family])
        assert not world.bob.pings(World.INNER[family])


@FAMILIES
class TestTheGatewaysOwnConnections:
    def test_reach_clients_and_get_their_replies(self, world, family):
        assert reaches(world.gateway, world.bob, World.ADDRESSES["bob"][family], PORT)

    def test_hear_that_a_port_is_closed(self, world, family):
        """The ICMP error that the client sends back comes through: the socket reports it."""
        internet = socket.AF_INET6 if family else socket.AF_INET
        with made_in(world.gateway, internet, socket.SOCK_DGRAM) as sender:
            sender.connect((World.ADDRESSES["bob"][family], PORT))
            sender.send(b"anybody there?")
            with pytest.raises(ConnectionRefusedError):
                sender.recv(64)


@FAMILIES
class TestUdp:
    def test_passes_both_ways_where_a_rule_covers_it(self, world, family):
        with udp(world.bob, world.lan, World.LAN[family], PORT) as flow:
            assert flow is not None
            assert flow.passes(back=True)
            assert flow.passes()

    def test_is_dropped_on_another_port(self, world, family):
        with udp(world.bob, world.lan, World.LAN[family], PORT + 1) as flow:
            assert flow is None

    def test_hears_that_a_granted_port_is_closed(self, world, family):
        """An ICMP error about a granted flow passes to the client."""
        internet = socket.AF_INET6 if family else socket.AF_INET
        with made_in(world.bob, internet, socket.SOCK_DGRAM) as sender:
            sender.connect((World.LAN[family], PORT))
            sender.send(b"anybody there?")
            with pytest.raises(ConnectionRefusedError):
                sender.recv(64)


@FAMILIES
class TestPathMtu:
    def test_is_learned_through_the_gateway(self, world, family):
        """A host behind a narrower link answers with `too big`; the sender's next packets fit."""
        narrow = 1300
        world.lan("ip", "link", "set", "behind", "mtu", str(narrow))
        world.remote("ip", "link", "set", "behind", "mtu", str(narrow))
        try:
            size = 1380 - (48 if family else 28)
            wait_until(
                "a ping that is answered, cut to fit",
                lambda: world.alice.code("ping", "-n", "-c1", "-W1", "-s", str(size), World.BEHIND[family]) == 0,
            )
            shown = world.alice("ip", "route", "get", World.BEHIND[family])
            assert f"mtu {narrow}" in shown
        finally:
            world.lan("ip", "link", "set", "behind", "mtu", "1500")
            world.remote("ip", "link", "set", "behind", "mtu", "1500")
