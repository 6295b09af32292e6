"""Small worlds where policies of every shape meet: nested prefixes, both ends of the address space, own addresses."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_interface, ip_network

from hypothesis import strategies as st

from wgd.model import (
    ICMP,
    ICMPV6,
    PORT_PROTOCOLS,
    Address,
    AllowRule,
    AuthzMode,
    Backend,
    Interface,
    Logging,
    Peer,
    Place,
    Policy,
    PortRange,
    PublicKey,
    Rule,
    ServerConfig,
)
from wgd.policy.decide import Flow

TUNNEL = ("10.80.0.1", "fd80::1")
"""The tunnel's addresses of the gateway."""
OWN = (ip_address("10.20.0.2"), ip_address("fd20::2"))
"""The gateway's other addresses."""
GRE = 47
ENDS = (4_102_444_800, 4_102_444_801)
"""The first second of 2100 and the next one."""
NETWORKS = {
    4: (
        *("0.0.0.0/0", "0.0.0.0/32", "128.0.0.0/1", "255.255.255.255/32", "10.0.0.0/8", "10.20.0.0/24", "10.20.0.0/30"),
        *("10.20.0.0/31", "10.20.0.2/31", "10.20.0.1/32", "10.20.0.2/32", "10.20.0.3/32", "10.20.0.4/32"),
        *("10.20.1.0/24", "10.80.0.0/24", "10.80.0.1/32", "10.80.0.2/32"),
    ),
    6: (
        *("::/0", "::/128", "8000::/1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "fd00::/8", "fd20::/64"),
        *("fd20::/126", "fd20::/127", "fd20::2/127", "fd20::1/128", "fd20::2/128", "fd20::3/128", "fd20::4/128"),
        *("fd20:0:0:1::/64", "fd80::/64", "fd80::1/128", "fd80::2/128"),
    ),
}
PORTS = (1, 2, 79, 80, 81, 443, 65534, 65535)
PEERS = (
    ("alice", ("10.80.0.2/32", "fd80::2/128")),
    ("bob", ("10.80.0.3/32",)),
    ("site", ("10.81.0.0/16", "10.81.7.0/24", "fd81::/64", "fd81::7/128", "10.82.0.0/24", "10.82.1.0/24")),
)
CLIENTS = tuple(PublicKey(name.encode().ljust(32, b".")) for name, _ in PEERS)
SOURCES = {
    client: tuple(address.network_address for address in map(ip_network, networks))
    for client, (_, networks) in zip(CLIENTS, PEERS, strict=True)
}


def server_config(*rules: Rule, mode: AuthzMode = AuthzMode.ENFORCE, logging: bool = False) -> ServerConfig:
    """Return a gateway with PEERS and these rules."""
    addresses = (ip_interface(f"{TUNNEL[0]}/24"), ip_interface(f"{TUNNEL[1]}/64"))
    return ServerConfig(
        interface=Interface("wgd0", addresses, 51820, "/etc/wgd/server.key", None, Backend.AUTO),
        authz_mode=mode,
        peers=tuple(
            Peer(name, client, tuple(map(ip_network, networks)))
            for client, (name, networks) in zip(CLIENTS, PEERS, strict=True)
        ),
        policy=Policy(tuple(rules)),
        logging=Logging(enabled=logging),
    )


def allow(to: str, proto: int | None = None, *ports: int | tuple[int, int], path: str = "") -> AllowRule:
    """Return an allow rule; a port is a number or (first, last)."""
    ranges = tuple(PortRange(port, port) if isinstance(port, int) else PortRange(*port) for port in ports)
    return AllowRule(ip_network(to), proto, ranges, Place("server.yaml", 1, path))


def rule(*entries: AllowRule, clients: Iterable[PublicKey] = CLIENTS[:1], name: str | None = "web") -> Rule:
    """Return a policy rule, alice's unless told otherwise."""
    return Rule(name, tuple(clients), entries, "server.yaml")


@st.composite
def port_ranges(draw: st.DrawFn) -> PortRange:
    first, last = sorted((draw(st.sampled_from(PORTS)), draw(st.sampled_from(PORTS))))
    return PortRange(first, last)


@st.composite
def allow_rules(draw: st.DrawFn) -> AllowRule:
    family = draw(st.sampled_from((4, 6)))
    to = ip_network(draw(st.sampled_from(NETWORKS[family])))
    proto = draw(st.sampled_from((None, 6, 6, 17, 132, GRE, ICMP if family == 4 else ICMPV6)))
    ports = draw(st.lists(port_ranges(), max_size=3)) if proto in PORT_PROTOCOLS else []
    return AllowRule(to, proto, tuple(ports))


def rules() -> st.SearchStrategy[Rule]:
    clients = st.lists(st.sampled_from(CLIENTS), min_size=1, max_size=2, unique=True).map(tuple)
    return st.builds(
        Rule,
        name=st.just("r"),
        clients=clients,
        allow=st.lists(allow_rules(), min_size=1, max_size=6).map(tuple),
        allow_from=st.lists(allow_rules(), max_size=3).map(tuple),
        until=st.sampled_from((None, None, *ENDS)),
    )


@st.composite
def configs(draw: st.DrawFn) -> ServerConfig:
    """Give configs with up to four rules of up to six entries for up to three clients."""
    mode = draw(st.sampled_from(AuthzMode))
    return server_config(*draw(st.lists(rules(), max_size=4)), mode=mode, logging=draw(st.booleans()))


def edges(family: int) -> tuple[Address, ...]:
    """Return the first and last address of every network of NETWORKS and their neighbours."""
    top = 2 ** (32 if family == 4 else 128) - 1
    ends = {int(end) for network in map(ip_network, NETWORKS[family]) for end in (network[0], network[-1])}
    kind = type(OWN[0 if family == 4 else 1])
    return tuple(kind(near) for near in sorted({end + step for end in ends for step in (-1, 0, 1)}) if 0 <= near <= top)


EDGES = {family: edges(family) for family in (4, 6)}


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    """Give first packets to addresses at the edges of NETWORKS; only protocols with ports have one."""
    family = draw(st.sampled_from((4, 6)))
    proto = draw(st.sampled_from((6, 17, 132, GRE, ICMP if family == 4 else ICMPV6)))
    port = draw(st.sampled_from((*PORTS, 3, 82, 444))) if proto in PORT_PROTOCOLS else None
    return Flow(draw(st.sampled_from(CLIENTS)), draw(st.sampled_from(EDGES[family])), proto, port)
