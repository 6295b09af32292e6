"""What the kernel holds, or shall hold: the values that the doors read and the plans compare.

Desired and actual have the same types, so that a diff is a comparison and a second apply finds nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum, auto

from wgd.model import Address, AddressWithPrefix, Endpoint, Network, PublicKey, SecretKey
from wgd.policy.ruleset import Element


@dataclass(frozen=True)
class DevicePeer:
    """A peer on a WireGuard device. `endpoint` has a literal address. `persistent_keepalive` is in seconds, 0 is off.

    `last_handshake` is seconds since the epoch, 0 for never; it and the byte counters are the kernel's
    report and take no part in comparison. In a desired peer an `endpoint` of None leaves the kernel's alone.
    """

    public_key: PublicKey
    allowed_ips: frozenset[Network]
    preshared_key: SecretKey | None = None
    endpoint: Endpoint | None = None
    persistent_keepalive: int = 0
    last_handshake: float = field(default=0, compare=False)
    rx_bytes: int = field(default=0, compare=False)
    tx_bytes: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Device:
    """A WireGuard device. In a desired device a `listen_port` of None leaves the kernel's choice alone."""

    name: str
    private_key: SecretKey | None
    listen_port: int | None
    peers: tuple[DevicePeer, ...] = ()
    fwmark: int = 0


@dataclass(frozen=True)
class PeerChange:
    """One peer's part of a DeviceChange. A field that is None is left as it is.

    `remove` takes the peer away. `create` False means that the peer must exist already (UPDATE_ONLY). `allowed_ips`
    are added to what is there, or with `replace_allowed_ips` take its place; the peer's session stays either way.
    `clear_preshared_key` sets that key to zero.
    """

    public_key: PublicKey
    remove: bool = False
    create: bool = False
    preshared_key: SecretKey | None = None
    clear_preshared_key: bool = False
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None
    replace_allowed_ips: bool = False
    allowed_ips: tuple[Network, ...] = ()


@dataclass(frozen=True)
class DeviceChange:
    """What to set on a WireGuard device; None and empty leave things as they are. False when there is nothing to do."""

    private_key: SecretKey | None = None
    listen_port: int | None = None
    peers: tuple[PeerChange, ...] = ()

    def __bool__(self) -> bool:
        return self.private_key is not None or self.listen_port is not None or bool(self.peers)


PROTOCOL = 119
CLIENT_PROTOCOL = 118
"""Who added a route or rule, for rtnetlink (`rtm_protocol`, FRA_PROTOCOL), the gateway or a client. Values over 4 are
the programs' own to choose (linux/rtnetlink.h), and these two are in no list of `rt_protos` we know of. They tell ours
from the host's after a crash."""


@dataclass(frozen=True)
class Link:
    """A network device. `kind` is the kernel's (`wireguard`, `tun`, `veth`, '' for a physical one)."""

    index: int
    name: str
    kind: str
    mtu: int
    up: bool


@dataclass(frozen=True)
class DeviceAddress:
    """An address of a link. `noprefixroute` keeps the kernel from adding a route for its network."""

    address: AddressWithPrefix
    noprefixroute: bool = False


@dataclass(frozen=True)
class Route:
    """A route. `kind` is `unicast`, `prohibit`, `unreachable`, `blackhole`, …; `device` is a link's name or None."""

    destination: Network
    table: int
    kind: str = "unicast"
    device: str | None = None
    gateway: Address | None = None
    metric: int = 0
    protocol: int = PROTOCOL


@dataclass(frozen=True)
class Way:
    """Where the kernel would send a packet: `kind` is that of the route, None with the kernel's word in `refusal`."""

    kind: str | None
    refusal: str | None = None


@dataclass(frozen=True)
class RoutingRule:
    """A policy routing rule (`ip rule`) of one family (4 or 6). `mark`/`mask` 0/0 match every packet.

    `action` is `lookup` (with `table`) or `prohibit`; `incoming` is the iif, None for any; `to` the destinations, None
    for all.
    """

    family: int
    priority: int
    action: str
    table: int = 0
    mark: int = 0
    mask: int = 0
    incoming: str | None = None
    protocol: int = PROTOCOL
    to: Network | None = None


class Action(Enum):
    """What to do with elements of a set; FLUSH takes all out, whatever they are."""

    ADD = auto()
    DELETE = auto()
    FLUSH = auto()


@dataclass(frozen=True)
class ElementChange:
    """Elements of one set or verdict map of our table; those to be added to a map are a dict to the chains' names.

    `interval` is False for a set that holds single values. `timeout` is after how many seconds the kernel drops them.
    """

    action: Action
    name: str
    fields: tuple[str, ...] = ()
    elements: Collection[Element] = ()
    interval: bool = True
    timeout: float | None = None


Transaction = str | tuple[ElementChange, ...]
"""What nftables takes whole or not at all: text as nft reads it, or changes of elements."""
