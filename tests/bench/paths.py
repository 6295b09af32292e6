"""A client, a gateway and a server joined by cables, and a sender that measures what a packet through them costs.

The cables are veth pairs: a packet goes from the client's send call through the gateway to the server's first hook
on one CPU, so that the sender's CPU time is the time of the whole way. The gateway's interface is called wgd0 as a
WireGuard one would be; encryption is not what is measured.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Self

from pyroute2 import netns
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

AT_ONCE = 64
PAYLOAD = bytes(18)
IPV6_HDRINCL = 36
_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr of recvmsg(2)."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.POINTER(_IoVec)),
        ("vectors", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr of recvmmsg(2)."""

    _fields_ = (("header", _Header), ("sent", ctypes.c_uint))


class Burst:
    """Datagrams that one system call sends."""

    def __init__(self, datagrams: list[bytes], to: bytes | None = None) -> None:
        self._kept = [ctypes.create_string_buffer(datagram, len(datagram)) for datagram in datagrams]
        self._vectors = [_IoVec(ctypes.addressof(kept), len(kept)) for kept in self._kept]
        self._to = ctypes.create_string_buffer(to, len(to)) if to is not None else None
        address, length = (ctypes.addressof(self._to), len(self._to)) if self._to is not None else (None, 0)
        self._messages = (_Message * len(datagrams))(
            *(_Message(_Header(address, length, ctypes.pointer(found), 1, None, 0, 0), 0) for found in self._vectors)
        )

    def send(self, out: socket.socket) -> None:
        sent = 0
        while sent < len(self._messages):
            # A call stops early where the kernel had to wait for room.
            now = _libc.sendmmsg(out.fileno(), ctypes.byref(self._messages[sent]), len(self._messages) - sent, 0)
            if now < 0:
                raise OSError(ctypes.get_errno(), f"sendmmsg: {os.strerror(ctypes.get_errno())}")
            sent += now


class Path:
    """Three namespaces of their own; `gateway` is the name of the middle one."""

    def __init__(self) -> None:
        name = f"wgdb{os.getpid()}n{next(_numbers)}"
        self.client, self.gateway, self.server = f"{name}c", f"{name}g", f"{name}s"
        self.filtered = ("wgd0", "inner")
        self._made: list[str] = []

    def __enter__(self) -> Self:
        try:
            for name in (self.client, self.gateway, self.server):
                command("ip", "netns", "add", name)
                self._made.append(name)
            self._join()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._made:
            command("ip", "netns", "delete", name)
        self._made.clear()

    def _join(self) -> None:
        for one, device, mac, other, far, far_mac in (
            (self.client, "wan", "02:00:00:00:00:02", self.gateway, "wgd0", "02:00:00:00:00:01"),
            (self.gateway, "inner", "02:00:00:00:01:01", self.server, "inner", "02:00:00:00:01:02"),
        ):
            command(
                *("ip", "link", "add", device, "address", mac, "netns", one),
                *("type", "veth", "peer", "name", far, "address", far_mac, "netns", other),
            )
        for name in (self.client, self.gateway, self.server):
            for setting in ("net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0"):
                inside(name, "sysctl", "-q", "-w", setting)
        for name, devices in ((self.client, ["wan"]), (self.gateway, ["wgd0", "inner"]), (self.server, ["inner"])):
            for device in (*devices, "lo"):
                inside(name, "ip", "link", "set", device, "up")
        inside(self.gateway, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for version, clients, servers, ours in (
            ("-4", "10.80.0.0/14", "172.16.0.0/12", "10.80.0.1"),
            ("-6", "fd80::/64", "fd20::/64", "fd80::1"),
        ):
            # Neighbours are known beforehand: WireGuard has none.
            via = (ours, "wan", "02:00:00:00:00:01")
            self._route(version, self.client, "default", via)
            inside(self.gateway, "ip", version, "route", "add", servers, "dev", "inner")
            self._route(version, self.server, clients, (ours, "inner", "02:00:00:00:01:01"))

    def _route(self, version: str, name: str, network: str, via: tuple[str, str, str]) -> None:
        gateway, device, mac = via
        inside(name, "ip", version, "neigh", "add", gateway, "lladdr", mac, "dev", device, "nud", "permanent")
        inside(name, "ip", version, "route", "add", network, "via", gateway, "dev", device, "onlink")

    def filter_reverse_path(self, value: int) -> None:
        """Set what the host's rp_filter is: 0, the kernel's default, or 2, Debian 13's (linux-sysctl-defaults).

        Where wgd is in charge of wgd0, it sets that one itself.
        """
        settings = (f"net.ipv4.conf.{name}.rp_filter={value}" for name in self.filtered)
        inside(self.gateway, "sysctl", "-q", "-w", *settings)

    def hosts(self, client: str, server: str) -> None:
        """Give the client and the server an address each."""
        version, length = ("-6", "128") if ":" in client else ("-4", "32")
        inside(self.client, "ip", version, "addr", "add", f"{client}/{length}", "dev", "lo")
        inside(self.server, "ip", version, "addr", "add", f"{server}/{length}", "dev", "lo")
        for address, device, mac in (
            (client, "wgd0", "02:00:00:00:00:02"),
            (server, "inner", "02:00:00:00:01:02"),
        ):
            inside(
                self.gateway, "ip", version, "neigh", "add", address, "lladdr", mac, "dev", device, "nud", "permanent"
            )

    def flow(self, client: str, server: str, port: int) -> Flow:
        """Return an established UDP flow."""
        return Flow(self, client, server, port)


class Flow:
    """A UDP flow from client to server, answered; then both ends drop what arrives as early as they can."""

    def __init__(self, path: Path, client: str, server: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in client else socket.AF_INET
        self._path, self._to = path, (client, server, port)
        with within(path.server):
            self._back = socket.socket(family, socket.SOCK_DGRAM)
        with within(path.client):
            self._out = socket.socket(family, socket.SOCK_DGRAM)
            raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._raw = raw
        self._back.bind((server, port))
        self._back.settimeout(2)
        self._out.settimeout(2)
        self._out.bind((client, 0))
        self._out.connect((server, port))
        self._out.send(b"first")
        _, sender = self._back.recvfrom(64)
        self._back.connect(sender)
        for answer in (b"answer", b"answered"):
            self._back.send(answer)
            self._out.recv(64)
        protocol = "ip6" if family == socket.AF_INET6 else "ip"
        table = f"sink{6 if family == socket.AF_INET6 else 4}"
        for name, arriving in ((path.server, port), (path.client, sender[1])):
            inside(
                name,
                "nft",
                f"table {protocol} {table} {{ chain c {{ type filter hook prerouting priority -500;"
                f" udp dport {arriving} counter drop; }}; }}",
            )
        self._counter = (protocol, table)
        self._out.settimeout(None)
        self._back.settimeout(None)
        self._burst = Burst([PAYLOAD] * AT_ONCE)
        self._firsts = self._first_packets()

    def close(self) -> None:
        self._out.close()
        self._back.close()
        self._raw.close()

    def arrived(self) -> int:
        """Return how many packets have arrived at both ends."""
        ends = (self._path.server, self._path.client)
        listed = [inside(name, "nft", "list", "table", *self._counter) for name in ends]
        return sum(int(found.split("counter packets ")[1].split()[0]) for found in listed)

    def establish(self) -> None:
        """Have each end send to the other, so that conntrack knows the flow, and knows it answered."""
        for _ in range(2):
            self._out.send(b"question")
            self._back.send(b"answer")

    def seconds_a_packet(self, bursts: int, *, back: bool = False) -> float:
        """Return what a packet of the established flow takes, from client to server or back."""
        sender = self._back if back else self._out
        begun = time.thread_time()
        for _ in range(bursts):
            self._burst.send(sender)
        return (time.thread_time() - begun) / bursts / AT_ONCE

    def seconds_a_first_packet(self) -> float:
        """Return what the first packet of a flow takes; the gateway has no flow but those that this makes."""
        with within(self._path.gateway), NFCTSocket() as conntrack:
            conntrack.flush()
        begun = time.thread_time()
        for burst in self._firsts:
            burst.send(self._raw)
        return (time.thread_time() - begun) / len(self._firsts) / AT_ONCE

    def _first_packets(self) -> list[Burst]:
        client, server, port = self._to
        source, destination = ip_address(client).packed, ip_address(server).packed
        length = 8 + len(PAYLOAD)
        if ip_address(client).version == 6:
            self._raw.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
            header = struct.pack(">LHBB", 6 << 28, length, 17, 64) + source + destination
            to = struct.pack("=HHL16sL", socket.AF_INET6, 0, 0, destination, 0)
            pseudo = source + destination + struct.pack(">LL", length, 17)
        else:
            header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0, 64, 17, 0, source, destination)
            to = struct.pack("=HH4s8s", socket.AF_INET, 0, destination, bytes(8))
            pseudo = source + destination + struct.pack(">BBH", 0, 17, length)

        def datagram(number: int) -> bytes:
            ports = struct.pack(">HHH", 20000 + number, port, length)
            check = _checksum(pseudo + ports + bytes(2) + PAYLOAD)
            return header + ports + struct.pack(">H", check) + PAYLOAD

        return [
            Burst([datagram(number) for number in range(first, first + AT_ONCE)], to)
            for first in range(0, 64 * AT_ONCE, AT_ONCE)
        ]


def _checksum(data: bytes) -> int:
    """Return the internet checksum (RFC 1071) of an even number of bytes; UDP's 0 means none and is written as ones."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF


@contextlib.contextmanager
def within(namespace: str) -> Iterator[None]:
    """Make what is opened here belong to a namespace."""
    netns.pushns(namespace)
    try:
        yield
    finally:
        netns.popns()


def command(*words: str, text: str | None = None) -> str:
    """Run a command and return what it printed; raise with its words when it fails."""
    done = subprocess.run(words, capture_output=True, text=True, input=text, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)[:200]} ended with {done.returncode}: {done.stderr[:500]}")
    return done.stdout


def inside(namespace: str, *words: str, text: str | None = None) -> str:
    """Run a command in a namespace."""
    return command("ip", "netns", "exec", namespace, *words, text=text)
