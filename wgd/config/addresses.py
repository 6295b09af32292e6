"""Validators of addresses, networks and endpoints."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_network

from wgd.config.schema import RefusedError
from wgd.config.shown import shown
from wgd.config.values import leaf, port
from wgd.model import Address, AddressWithPrefix, Endpoint, Network

_PREFIX_LENGTHS = {str(length): length for length in range(129)}
_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*",
    re.ASCII,
)


def _address(text: str) -> Address:
    """Return a literal address without scope; IPv4-mapped IPv6 is refused, the kernel treats it as neither."""
    if ":" not in text:
        try:
            return IPv4Address(text)
        except ValueError:
            raise RefusedError(f"is not an IP address: {shown(text)}") from None
    try:
        address = IPv6Address(text)
    except ValueError:
        raise RefusedError(f"is not an IP address: {shown(text)}") from None
    if address.scope_id is not None:
        raise RefusedError(f"must not have a scope (%): {shown(text)}")
    if address.ipv4_mapped is not None:
        raise RefusedError(f"is IPv4-mapped IPv6: write it as IPv4, {address.ipv4_mapped}")
    return address


def _split(text: str) -> tuple[Address, int]:
    """Return address and prefix length; an address alone is a host."""
    address_text, slash, length_text = text.partition("/")
    address = _address(address_text)
    if not slash:
        return address, address.max_prefixlen
    length = _PREFIX_LENGTHS.get(length_text)
    if length is None or length > address.max_prefixlen:
        raise RefusedError(f"needs a prefix length from 0 to {address.max_prefixlen} behind the /, not {shown(text)}")
    return address, length


@leaf
def literal_address(text: str) -> Address:
    """Return an address without prefix."""
    return _address(text)


@leaf
def network(text: str) -> Network:
    """Return a network; an address alone is a /32 or /128. Host bits are refused: nobody knows what was meant."""
    address, length = _split(text)
    try:
        if isinstance(address, IPv4Address):
            return IPv4Network((int(address), length))
        return IPv6Network((int(address), length))
    except ValueError:
        whole = ip_network((address, length), strict=False)
        raise RefusedError(
            f"has a host part: write {whole} for the network or {address}/{address.max_prefixlen} for the one host"
        ) from None


@leaf
def host_address(text: str) -> AddressWithPrefix:
    """Return an interface's address with its prefix length; an address alone is a /32 or /128."""
    address, length = _split(text)
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        raise RefusedError(f"cannot be an interface's address: {shown(text)} is unspecified, multicast or loopback")
    if isinstance(address, IPv6Address):
        return _with_host_part(text, IPv6Interface((int(address), length)))
    return _with_host_part(text, IPv4Interface((int(address), length)))


def _with_host_part(text: str, interface: AddressWithPrefix) -> AddressWithPrefix:
    whole = interface.network
    # The last two lengths have no network address (RFC 3021, RFC 6164).
    if whole.prefixlen >= whole.max_prefixlen - 1:
        return interface
    if interface.ip == whole.network_address:
        raise RefusedError(
            f"is a network: the interface needs a host address in it, such as {whole[1]}/{whole.prefixlen}"
        )
    if isinstance(whole, IPv4Network) and interface.ip == whole.broadcast_address:
        raise RefusedError(f"is the broadcast address of {whole}: choose another, not {shown(text)}")
    return interface


@leaf
def peer_network(text: str) -> Network:
    """Return a network whose addresses a peer may use; /0 is judged by the caller."""
    found: Network = network(text)
    first = found.network_address
    if found.prefixlen and (first.is_multicast or first.is_loopback or first.is_unspecified):
        raise RefusedError(f"holds addresses that no host can have (unspecified, multicast or loopback): {found}")
    return found


def _endpoint(text: str) -> tuple[str, int]:
    host, colon, port_text = text.rpartition(":")
    if not colon or not host or host.endswith(":"):
        raise RefusedError(f"must be HOST:PORT, as in 192.0.2.1:51820, not {shown(text)}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise RefusedError(f"has brackets, which are for IPv6 addresses only: {shown(text)}")
    elif ":" in host:
        raise RefusedError(f'needs brackets around the IPv6 address, as in "[2001:db8::1]:51820", not {shown(text)}')
    try:
        return host, port(port_text)
    except RefusedError as error:
        raise RefusedError(f"has a wrong port, which {error.msg}") from None


def _literal_endpoint(host: str, number: int) -> Endpoint:
    address = _address(host)
    if address.is_unspecified or address.is_multicast:
        raise RefusedError(f"cannot be reached: {shown(host)} is unspecified or multicast")
    return Endpoint(str(address), number)


@leaf
def literal_endpoint(text: str) -> Endpoint:
    """Return an endpoint with a literal address, for the server: it looks no names up."""
    host, number = _endpoint(text)
    if re.search(r"[A-Za-z]", host) and ":" not in host:
        raise RefusedError("must be an address, not a name: the server looks no names up")
    return _literal_endpoint(host, number)


@leaf
def endpoint(text: str) -> Endpoint:
    """Return an endpoint with a literal address or a host name (RFC 1123)."""
    host, number = _endpoint(text)
    last_label = host.rpartition(".")[2]
    if ":" in host or last_label.isdigit():
        return _literal_endpoint(host, number)
    if not _HOST_NAME.fullmatch(host):
        raise RefusedError(f"has no valid host name or address: {shown(host)}")
    return Endpoint(host, number)
