"""Packets that come into a gateway by its interface and are logged there, and the mixes of them that are measured.

The interface is a tun device: like WireGuard's it has no link layer, and a packet that is written to it goes through
the gateway's hooks within the system call, so that what the kernel pays for logging it is never the reader's.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

from paths import command, inside, within
from raw import packet
from sizes import UDP, client, server

TCP, ICMP, ICMPV6 = 6, 1, 58
ECHO_REQUEST = {ICMP: 8, ICMPV6: 128}
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
CLIENTS, POLICIES, RULES = 1000, 10, 100
DENIED = 500
"""From this one on, a client's packets are denied."""
SCANNED = {4: "10.{}.{}.{}", 6: "fd40::{:x}:{:x}:{:x}"}
FIRST_PORT, PORTS = 32_768, 28_000
_numbers = itertools.count()


class Flow(NamedTuple):
    """What a packet says; `ports` are source and destination, for ICMP type and nothing."""

    source: str
    to: str
    protocol: int
    ports: tuple[int, int]

    @property
    def packet(self) -> bytes:
        if self.protocol in ECHO_REQUEST:
            segment = struct.pack("!BBHI", self.ports[0], 0, 0, 0)
        elif self.protocol == UDP:
            segment = struct.pack("!HHHH", *self.ports, 8, 0)
        else:
            segment = struct.pack("!HHIIHHI", *self.ports, 1, 0, 0x5002, 1000, 0)
        return packet(self.source, self.to, self.protocol, segment)


Mix = Callable[[int, int], Iterator[Flow]]
"""Yields so many flows for a round of this number."""


def repeating(family: int, ports: int = 8, denied: int = 0) -> Mix:
    """Clients that go to what their policy names, each with few source ports."""

    def mix(count: int, turn: int) -> Iterator[Flow]:
        draw = random.Random(turn)
        for _ in range(count):
            number = denied + draw.randrange(40)
            rule = draw.randrange(0, 40, 2) + (family == 6)
            to, port = server(number % POLICIES, rule, RULES)
            yield Flow(client(number, family), to, UDP, (FIRST_PORT + draw.randrange(ports), port))

    return mix


def mixed(count: int, turn: int) -> Iterator[Flow]:
    """Both families, UDP, TCP and pings, a tenth of them denied; packets of a kind do not come in a row."""
    draw = random.Random(turn)
    for _ in range(count):
        family = draw.choice((4, 6))
        number = draw.randrange(40) + (DENIED if draw.random() < 0.1 else 0)
        to, port = server(number % POLICIES, draw.randrange(0, 40, 2) + (family == 6), RULES)
        protocol = draw.choices((UDP, TCP, ICMP if family == 4 else ICMPV6), (5, 4, 1))[0]
        ports = (FIRST_PORT + draw.randrange(PORTS), port) if protocol in (UDP, TCP) else (ECHO_REQUEST[protocol], 0)
        yield Flow(client(number, family), to, protocol, ports)


def scan(family: int, denied: int = 0) -> Mix:
    """One client that looks at another address and another port with each packet, none of them twice."""

    def mix(count: int, turn: int) -> Iterator[Flow]:
        for number in range(turn * count, (turn + 1) * count):
            mingled = number * 7919 % (1 << 21)
            to = SCANNED[family].format(96 + (mingled >> 16), mingled >> 8 & 255, mingled & 255)
            yield Flow(client(denied, family), to, TCP, (FIRST_PORT + number % PORTS, 1 + number * 31 % 65_000))

    return mix


MIXES: dict[str, Mix] = {
    "IPv4, repeating destinations": repeating(4),
    "IPv6, repeating destinations": repeating(6),
    "mixed": mixed,
    "IPv4, a new source port every event": repeating(4, PORTS),
    "IPv4, an allowed scan": scan(4),
    "IPv4, a denied scan": scan(4, DENIED),
    "IPv6, an allowed scan": scan(6),
    "IPv6, a denied scan": scan(6, DENIED),
}


class Gateway:
    """A namespace with an interface named wgd0 into which packets are written, and the log rules that they meet."""

    def __init__(self, rules: str) -> None:
        self.namespace = f"wgdb{os.getpid()}e{next(_numbers)}"
        self._rules = rules

    def __enter__(self) -> Self:
        command("ip", "netns", "add", self.namespace)
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        command("ip", "netns", "delete", self.namespace)

    def _make(self) -> None:
        self._devices = {name: self._tun(name) for name in ("wgd0", "inner")}
        inside(self.namespace, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for name in self._devices:
            inside(self.namespace, "ip", "link", "set", name, "up")
        for network, device in (("10.80.0.0/14", "wgd0"), ("fd80::/64", "wgd0"), ("default", "inner")):
            for version in ("-4", "-6") if network == "default" else ("-6" if ":" in network else "-4",):
                inside(self.namespace, "ip", version, "route", "replace", network, "dev", device)
        inside(self.namespace, "nft", "-f", "-", text=self._rules)

    def _tun(self, name: str) -> int:
        with within(self.namespace):
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TUN | IFF_NO_PI))
        return device

    def send(self, packets: list[bytes]) -> None:
        """Send packets as fast as it goes."""
        write, device = os.write, self._devices["wgd0"]
        for one in packets:
            write(device, one)

    def send_paced(self, packets: list[bytes], rate: int, burst: int = 200) -> float:
        """Send `rate` packets a second, a burst at a time; return how many a second it came to."""
        begun = time.monotonic()
        for first in range(0, len(packets), burst):
            time.sleep(max(0.0, begun + first / rate - time.monotonic()))
            self.send(packets[first : first + burst])
        return len(packets) / (time.monotonic() - begun)
