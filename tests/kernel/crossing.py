"""A gateway in one namespace, with both its sides held by the test, where hundreds of packets cross in milliseconds.

          client ── wgd0 ─┐            ┌─ inner ── network
                  (a tun) │  gateway   │  (a tun)
                          └── raw ─────┘
                              sockets

`wgd0` stands in for the WireGuard interface, of which the ruleset knows only the name. A packet written to a tun is
one that the kernel received there; what the kernel sends out is read from it. What is delivered to the gateway itself
comes to raw sockets, which take no part in it, and the gateway's own packets are sent by one. What the kernel would
say by itself (resets, port unreachable, echo replies) is dropped before conntrack sees it: the test says it all.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import select
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from packets import ESP, EXPERIMENTAL, GRE, SCTP, TCP, UDP, UDPLITE, Packet, number_of
from pyroute2 import NFCTSocket, netns

from wgd.daemon.table import Table
from wgd.kernel.links import Links
from wgd.kernel.nft import Nft
from wgd.model import ICMP, ICMPV6, ServerConfig
from wgd.plan.routing import change, desired_addresses, desired_routes, desired_rules
from wgd.plan.state import RoutingRule
from wgd.policy.table import desired_ruleset

PATIENCE = 5.0
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
IPV6_HDRINCL = 36  # linux/in6.h
SENT = 0x77
"""The mark of what the test lets the gateway say."""
AUTHORISED_TTL = 77
SYSCTLS = {
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv4/ip_forward": "1",
    "ipv6/conf/default/addr_gen_mode": "1",
    "ipv6/conf/all/forwarding": "1",
    "netfilter/nf_conntrack_checksum": "0",
}
LISTENED = {4: (ICMP, TCP, UDP, GRE, ESP, SCTP, UDPLITE, EXPERIMENTAL)}
LISTENED[6] = tuple(ICMPV6 if proto == ICMP else proto for proto in LISTENED[4])


class Place(Enum):
    """Where a packet enters or arrives."""

    CLIENTS = "the clients' side"
    NETWORK = "the network's side"
    GATEWAY = "the gateway itself"


@dataclass(frozen=True)
class Arrival:
    """Where a packet came out. `authorised`: it carried our mark there, None where the gateway is one of its ends."""

    place: Place
    authorised: bool | None


@dataclass(frozen=True)
class Letter:
    """A packet and where it begins its way. `error`: not the packet, but an ICMP error about it."""

    place: Place
    packet: Packet
    error: bool = False

    def to_bytes(self, number: int) -> bytes:
        """Return what is sent, with the number by which it is known again."""
        return self.packet.error_bytes(number) if self.error else self.packet.to_bytes(number)

    def __str__(self) -> str:
        return f"error about {self.packet}" if self.error else str(self.packet)


class Crossing:
    """The gateway. Made in its network namespace, in which the caller stays."""

    def __init__(self, config: ServerConfig, inner: Iterable[str], last: Sequence[Letter]) -> None:
        """Set everything up for configs with the interface, peers and routing of this one.

        `inner` are the addresses of the network's side; `last` are letters that every config lets through, one to each
        place: when they have arrived, whatever was sent before has arrived, too, or never will.
        """
        self._numbers = itertools.count(1)
        self._last = last
        for name, value in SYSCTLS.items():
            Path("/proc/sys/net", name).write_text(value)
        self._doors = {Place.CLIENTS: tun(config.interface.name), Place.NETWORK: tun("inner")}
        self._links, self._table, self._conntrack = Links(), Table(), NFCTSocket()
        self._raw = {4: raw(4, socket.IPPROTO_RAW), 6: raw(6, socket.IPPROTO_RAW)}
        for version, option in ((4, (socket.IPPROTO_IP, socket.IP_HDRINCL)), (6, (socket.IPPROTO_IPV6, IPV6_HDRINCL))):
            self._raw[version].setsockopt(*option, 1)
            self._raw[version].setsockopt(socket.SOL_SOCKET, socket.SO_MARK, SENT)
        self._ears = [raw(version, protocol) for version, protocols in LISTENED.items() for protocol in protocols]
        self._wire(config, inner)
        self._rules: tuple[RoutingRule, ...] = ()

    def _wire(self, config: ServerConfig, inner: Iterable[str]) -> None:
        link = self._links.find(config.interface.name)
        assert link is not None
        self._links.set_up(link, up=True)
        commands = ["link set lo up", "link set inner up"]
        commands += [f"address add {address} dev inner" for address in inner]
        commands += ["-4 route add default dev inner", "-6 route add default dev inner"]
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)
        for address in desired_addresses(config):
            self._links.add_address(link, address)
        for route in desired_routes(config):
            self._links.add_route(route)
        bit = config.routing.mark
        with contextlib.closing(Nft()) as door:
            door.apply(
                (
                    "add table inet crossing",
                    "add chain inet crossing quiet { type filter hook output priority -300; }",
                    f"add rule inet crossing quiet meta mark != {SENT} drop",
                    "add chain inet crossing show { type filter hook postrouting priority 2000; }",
                    f"add rule inet crossing show meta mark & {bit} != 0 ip ttl set {AUTHORISED_TTL}",
                    f"add rule inet crossing show meta mark & {bit} != 0 ip6 hoplimit set {AUTHORISED_TTL}",
                )
            )

    def close(self) -> None:
        self._links.close()
        self._table.close()
        self._conntrack.close()
        for door in self._doors.values():
            os.close(door)
        for made in (*self._raw.values(), *self._ears):
            made.close()

    def forget(self) -> None:
        """Be as if no config had ever been loaded and no flow begun."""
        self._table.delete()
        self._conntrack.flush()

    def load(self, config: ServerConfig, held: frozenset[int]) -> None:
        """Go over to a config, from the one before it or from none, as the daemon does."""
        self._table.set(desired_ruleset(config, held))
        rules = desired_rules(config)
        difference = change(rules, self._rules)
        for rule in difference.add:
            self._links.add_rule(rule)
        for rule in difference.remove:
            self._links.remove_rule(rule)
        self._rules = rules

    def send(self, letters: Sequence[Letter]) -> list[Arrival | None]:
        """Send all letters and return where each arrived, None for nowhere."""
        numbered = {next(self._numbers): letter for letter in (*letters, *self._last)}
        for number, letter in numbered.items():
            self._post(letter, letter.to_bytes(number))
        places = self._collect(frozenset(list(numbered)[len(letters) :]))
        assert places.keys() <= numbered.keys(), "a packet arrived that was not sent in this round"
        return [
            _arrival(letter, places[number]) if number in places else None
            for number, letter in zip(numbered, letters, strict=False)
        ]

    def _post(self, letter: Letter, data: bytes) -> None:
        door = self._doors.get(letter.place)
        if door is not None:
            os.write(door, data)
        else:
            to = letter.packet.destination
            # What the output chain drops is refused to the sender.
            with contextlib.suppress(PermissionError):
                self._raw[to.version].sendto(data, (str(to), 0))

    def _collect(self, last: frozenset[int]) -> dict[int, tuple[Place, bytes]]:
        """Return where and how each packet arrived, by its number; everything has when the last letters have."""
        places = {door: place for place, door in self._doors.items()} | {
            ear.fileno(): Place.GATEWAY for ear in self._ears
        }
        poll = select.poll()
        for descriptor in places:
            poll.register(descriptor, select.POLLIN)
        arrived: dict[int, tuple[Place, bytes]] = {}
        while ready := poll.poll(0 if last <= arrived.keys() else PATIENCE * 1000):
            for descriptor, _ in ready:
                data = os.read(descriptor, 4096)
                number = number_of(data)
                if number is not None:
                    assert number not in arrived, "a packet arrived twice"
                    arrived[number] = places[descriptor], data
        assert last <= arrived.keys(), "a packet that every config lets through did not arrive"
        return arrived


def _arrival(letter: Letter, found: tuple[Place, bytes]) -> Arrival:
    place, data = found
    if Place.GATEWAY in (letter.place, place):
        return Arrival(place, None)
    ttl = data[8 if letter.packet.source.version == 4 else 7]
    return Arrival(place, ttl == AUTHORISED_TTL)


def tun(name: str) -> int:
    """Return the descriptor of a new tun interface, which lives as long as it is open."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


def raw(version: int, protocol: int) -> socket.socket:
    return socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_RAW, protocol)


@contextlib.contextmanager
def crossing(config: ServerConfig, inner: Iterable[str], last: Sequence[Letter]) -> Iterator[Crossing]:
    """A crossing in a namespace of its own, in which the caller is for the time of the block."""
    namespace = f"wgdt{os.getpid()}crossing"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    try:
        netns.pushns(namespace)
        try:
            with contextlib.closing(Crossing(config, inner, last)) as made:
                yield made
        finally:
            netns.popns()
    finally:
        subprocess.run(["ip", "netns", "delete", namespace], check=True)
