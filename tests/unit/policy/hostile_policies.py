"""Policies that a careless or hostile operator may write, as allow entries; each is right, however it looks."""

from ipaddress import ip_network

from wgd.model import AllowRule, PortRange

TCP = 6


def every_host_of(network: str) -> tuple[AllowRule, ...]:
    return tuple(AllowRule(host, TCP, (PortRange(80, 80),)) for host in ip_network(network).subnets(new_prefix=32))


def every_host() -> tuple[AllowRule, ...]:
    return every_host_of("10.20.0.0/22")


def every_other_host() -> tuple[AllowRule, ...]:
    return every_host()[::2]


def everything() -> tuple[AllowRule, ...]:
    return tuple(AllowRule(ip_network(network)) for network in ("0.0.0.0/0", "::/0"))


def ports_at_the_edges() -> tuple[AllowRule, ...]:
    ranges = ((1, 1), (65535, 65535), (1, 65535), (65534, 65535), (1, 2))
    return tuple(AllowRule(ip_network("10.20.0.0/24"), TCP, (PortRange(*ports),)) for ports in ranges)


def every_overlap() -> tuple[AllowRule, ...]:
    """Give nested networks with port ranges that are equal, nested, overlapping, touching and apart."""
    networks = ("0.0.0.0/0", "10.0.0.0/8", "10.20.0.0/16", "10.20.0.0/24", "10.20.0.0/31", "10.20.0.1/32")
    ranges = ((80, 90), (80, 90), (82, 85), (85, 95), (91, 99), (1, 79), (200, 300))
    with_ports = (AllowRule(ip_network(to), TCP, (PortRange(*ports),)) for to in networks for ports in ranges)
    without = (AllowRule(ip_network(to), proto) for to in networks[2:] for proto in (None, TCP, 17, 1))
    return (*with_ports, *without)


def every_other_port_twice() -> tuple[AllowRule, ...]:
    """Give a network every other port, and a host in it every third: quadratic for a compiler that is careless."""
    outer = tuple(PortRange(port, port) for port in range(1, 65536, 2))
    inner = tuple(PortRange(port, port) for port in range(1, 65536, 3))
    return (
        AllowRule(ip_network("10.20.0.0/24"), TCP, outer),
        AllowRule(ip_network("10.20.0.9/32"), TCP, inner),
    )


POLICIES = {
    made.__name__: made
    for made in (
        every_host,
        every_other_host,
        everything,
        ports_at_the_edges,
        every_overlap,
        every_other_port_twice,
    )
}
