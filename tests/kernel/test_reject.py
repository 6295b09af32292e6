"""`deny_with: reject`: who is denied is told so at once, in enforce, in both directions; a forged source is not."""

import errno
import socket

import pytest
from flow import made_in, reaches
from world import World

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
PORT = 9000
POLICY = """
  rules:
    - name: granted
      client_id: alice
      allow: [{to: 10.20.0.10, proto: tcp, ports: [9000]}, {to: 'fd20::10', proto: tcp, ports: [9000]}]
"""
REJECT = "deny_with: reject\n"
PROHIBITED = (errno.EHOSTUNREACH, errno.EACCES)
"""What Linux makes of admin-prohibited: icmp_err_convert in net/ipv4/icmp.c, tab_unreach in net/ipv6/icmp.c."""


@pytest.fixture(scope="module")
def world(world_factory):
    with world_factory() as made:
        made.configure(POLICY, more=REJECT)
        made.daemon = made.serve()
        made.connect(made.alice)
        yield made


def answer(node, to, kind, port=PORT, source=None):
    """Return the errno with which a socket learns that it may not, 0 when it hears nothing in time."""
    with made_in(node, socket.AF_INET6 if ":" in to else socket.AF_INET, kind) as asking:
        if source is not None:
            # IP_TRANSPARENT, ip(7), and IPV6_TRANSPARENT, linux/in6.h, let root send from any address.
            asking.setsockopt(*((socket.IPPROTO_IPV6, 75) if ":" in to else (socket.IPPROTO_IP, 19)), 1)
            asking.bind((source, 0))
        try:
            asking.connect((to, port))
            asking.send(b"may I?")
            asking.recv(64)
        except TimeoutError:
            return 0
        except OSError as error:
            return error.errno
    raise AssertionError("something answered")


@FAMILIES
class TestADeniedClient:
    def test_gets_a_reset_for_tcp(self, world, family):
        assert reaches(world.alice, world.lan, World.LAN[family], PORT)
        assert answer(world.alice, World.LAN[family], socket.SOCK_STREAM, PORT + 1) == errno.ECONNREFUSED
        world.event(event="deny", client="alice", dst_ip=World.LAN[family], dst_port=PORT + 1, proto="tcp")

    def test_gets_an_icmp_error_for_another_protocol(self, world, family):
        assert answer(world.alice, World.LAN[family], socket.SOCK_DGRAM) == PROHIBITED[family]
        world.event(event="deny", client="alice", dst_ip=World.LAN[family], dst_port=PORT, proto="udp")

    def test_is_told_so_by_the_gateways_own_addresses_too(self, world, family):
        assert answer(world.alice, World.INNER[family], socket.SOCK_STREAM) == errno.ECONNREFUSED
        assert answer(world.alice, World.INNER[family], socket.SOCK_DGRAM) == PROHIBITED[family]


@FAMILIES
class TestTheNetwork:
    def test_is_told_that_it_may_not_begin_a_flow_to_a_client(self, world, family):
        to = World.ADDRESSES["alice"][family]
        assert answer(world.lan, to, socket.SOCK_STREAM) == errno.ECONNREFUSED
        assert answer(world.lan, to, socket.SOCK_DGRAM) == PROHIBITED[family]

    def test_is_not_told_anything_when_it_claims_a_clients_address(self, world, family):
        """Else the client would get the answer. The same socket in its own name is the control."""
        alice, to = World.ADDRESSES["alice"][family], World.ADDRESSES["bob"][family]
        assert answer(world.lan, to, socket.SOCK_DGRAM) == PROHIBITED[family]
        before = world.gateway("nft", "list", "chain", "inet", "wgd", "deny")
        assert answer(world.lan, to, socket.SOCK_DGRAM, source=alice) == 0
        world.event(event="deny", src_ip=alice, dst_ip=to, in_iface="inner")
        assert world.gateway("nft", "list", "chain", "inet", "wgd", "deny") == before


@FAMILIES
class TestTheControl:
    """With drop, the same questions get no answer."""

    @pytest.fixture(autouse=True)
    def dropping(self, world):
        world.configure(POLICY)
        world.daemon.reload()
        yield
        world.configure(POLICY, more=REJECT)
        world.daemon.reload()

    def test_drop_tells_nobody(self, world, family):
        for node, to in ((world.alice, World.LAN[family]), (world.lan, World.ADDRESSES["alice"][family])):
            assert answer(node, to, socket.SOCK_STREAM, PORT + 1) == 0
            assert answer(node, to, socket.SOCK_DGRAM, PORT + 1) == 0
