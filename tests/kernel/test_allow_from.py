"""What the network may begin towards a client (`allow_from`): that, its replies, and nothing else."""

import socket

import pytest
from flow import made_in, reaches, tcp, udp
from world import World

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
PORT = 9000
ALLOW = """
  rules:
    - name: everything
      client_id: alice
      allow: [10.20.0.0/24, 'fd20::/64']
"""
POLICY = f"""{ALLOW}    - name: from the lan
      client_id: alice
      allow_from:
        - {{from: 10.20.0.10, proto: tcp, ports: [9000]}}
        - {{from: 'fd20::10', proto: tcp, ports: [9000]}}
        - {{from: 10.20.0.10, proto: udp, ports: [9001]}}
        - {{from: 'fd20::10', proto: udp, ports: [9001]}}
    - name: not for other clients
      client_id: bob
      allow_from: [10.80.0.0/24, 'fd80::/64']
  tests:
    - {{client_id: alice, from: 10.20.0.10, proto: tcp, port: 9000, expect: allow}}
    - {{client_id: alice, from: 10.20.0.11, proto: tcp, port: 9000, expect: deny}}
    - {{client_id: bob, from: 10.80.0.2, proto: tcp, port: 9000, expect: deny}}
"""


@pytest.fixture(scope="module")
def world(serving):
    with serving(POLICY) as made:
        yield made


@pytest.fixture
def granted(world):
    world.configure(POLICY)
    world.daemon.reload()
    return world


def alice(family):
    return World.ADDRESSES["alice"][family]


@FAMILIES
class TestTheNetwork:
    def test_reaches_the_clients_port_that_it_may(self, granted, family):
        assert reaches(granted.lan, granted.alice, alice(family), PORT, World.LAN[family])
        opened = granted.event(event="open", client="alice", src_ip=World.LAN[family], dst_port=PORT)
        assert opened["rule"] == f"from the lan.allow_from[{family}]"
        assert opened["verdict"] == "allow"

    def test_reaches_no_other_port(self, granted, family):
        assert not reaches(granted.lan, granted.alice, alice(family), PORT + 1, World.LAN[family])
        granted.event(event="deny", client="alice", src_ip=World.LAN[family], dst_port=PORT + 1)

    def test_reaches_it_from_no_other_host(self, granted, family):
        assert not reaches(granted.lan, granted.alice, alice(family), PORT, World.OTHER[family])

    def test_hears_that_a_port_is_closed_and_only_of_one_that_it_may_reach(self, granted, family):
        with made_in(granted.lan, socket.AF_INET6 if family else socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((World.LAN[family], 0))
            sender.connect((alice(family), PORT + 1))
            sender.send(b"anybody there?")
            with pytest.raises(ConnectionRefusedError):
                sender.recv(64)
            sender.connect((alice(family), PORT + 2))
            sender.send(b"anybody there?")
            with pytest.raises(TimeoutError):
                sender.recv(64)


@FAMILIES
class TestRevocation:
    def test_stops_a_flow_in_both_directions_though_the_client_may_reach_that_host(self, granted, family):
        """The client's own rule covers its replies, and must neither let them pass nor vouch for the flow."""
        with (
            tcp(granted.lan, granted.alice, alice(family), PORT, World.LAN[family]) as flow,
            tcp(granted.alice, granted.lan, World.LAN[family], PORT) as own,
        ):
            assert flow.passes()
            assert flow.passes(back=True)
            granted.configure(ALLOW)
            granted.daemon.reload()
            assert not flow.passes(back=True)
            assert not flow.passes()
            assert own.passes()
            assert own.passes(back=True)

    def test_stops_a_udp_flow(self, granted, family):
        with udp(granted.lan, granted.alice, alice(family), PORT + 1, World.LAN[family]) as flow:
            assert flow is not None
            assert flow.passes(back=True)
            granted.configure(ALLOW)
            granted.daemon.reload()
            assert not flow.passes(back=True)
            assert not flow.passes()


@FAMILIES
class TestAnotherClient:
    def test_is_not_the_network(self, granted, family):
        """What bob lets the network begin opens nothing for alice, who has a rule of her own in the control."""
        to = World.ADDRESSES["bob"][family]
        assert not reaches(granted.alice, granted.bob, to, PORT)
        granted.configure(POLICY.replace("'fd20::/64']", f"'fd20::/64', '{to}']", 1))
        granted.daemon.reload()
        assert reaches(granted.alice, granted.bob, to, PORT)

    def test_gets_no_answers_once_its_own_rule_is_gone(self, granted, family):
        to = World.ADDRESSES["bob"][family]
        granted.configure(POLICY.replace("'fd20::/64']", f"'fd20::/64', '{to}']", 1))
        granted.daemon.reload()
        with tcp(granted.alice, granted.bob, to, PORT) as flow:
            assert flow.passes(back=True)
            granted.configure(POLICY)
            granted.daemon.reload()
            assert not flow.passes(back=True)
