"""The first config of a gateway that nobody has configured yet: tunnel networks and a port that are free."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import IPv4Interface, IPv6Interface

from wgd.model import AddressWithPrefix
from wgd.plan.state import Route

TUNNELS: tuple[tuple[AddressWithPrefix, ...], ...] = (
    tuple(
        IPv4Interface(text)
        for text in (
            *(f"10.{number}.0.1/24" for number in range(80, 90)),
            *(f"172.{number}.80.1/24" for number in range(31, 15, -1)),
            *(f"192.168.{number}.1/24" for number in range(180, 190)),
        )
    ),
    tuple(IPv6Interface(f"fd{number:x}::1/64") for number in range(0x80, 0x90)),
)
"""The gateway's address in the networks that are tried, of each family; the first that is free is taken. All are for
private use (RFC 1918, RFC 4193), and of three ranges: a route to all of 10.0.0.0/8 is common."""
PORTS = range(51820, 51830)


def tunnel(candidates: Iterable[AddressWithPrefix], routes: Iterable[Route]) -> tuple[AddressWithPrefix | None, str]:
    """Return the first address whose network no route overlaps, None when all do, and why the first was not taken.

    A default route is in nobody's way.
    """
    taken = [route for route in routes if route.destination.prefixlen > 0]
    why = ""
    for address in candidates:
        network = address.network
        in_the_way = next(
            (
                route
                for route in taken
                if route.destination.version == network.version and route.destination.overlaps(network)
            ),
            None,
        )
        if in_the_way is None:
            return address, why
        device = f" by {in_the_way.device}" if in_the_way.device is not None else ""
        why = why or f"{network} overlaps the route to {in_the_way.destination}{device}"
    return None, why


def port(taken: Collection[int]) -> int:
    """Return the first UDP port that is not taken, WireGuard's usual one where all are."""
    return next((number for number in PORTS if number not in taken), PORTS[0])


def config(template: str, addresses: Iterable[AddressWithPrefix], listen_port: int) -> str:
    """Return the text of the config: `template` with its places filled in."""
    written = ", ".join(f'"{address}"' if address.version == 6 else str(address) for address in addresses)  # noqa: PLR2004 - the IP version
    return template.replace("@ADDRESS@", f"[{written}]").replace("@LISTEN_PORT@", str(listen_port))
