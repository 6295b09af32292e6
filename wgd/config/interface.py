"""The `interface` section, which the gateway's and the client's config share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wgd.config.peers import problem_at, repeated, where
from wgd.config.schema import Validator, some
from wgd.config.values import file_path, integer, interface_name, one_of, port
from wgd.errors import Problem
from wgd.model import AddressWithPrefix, Backend, Interface, Place

SMALLEST_MTU = 576
"""What every IPv4 host takes (RFC 791)."""
SMALLEST_MTU_IPV6 = 1280
"""What every IPv6 link carries (RFC 8200); below it the kernel takes IPv6 off an interface."""

INTERFACE_FIELDS: dict[str, Validator] = {
    "name": interface_name,
    "address": some,
    "listen_port": port,
    "private_key_file": file_path,
    "mtu": integer(SMALLEST_MTU, 65535),
    "backend": one_of(Backend),
}


def check_addresses(
    addresses: Sequence[tuple[AddressWithPrefix, Place]], mtu: int | None, mtu_place: Place | None
) -> Iterator[Problem]:
    """Yield what is wrong with the addresses among each other and with the MTU, which is None when it is not given."""
    for ip, place, first in repeated((address.ip, place) for address, place in addresses):
        yield problem_at(place, f"{ip} is given already in {where(first)}: keep one of the two")
    has_ipv6 = any(address.ip.max_prefixlen > 32 for address, _place in addresses)  # noqa: PLR2004  # IPv4's
    if mtu is not None and mtu_place is not None and has_ipv6 and mtu < SMALLEST_MTU_IPV6:
        yield problem_at(
            mtu_place, f"must be at least {SMALLEST_MTU_IPV6}, which IPv6 needs, or take the IPv6 address out"
        )


def read_interface(
    values: Mapping[str, Any], addresses: Sequence[tuple[AddressWithPrefix, Place]], place: Place
) -> Interface:
    """Return the interface from values that have been checked; `name` is among them."""
    return Interface(
        name=values["name"],
        address=tuple(address for address, _place in addresses),
        listen_port=values.get("listen_port"),
        private_key_file=values.get("private_key_file"),
        mtu=values.get("mtu"),
        backend=values.get("backend", Backend.AUTO),
        place=place,
    )
