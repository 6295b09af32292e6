"""Which packets a rule covers: fragments, extension headers, protocols of every kind, and whose they are."""

import contextlib
import socket
import struct

import pytest
import raw
from flow import made_in, reaches
from world import World

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
INTERNET = (socket.AF_INET, socket.AF_INET6)
PORT = 9000
SCTP, GRE, ANY, OTHER = 132, 47, 253, 254
"""253 and 254 are for experiments (RFC 3692)."""
LARGER_THAN_ANY_LINK = 4000
POLICY = """
  rules:
    - name: granted
      client_id: alice
      allow:
        - {to: 10.20.0.10, proto: udp, ports: [9000]}
        - {to: 'fd20::10', proto: udp, ports: [9000]}
        - {to: 10.20.0.10, proto: sctp, ports: [9000]}
        - {to: 'fd20::10', proto: sctp, ports: [9000]}
        - {to: 10.20.0.10, proto: gre}
        - {to: 'fd20::10', proto: gre}
        - {to: 10.20.0.10, proto: 253}
        - {to: 'fd20::10', proto: 253}
        - {to: 10.20.0.10, proto: icmp}
        - {to: 'fd20::10', proto: icmp}
        - {to: 10.20.0.10, proto: tcp, ports: [9000]}
        - {to: 'fd20::10', proto: tcp, ports: [9000]}
"""


@pytest.fixture(scope="module")
def world(serving):
    with serving(POLICY) as made:
        yield made


def alice(family):
    return World.ADDRESSES["alice"][family]


def arrives(world, family, port, data, options=()):
    """Tell whether a datagram from alice arrives in the LAN, and the same comes back."""
    to = World.LAN[family]
    with (
        made_in(world.lan, INTERNET[family], socket.SOCK_DGRAM) as receiver,
        made_in(world.alice, INTERNET[family], socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind((to, port))
        for option in options:
            sender.setsockopt(*option)
        sender.sendto(data, (to, port))
        try:
            received, source = receiver.recvfrom(65535)
        except TimeoutError:
            return False
        # Nobody but the sender cuts an IPv6 packet: the first answer may only bring the size that fits.
        for _ in range(2):
            receiver.sendto(received, source)
            with contextlib.suppress(TimeoutError):
                return sender.recv(65535) == data
        return False


@FAMILIES
class TestFragments:
    """The gateway judges the whole datagram, whichever fragment the ports are in."""

    DATA = bytes(range(250)) * (LARGER_THAN_ANY_LINK // 250)

    def test_pass_both_ways_where_the_datagram_is_granted(self, world, family):
        assert arrives(world, family, PORT, self.DATA)

    def test_do_not_pass_where_it_is_not_and_none_of_them_slips_through(self, world, family):
        with raw.Ears(world.lan, socket.IPPROTO_UDP, ipv6=bool(family)) as ears:
            assert not arrives(world, family, PORT + 1, self.DATA)
            assert not ears.hears(self.DATA[:250], 0.1)
        world.event(event="deny", client="alice", dst_ip=World.LAN[family], dst_port=PORT + 1, proto="udp")

    def test_without_their_first_one_are_nothing_at_all(self, world, family):
        """A later fragment alone has no ports; it never becomes a packet."""
        data = b"later fragment alone".ljust(64, b".")
        if family:
            fragment = struct.pack("!BBHI", socket.IPPROTO_UDP, 0, 8 << 3, 99) + data
            made = raw.ipv6(alice(1), World.LAN[1], socket.IPPROTO_FRAGMENT, fragment)
        else:
            whole = raw.ipv4(alice(0), World.LAN[0], socket.IPPROTO_UDP, data, identification=99)
            made = whole[:6] + struct.pack("!H", 8) + whole[8:]
        with raw.Ears(world.lan, socket.IPPROTO_UDP, ipv6=bool(family)) as ears:
            raw.send(world.alice, made)
            assert not ears.hears(data)


class TestExtensionHeaders:
    """IPv6 may have headers before the port; the rule looks behind them."""

    PADDING = struct.pack("!BBBB4x", 0, 0, 1, 4)
    """An options header that holds nothing but padding (PadN, RFC 8200, 4.2)."""
    HOP_BY_HOP = (socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, PADDING)
    DESTINATION = (socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, PADDING)

    @pytest.mark.parametrize("headers", [(HOP_BY_HOP,), (DESTINATION,), (HOP_BY_HOP, DESTINATION)])
    def test_are_looked_behind(self, world, headers):
        assert arrives(world, 1, PORT, b"behind headers", headers)
        assert not arrives(world, 1, PORT + 1, b"behind headers", headers)
        world.event(event="deny", client="alice", dst_ip=World.LAN[1], dst_port=PORT + 1, proto="udp")

    def test_are_looked_behind_in_fragments_too(self, world):
        data = TestFragments.DATA
        assert arrives(world, 1, PORT, data, (self.DESTINATION,))
        assert not arrives(world, 1, PORT + 2, data, (self.DESTINATION,))


@FAMILIES
class TestProtocolsByNumber:
    def heard(self, world, family, protocol, payload):
        with raw.Ears(world.lan, protocol, ipv6=bool(family)) as ears:
            raw.send(world.alice, raw.packet(alice(family), World.LAN[family], protocol, payload))
            return ears.hears(payload)

    def test_without_ports_pass_as_a_whole(self, world, family):
        assert self.heard(world, family, ANY, b"by its number")
        assert self.heard(world, family, GRE, struct.pack("!HH", 0, 0x88B5) + b"by its name")

    def test_that_are_not_granted_do_not(self, world, family):
        assert not self.heard(world, family, OTHER, b"not granted")
        world.event(event="deny", client="alice", dst_ip=World.LAN[family], proto=f"proto_{OTHER}")

    def test_sctp_passes_at_its_granted_port_only(self, world, family):
        assert self.heard(world, family, SCTP, raw.sctp_init(4000, PORT))
        assert not self.heard(world, family, SCTP, raw.sctp_init(4000, PORT + 1))


@FAMILIES
class TestIcmp:
    def test_echo_passes_where_icmp_is_granted(self, world, family):
        assert world.alice.pings(World.LAN[family])
        assert not world.alice.pings(World.OTHER[family])
        assert not world.bob.pings(World.LAN[family])

    def test_neighbour_discovery_is_no_clients_matter(self, world, family):
        """Hosts find each other anew in the network and behind the gateway while all else is denied."""
        for node in (world.gateway, world.lan):
            node("ip", "neigh", "flush", "dev", "inner")
        assert world.lan.pings(World.INNER[family])
        assert reaches(world.alice, world.lan, World.LAN[family], PORT)
        for node in (world.gateway, world.lan):
            node("ip", "neigh", "flush", "dev", "inner")
        assert world.gateway.pings(World.LAN[family])


@FAMILIES
class TestWhoseAddress:
    """WireGuard itself takes from a client only what it sends from its own addresses."""

    @pytest.mark.parametrize("whose", ["bob", "the network", "nobody"])
    def test_a_client_sends_from_no_other_address(self, world, family, whose):
        source = {
            "bob": World.ADDRESSES["bob"],
            "the network": World.OTHER,
            "nobody": ("10.80.0.77", "fd80::77"),
        }[whose][family]
        to = World.LAN[family]
        with raw.Ears(world.lan, socket.IPPROTO_UDP, ipv6=bool(family)) as ears:
            for claimed, passes in ((source, False), (alice(family), True)):
                data = f"from {claimed} as {whose}".encode()
                segment = raw.udp_segment(claimed, to, 4000, PORT, data)
                raw.send(world.alice, raw.packet(claimed, to, socket.IPPROTO_UDP, segment))
                assert ears.hears(data) == passes

    def test_and_the_one_it_claims_to_be_is_let_in_by_its_own_rule_only(self, world, family):
        """The other side of it: what alice may is not what bob may, whatever the address."""
        assert not reaches(world.bob, world.lan, World.LAN[family], PORT)
        world.event(event="deny", client="bob", dst_ip=World.LAN[family], dst_port=PORT)
