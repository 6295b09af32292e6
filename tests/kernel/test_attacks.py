"""Attacks on the gateway, each with its control: what happens where the defence is not."""

import itertools
import socket
import struct
import threading

import pytest
import raw
from conntrack_filler import fill
from flow import made_in, reaches, tcp, udp
from world import World, wait_until

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
INTERNET = (socket.AF_INET, socket.AF_INET6)
PORT = 9000
UDP, ICMP, ICMPV6 = socket.IPPROTO_UDP, socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6
RST = 4
LOOSE, STRICT = 131, 137
"""The options of RFC 791, 3.1, that name a way; the strict one names every hop."""
GRANTED = "tcp, ports: [8080, 9000]}", "udp, ports: [9000]}"
POLICY = "  rules:\n" + "".join(
    f"    - name: {client} may\n      client_id: {client}\n      allow:\n"
    + "".join(f"        - {{to: '{to}', proto: {what}\n" for to in World.LAN for what in GRANTED)
    for client in ("alice", "bob")
)
REVOKED = POLICY[: POLICY.index("    - name: alice may")] + POLICY[POLICY.index("    - name: bob may") :]


@pytest.fixture(scope="module")
def world(serving):
    with serving(POLICY) as made:
        yield made


def go_to(world, policy=POLICY, **more):
    world.configure(policy, **more)
    assert "reloaded" in world.daemon.reload()


@pytest.fixture
def enforcing(world):
    """The world, and the gateway enforcing POLICY again after the test."""
    yield world
    if world.daemon.code is not None:
        world.daemon = world.serve()
    go_to(world)


def alice(family):
    return World.ADDRESSES["alice"][family]


def bob(family):
    return World.ADDRESSES["bob"][family]


class Wire:
    """Everything that comes by one interface of a node, before its own stack judges it (packet(7))."""

    def __init__(self, node, device):
        self._socket = made_in(node, socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.bind((device, 3))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def count(self, wanted, seconds=1.0, most=1):
        """Return how many packets with these bytes in them come, `most` at the most."""
        self._socket.settimeout(seconds)
        found = 0
        try:
            while found < most:
                found += wanted in self._socket.recv(65535)
        except TimeoutError:
            pass
        return found


class TestForeignMarks:
    """Another chain, or a mark restored from conntrack, sets the bit by which our traffic is known."""

    @pytest.fixture(params=["meta mark set 0x10000000", "ct mark set 0x10000000 meta mark set ct mark"])
    def marked(self, enforcing, request):
        rules = f"chain pre {{ type filter hook prerouting priority -150; {request.param}\n}}"
        enforcing.gateway("nft", "-f", "-", text=f"table inet foreign {{ {rules}\n}}\n")
        yield enforcing
        enforcing.gateway("nft", "delete", "table", "inet", "foreign")

    def test_open_nothing(self, marked):
        for family in (0, 1):
            assert marked.alice.gets(World.LAN[family])
            assert not marked.alice.gets(World.OTHER[family])
            assert not reaches(marked.lan, marked.alice, alice(family), PORT)

    def test_do_not_pass_for_an_authorisation_in_observe(self, marked):
        go_to(marked, mode="observe")
        for family in (0, 1):
            with udp(marked.alice, marked.lan, World.OTHER[family], PORT) as flow:
                assert flow is not None
                port = flow.near.getsockname()[1]
            opened = marked.event(event="open", src_port=port, dst_ip=World.OTHER[family], dst_port=PORT)
            assert opened["verdict"] == "would_deny"

    def test_open_everything_where_nobody_clears_them(self, marked):
        """The control: with our table gone, the mark is all that the second lock sees."""
        marked.daemon.kill()
        marked.gateway("nft", "delete", "table", "inet", "wgd")
        assert marked.alice.gets(World.OTHER[0])
        assert marked.alice.gets(World.OTHER[1])

    def test_of_a_generation_do_not_begin_a_flow(self, enforcing):
        """A conntrack mark that says `decided already` is believed of no flow's first packet."""
        listed = enforcing.gateway("nft", "list", "set", "inet", "wgd", "generation")
        mark = listed[listed.index("elements") :].split("{")[1].split("}")[0].strip()
        rule = f"ct state new ct mark set {mark}"
        chain = f"chain pre {{ type filter hook prerouting priority -150; {rule}\n}}"
        enforcing.gateway("nft", "-f", "-", text=f"table inet foreign {{ {chain}\n}}\n")
        try:
            for family in (0, 1):
                assert enforcing.alice.gets(World.LAN[family])
                assert not enforcing.alice.gets(World.OTHER[family])
        finally:
            enforcing.gateway("nft", "delete", "table", "inet", "foreign")


class TestSourceRouting:
    """The sender names the way: past the gateway's decision, if it were let."""

    @pytest.fixture(params=["enforce", "observe"])
    def mode(self, enforcing, request):
        for node, device in ((enforcing.gateway, "wgd0"), (enforcing.lan, "inner")):
            for name in ("all", device):
                node("sysctl", "-q", f"net.ipv4.conf.{name}.accept_source_route=1")
        go_to(enforcing, mode=request.param)
        return request.param

    @pytest.mark.parametrize(
        ("option", "to"), [(LOOSE, "granted"), (LOOSE, "the tunnel address"), (STRICT, "the tunnel address")]
    )
    @pytest.mark.parametrize("gone", [0, 1])
    def test_by_ipv4_options_is_denied_and_passes_in_observe_alone(self, enforcing, mode, option, to, gone):
        """By way of the gateway itself, or on from a granted host; with a hop that is `gone` already, or none."""
        destination, next_hop = (World.LAN[0], World.OTHER[0]) if to == "granted" else (World.TUNNEL[0], World.LAN[0])
        hops = [socket.inet_aton(hop) for hop in (*["10.80.0.9"] * gone, next_hop)]
        # Type, length, pointer, addresses; one byte of padding (RFC 791, 3.1).
        route = struct.pack("!BBB", option, 3 + 4 * len(hops), 4 + 4 * gone) + b"".join(hops) + bytes(1)
        data = f"source route {option} to {to} in {mode}, {gone}".encode()
        segment = raw.udp_segment(alice(0), World.LAN[0], 4000, PORT, data)
        with Wire(enforcing.lan, "inner") as wire:
            raw.send(enforcing.alice, raw.ipv4(alice(0), destination, UDP, segment, options=route))
            assert wire.count(data) == (mode == "observe")

    @pytest.mark.parametrize("kind", [0, 2, 4])
    def test_by_an_ipv6_routing_header_is_denied_and_passes_in_observe_alone(self, enforcing, mode, kind):
        data = f"routing header {kind} in {mode}".encode()
        segment = raw.udp_segment(alice(1), World.LAN[1], 4000, PORT, data)
        header = struct.pack("!BBBBI16s", UDP, 2, kind, 1, 0, socket.inet_pton(socket.AF_INET6, World.OTHER[1]))
        with Wire(enforcing.lan, "inner") as wire:
            raw.send(enforcing.alice, raw.ipv6(alice(1), World.LAN[1], socket.IPPROTO_ROUTING, header + segment))
            assert wire.count(data) == (mode == "observe")


def unreachable(source, to, quoted):
    """Return an ICMP error of the family: the port of the quoted packet is closed."""
    if ":" in to:
        message = struct.pack("!BBHI", 1, 4, 0, 0) + quoted
        return raw.ipv6(source, to, ICMPV6, raw.transport(source, to, ICMPV6, message, 2))
    message = struct.pack("!BBHI", 3, 3, 0, 0) + quoted
    checked = message[:2] + struct.pack("!H", raw.ones_complement(message)) + message[4:]
    return raw.ipv4(source, to, ICMP, checked)


@FAMILIES
class TestForgedErrors:
    """Bob, who may reach the same host as alice, makes up an ICMP error about a flow of alice's."""

    def forged(self, world, family, flow, victim):
        """Send the error to one end of alice's flow, quoting what that end has sent; return whether it arrives."""
        near, far = flow.near.getsockname(), flow.far.getsockname()
        source, to = (near, far) if victim == "alice" else (far, near)
        data = f"quoted for {victim}".encode()
        quoted = raw.packet(source[0], to[0], UDP, raw.udp_segment(source[0], to[0], source[1], to[1], data))
        node, device = (world.alice, "wgd-office") if victim == "alice" else (world.lan, "inner")
        with Wire(node, device) as wire:
            raw.send(world.bob, unreachable(bob(family), source[0], quoted))
            return bool(wire.count(data))

    @pytest.mark.parametrize("victim", ["alice", "the host"])
    def test_reach_neither_end(self, enforcing, family, victim):
        with udp(enforcing.alice, enforcing.lan, World.LAN[family], PORT) as flow:
            assert not self.forged(enforcing, family, flow, victim)
            assert flow.passes()
            assert flow.passes(back=True)

    @pytest.mark.parametrize("victim", ["alice", "the host"])
    def test_reach_both_in_observe(self, enforcing, family, victim):
        go_to(enforcing, mode="observe")
        with udp(enforcing.alice, enforcing.lan, World.LAN[family], PORT) as flow:
            assert self.forged(enforcing, family, flow, victim)

    def test_are_told_from_those_that_a_client_may_send(self, enforcing, family):
        """A client speaks for its own end: its flow's peer hears that it has closed its port."""
        with udp(enforcing.alice, enforcing.lan, World.LAN[family], PORT) as flow:
            assert flow.passes(back=True)
            flow.near.close()
            flow.far.send(b"anybody there?")
            with pytest.raises(ConnectionRefusedError):
                flow.far.recv(64)


@FAMILIES
class TestInvalidState:
    """NAT leaves a packet alone that belongs to no flow: it would leave with the client's own address."""

    def leaks(self, world, family):
        sequence = 0x51DE0000 + family
        to = World.LAN[family]
        segment = raw.tcp_segment(alice(family), to, 4001, PORT, sequence=sequence, flags=RST)
        with Wire(world.lan, "inner") as wire:
            raw.send(world.alice, raw.packet(alice(family), to, socket.IPPROTO_TCP, segment))
            return bool(wire.count(struct.pack("!I", sequence)))

    def test_does_not_leave_under_masquerade(self, enforcing, family):
        go_to(enforcing, more="masquerade: [inner]\n")
        assert not self.leaks(enforcing, family)

    def test_leaves_with_the_clients_address_in_observe(self, enforcing, family):
        go_to(enforcing, more="masquerade: [inner]\n", mode="observe")
        assert self.leaks(enforcing, family)


@FAMILIES
class TestConntrackFlushedMidFlow:
    def flush(self, world):
        world.gateway("conntrack", "-F")

    def test_leaves_a_granted_flow_alive_and_lets_only_the_client_begin_it_anew(self, enforcing, family):
        with udp(enforcing.alice, enforcing.lan, World.LAN[family], PORT) as flow:
            assert flow.passes(back=True)
            self.flush(enforcing)
            assert not flow.passes(back=True), "what comes first from the network is no reply to anything"
            assert flow.passes()
            assert flow.passes(back=True)

    def test_brings_a_tcp_flow_back_with_the_clients_next_segment(self, enforcing, family):
        with tcp(enforcing.alice, enforcing.lan, World.LAN[family], PORT) as flow:
            self.flush(enforcing)
            assert flow.passes()
            assert flow.passes(back=True)

    def test_does_not_revive_what_was_revoked(self, enforcing, family):
        with (
            udp(enforcing.alice, enforcing.lan, World.LAN[family], PORT) as flow,
            tcp(enforcing.bob, enforcing.lan, World.LAN[family], PORT) as untouched,
        ):
            go_to(enforcing, REVOKED)
            self.flush(enforcing)
            assert not flow.passes(back=True)
            assert not flow.passes()
            assert untouched.passes()
            assert untouched.passes(back=True)


class Flood:
    """Denied packets of both families, as fast as one thread sends them, while the block lasts."""

    def __init__(self, world):
        self._packets = [
            raw.packet(alice(f), World.OTHER[f], UDP, raw.udp_segment(alice(f), World.OTHER[f], 4000, PORT, b"flood"))
            for f in (0, 1)
        ]
        self._world = world
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self):
        senders = [
            made_in(self._world.alice, INTERNET[family], socket.SOCK_RAW, socket.IPPROTO_RAW) for family in (0, 1)
        ]
        for family in itertools.cycle((0, 1)):
            if self._over.is_set():
                break
            senders[family].sendto(self._packets[family], (World.OTHER[family], 0))
        for sender in senders:
            sender.close()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


class TestStartAndStop:
    """The locks stand before the link and go after it: at no moment does a denied packet pass."""

    def again(self, world, **more):
        """Stop and start the gateway, and have alice begin a new session."""
        world.daemon.end()
        world.configure(POLICY, **more)
        world.daemon = world.serve()
        world.alice("wg", "set", "wgd-office", "peer", world.keys["gateway"], "remove")
        wait_until("a new session", lambda: world.alice.pings(World.TUNNEL[0]))

    def test_let_no_denied_packet_pass(self, enforcing):
        with Wire(enforcing.lan, "inner") as wire, Flood(enforcing):
            for _ in range(2):
                self.again(enforcing)
            assert wire.count(b"flood", 0.2) == 0
        dropped = enforcing.gateway("nft", "list", "chain", "inet", "wgd", "deny")
        assert "counter packets 0" not in dropped, "the flood was there"

    def test_would_be_seen_to(self, enforcing):
        """The control: in observe, the same flood arrives."""
        with Wire(enforcing.lan, "inner") as wire, Flood(enforcing):
            self.again(enforcing, mode="observe")
            assert wire.count(b"flood", most=10) == 10


class TestFullConntrackTable:
    def test_opens_nothing_and_leaves_flows_that_are_there_alone(self, enforcing):
        """Nothing new begins then, which is the kernel's own doing; nothing denied does either."""
        world = enforcing
        # What the tests before have left: to make room, the kernel drops what is closing or was never answered.
        world.gateway("conntrack", "-F")
        with tcp(world.alice, world.lan, World.LAN[0], PORT) as flow:
            fill(world.gateway)
            try:
                assert flow.passes()
                assert flow.passes(back=True)
                assert not world.alice.gets(World.OTHER[0])
                assert not world.alice.gets(World.OTHER[1])
                fill(world.gateway)
                assert not world.alice.gets(World.LAN[0]), "the table is full"
            finally:
                world.gateway("conntrack", "-F")
            assert world.alice.gets(World.LAN[0])
