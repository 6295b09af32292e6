"""What the operator's files say, as frozen values.

Nothing here knows YAML, the kernel or the host. `Place` values say where a value was written; they take
no part in comparison, so that moving a line changes nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
)

Address = IPv4Address | IPv6Address
AddressWithPrefix = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

KEY_BYTES = 32
PROTOCOLS = {
    "icmp": 1,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "sctp": 132,
    "udplite": 136,
}
"""Protocol names to IANA numbers; `proto` in a rule may also be the number itself."""
PORT_PROTOCOLS = frozenset({6, 17, 33, 132, 136})
"""The protocols whose header begins with source and destination port."""
ICMP, ICMPV6 = 1, 58
IPV6_EXTENSION_HEADERS = frozenset({0, 43, 44, 51, 60})
"""Hop-by-hop, routing, fragment, authentication, destination: those that the kernel's ipv6_find_hdr passes over."""


@dataclass(frozen=True, order=True)
class PublicKey:
    """A peer's Curve25519 public key; `str()` is its base64 form, as `wg` prints it."""

    raw: bytes

    def __str__(self) -> str:
        return base64.b64encode(self.raw).decode("ascii")

    def __repr__(self) -> str:
        return f"PublicKey({self})"


@dataclass(frozen=True)
class SecretKey:
    """A private or preshared key. Neither `str()` nor `repr()` shows it (promise 8)."""

    raw: bytes = field(repr=False)

    def __str__(self) -> str:
        return "(hidden)"

    def clamped(self) -> SecretKey:
        """Return the private key as WireGuard stores and reads it back (RFC 7748, section 5, decodeScalar25519)."""
        return SecretKey(bytes([self.raw[0] & 248, *self.raw[1:31], self.raw[31] & 127 | 64]))


def key_bytes(text: str) -> bytes:
    """Return the 32 bytes of a base64 key as `wg` writes it; raise ValueError that never quotes the text."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("is not base64") from None
    if len(raw) != KEY_BYTES:
        raise ValueError(f"has {len(raw)} bytes, a WireGuard key has {KEY_BYTES}")
    if base64.b64encode(raw).decode("ascii") != text:
        raise ValueError("is not canonical base64")
    return raw


@dataclass(frozen=True)
class Place:
    """Where a value was written: file, line from 1, dotted key path counted in that file."""

    file: str
    line: int
    path: str


NOWHERE = Place("", 0, "")


class Backend(Enum):
    """Which WireGuard drives the interface."""

    AUTO = "auto"
    KERNEL = "kernel"
    USERSPACE = "userspace"


class AuthzMode(Enum):
    """Whether a packet that no rule covers is dropped (enforce) or only reported (observe)."""

    OBSERVE = "observe"
    ENFORCE = "enforce"


class DenyWith(Enum):
    """What enforce does with a packet that no rule covers: say nothing, or tell the sender."""

    DROP = "drop"
    REJECT = "reject"


class Forwarding(Enum):
    """Whether wgd switches forwarding on (auto) or the operator does (manual)."""

    AUTO = "auto"
    MANUAL = "manual"


@dataclass(frozen=True, order=True)
class Endpoint:
    """Where a peer is reached: `host` is a literal address or, on the client only, a name."""

    host: str
    port: int

    @property
    def address(self) -> Address | None:
        """The literal address, or None when `host` is a name that has to be looked up."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Interface:
    """The `interface` section. `private_key_file` None means $CREDENTIALS_DIRECTORY/private.key."""

    name: str
    address: tuple[AddressWithPrefix, ...]
    listen_port: int | None
    private_key_file: str | None
    mtu: int | None
    backend: Backend
    place: Place = field(default=NOWHERE, compare=False)


def _outermost(networks: Iterable[Network], family: int) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    ends = ((int(network[0]), -int(network[-1])) for network in networks if network.version == family)
    for first, minus_last in sorted(ends):
        if not found or -minus_last > found[-1][1]:
            found.append((first, -minus_last))
    return tuple(found)


@dataclass(frozen=True)
class Peer:
    """One client of the gateway. `persistent_keepalive` is in seconds, None is off."""

    name: str
    public_key: PublicKey
    allowed_ips: tuple[Network, ...]
    preshared_key_file: str | None = None
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None
    place: Place = field(default=NOWHERE, compare=False)

    @cached_property
    def elements(self) -> tuple[tuple[tuple[tuple[int, int]], ...], ...]:
        """The allowed_ips of IPv4, and those of IPv6, as elements of sets of addresses, without those in another."""
        return tuple(tuple((interval,) for interval in _outermost(self.allowed_ips, family)) for family in (4, 6))

    def elements_of(self, family: int) -> tuple[tuple[tuple[int, int]], ...]:
        """Return the elements of one family, 4 or 6: first and last address, in a tuple of one."""
        return self.elements[family == 6]  # noqa: PLR2004 - the IP version


@dataclass(frozen=True, order=True)
class PortRange:
    """Ports `first` to `last`, both included, 1 to 65535."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True)
class AllowRule:
    """One thing a client may reach. `proto` None is every protocol; `ports` empty is every port.

    `proto` is the IANA number. For an IPv6 destination a written `icmp` is 58 (ICMPv6) here. In `Rule.allow_from` it
    is one thing that may reach the client: `to` is then where the flow begins, and the ports are the client's.
    """

    to: Network
    proto: int | None = None
    ports: tuple[PortRange, ...] = ()
    place: Place = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Rule:
    """A policy rule: `clients` are public keys with peer names and groups already resolved, in order.

    `source` is the file's name relative to the main file's folder (`server.d/alice.yaml`). `allow_from` is what the
    network may begin towards the clients. `until` is when all of it ends, in POSIX seconds; None is never.
    """

    name: str | None
    clients: tuple[PublicKey, ...]
    allow: tuple[AllowRule, ...]
    source: str = ""
    place: Place = field(default=NOWHERE, compare=False)
    allow_from: tuple[AllowRule, ...] = ()
    until: int | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Digits that name whom it is about, what it grants, until when, and what events call each of its entries."""
        lines = [f"{' '.join(map(str, self.clients))} {self.until}"]
        labelled = [(self.label(index), entry) for index, entry in enumerate(self.allow)]
        labelled += [(self.label_from(index), entry) for index, entry in enumerate(self.allow_from)]
        lines += [f"{label} {entry.to} {entry.proto} {','.join(map(str, entry.ports))}" for label, entry in labelled]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def label(self, index: int) -> str:
        """Return what an event calls `allow[index]`: `NAME[INDEX]`, else the place it was written at."""
        if self.name is not None:
            return f"{self.name}[{index}]"
        return f"{self.source}:{self.allow[index].place.path}"

    def label_from(self, index: int) -> str:
        """Return what an event calls `allow_from[index]`: `NAME.allow_from[INDEX]`, else the place of it."""
        if self.name is not None:
            return f"{self.name}.allow_from[{index}]"
        return f"{self.source}:{self.allow_from[index].place.path}"


@dataclass(frozen=True)
class PolicyTest:
    """One line of `policy.tests`: `expect` True means allow. `port` is None where the protocol has none.

    `incoming`: it asks what `to` may begin towards the client, and `port` is the client's.
    """

    client: PublicKey
    to: Address
    proto: int
    port: int | None
    expect: bool
    place: Place = field(default=NOWHERE, compare=False)
    incoming: bool = False


@dataclass(frozen=True)
class Policy:
    """Every rule and policy test of all files, in file order."""

    rules: tuple[Rule, ...] = ()
    tests: tuple[PolicyTest, ...] = ()


@dataclass(frozen=True)
class Routing:
    """The routing table, packet mark bit and rule priority that wgd uses.

    `table + 1` and the three priorities after `priority` are ours too.
    """

    table: int = 7780
    mark: int = 0x10000000
    priority: int = 7780


class Record(Enum):
    """Of what passes, what the event log has lines for: the flows' beginnings and ends, or every packet."""

    FLOWS = "flows"
    PACKETS = "packets"


@dataclass(frozen=True)
class Logging:
    """Where events go. `nflog_group` is used for IPv4, the next one for IPv6; `journal`: to the journal too."""

    enabled: bool = False
    path: str = "/var/log/wgd/events.jsonl"
    nflog_group: int = 100
    record: Record = Record.FLOWS
    journal: bool = False

    @property
    def flows(self) -> bool:
        """Whether the log has lines for the beginnings and ends of flows."""
        return self.enabled and self.record is Record.FLOWS

    @property
    def packets(self) -> bool:
        """Whether the log has a line for every packet."""
        return self.enabled and self.record is Record.PACKETS


@dataclass(frozen=True)
class ServerConfig:
    """Everything /etc/wgd/server.yaml and its drop-ins say, checked as a whole."""

    interface: Interface
    authz_mode: AuthzMode
    peers: tuple[Peer, ...] = ()
    policy: Policy = Policy()
    logging: Logging = Logging()
    routing: Routing = Routing()
    forwarding: Forwarding = Forwarding.AUTO
    deny_with: DenyWith = DenyWith.DROP
    masquerade: tuple[str, ...] = ()
    """Interfaces by which what clients send leaves with the gateway's own address."""


@dataclass(frozen=True)
class ServerPeer:
    """The client's `server` section. `endpoints` are tried in order."""

    public_key: PublicKey
    endpoints: tuple[Endpoint, ...]
    allowed_ips: tuple[Network, ...]
    preshared_key_file: str | None = None
    persistent_keepalive: int | None = None
    place: Place = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Routes:
    """Where the client installs its routes. `table` is the kernel's number (main is 254)."""

    table: int = 254
    metric: int = 50


@dataclass(frozen=True)
class ClientConfig:
    """Everything /etc/wgd/client/NAME.yaml says."""

    name: str
    interface: Interface
    server: ServerPeer
    routes: Routes = Routes()
