"""What the way through the gateway does to packets: masquerade, DNAT of the host's own, and the size of segments."""

import socket

import pytest
from flow import made_in, reaches, tcp, udp
from world import World, wait_until

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
PORT = 9000
POLICY = """
  rules:
    - name: granted
      client_id: alice
      allow:
        - {to: 10.20.0.10, proto: tcp, ports: [9000]}
        - {to: 'fd20::10', proto: tcp, ports: [9000]}
        - {to: 10.20.0.10, proto: udp, ports: [9000]}
        - {to: 'fd20::10', proto: udp, ports: [9000]}
"""
PUBLISHED = ("10.20.0.99", "fd20::99")
"""Addresses that no host has and the host's own DNAT turns into others."""


@pytest.fixture(scope="module")
def world(world_factory):
    with world_factory() as made:
        made.configure(POLICY)
        made.daemon = made.serve()
        made.connect(made.alice)
        yield made


def address_seen(world, family):
    """Return from which address the LAN sees a TCP connection of alice come."""
    with tcp(world.alice, world.lan, World.LAN[family], PORT) as flow:
        assert flow.passes()
        assert flow.passes(back=True)
        return flow.far.getpeername()[0]


class TestMasquerade:
    @pytest.fixture(scope="class")
    def masquerading(self, world):
        world.configure(POLICY, more="masquerade: [inner]\n")
        world.daemon.reload()
        yield world
        world.configure(POLICY)
        world.daemon.reload()

    @FAMILIES
    def test_gives_what_clients_send_the_gateways_address(self, masquerading, family):
        assert address_seen(masquerading, family) == World.INNER[family]

    @FAMILIES
    def test_opens_nothing(self, masquerading, family):
        assert not reaches(masquerading.alice, masquerading.lan, World.LAN[family], PORT + 1)
        assert not reaches(masquerading.alice, masquerading.lan, World.OTHER[family], PORT)

    @FAMILIES
    def test_is_not_for_what_the_host_itself_or_others_send(self, masquerading, family):
        """Another address of the gateway stays what it is: the chain takes only what came by the tunnel."""
        with tcp(masquerading.gateway, masquerading.lan, World.LAN[family], PORT, World.TUNNEL[family]) as flow:
            assert flow.far.getpeername()[0] == World.TUNNEL[family]

    @FAMILIES
    def test_is_not_done_where_the_config_does_not_say_so(self, world, family):
        """The control. It stands last: class fixtures end with the class."""
        world.configure(POLICY)
        world.daemon.reload()
        assert address_seen(world, family) == World.ADDRESSES["alice"][family]


@FAMILIES
class TestTheHostsOwnDnat:
    """The decision sees the destination that the packet really goes to."""

    @pytest.fixture(autouse=True)
    def published(self, world, family):
        word = ("ip", "ip6")[family]
        to = {PORT: f"{World.LAN[family]}", PORT + 1: f"{World.OTHER[family]}"}
        rules = "\n".join(
            f"add rule {word} published pre {word} daddr {PUBLISHED[family]} tcp dport {port} dnat to {host}"
            for port, host in to.items()
        )
        world.gateway(
            "nft",
            "-f",
            "-",
            text=f"add table {word} published\n"
            f"add chain {word} published pre {{ type nat hook prerouting priority -100; }}\n{rules}\n",
        )
        yield
        world.gateway("nft", "delete", "table", word, "published")

    def connects(self, world, to, listening, port):
        """Tell whether alice's connection to an address is taken by a listener on another one."""
        internet = socket.AF_INET6 if ":" in to else socket.AF_INET
        with (
            made_in(world.lan, internet, socket.SOCK_STREAM) as listener,
            made_in(world.alice, internet, socket.SOCK_STREAM) as client,
        ):
            listener.bind((listening, port))
            listener.listen()
            try:
                client.connect((to, port))
            except TimeoutError:
                return False
            return True

    def test_is_allowed_by_a_rule_for_the_real_destination(self, world, family):
        assert self.connects(world, PUBLISHED[family], World.LAN[family], PORT)

    def test_is_denied_without_one_and_the_event_names_the_real_destination(self, world, family):
        assert not self.connects(world, PUBLISHED[family], World.OTHER[family], PORT + 1)
        world.event(event="deny", client="alice", dst_ip=World.OTHER[family], dst_port=PORT + 1)

    def test_is_not_allowed_by_a_rule_for_the_address_that_was_asked_for(self, world, family):
        world.configure(POLICY.replace("10.20.0.10", "10.20.0.99").replace("fd20::10", "fd20::99"))
        world.daemon.reload()
        try:
            assert not self.connects(world, PUBLISHED[family], World.LAN[family], PORT)
        finally:
            world.configure(POLICY)
            world.daemon.reload()


NARROW = 1320
TIMESTAMPS = 12
HEADERS = (40, 60)


@FAMILIES
class TestSegments:
    """No end sends larger segments than the narrowest link of the gateway takes, whatever ICMP does on the way."""

    @pytest.fixture(autouse=True, params=["inner", "wgd0"])
    def narrow(self, world, request):
        link = request.param
        before = world.gateway("cat", f"/sys/class/net/{link}/mtu").strip()
        world.gateway("ip", "link", "set", link, "mtu", str(NARROW))
        yield
        world.gateway("ip", "link", "set", link, "mtu", before)

    def sizes(self, world, family):
        """Return what both ends of a new connection take for the largest segment (TCP_MAXSEG, tcp(7))."""
        with tcp(world.alice, world.lan, World.LAN[family], PORT) as flow:
            assert flow.passes()
            assert flow.passes(back=True)
            return [end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) for end in (flow.near, flow.far)]

    def test_are_cut_to_the_narrowest_link_in_both_directions(self, world, family):
        expected = NARROW - HEADERS[family] - TIMESTAMPS
        assert self.sizes(world, family) == [expected, expected]

    def test_are_too_large_without_it(self, world, family):
        """The control: without the chain, each end goes by its own link."""
        world.daemon.kill()
        world.gateway("nft", "flush", "chain", "inet", "wgd", "forward")
        try:
            assert min(self.sizes(world, family)) > NARROW - HEADERS[family] - TIMESTAMPS
        finally:
            world.daemon = world.serve()
            wait_until("the gateway", lambda: reaches(world.alice, world.lan, World.LAN[family], PORT))


@FAMILIES
def test_udp_is_masqueraded_too_and_its_answers_come_back(world, family):
    world.configure(POLICY, more="masquerade: [inner]\n")
    world.daemon.reload()
    with udp(world.alice, world.lan, World.LAN[family], PORT) as flow:
        assert flow.far.getpeername()[0] == World.INNER[family]
        assert flow.passes(back=True)
