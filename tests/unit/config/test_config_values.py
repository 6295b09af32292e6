"""Single values: what is taken, and what is said about the rest."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest
import voluptuous
from config_files import key, key_text

from wgd.config import addresses, values
from wgd.config.allow import allow_entry
from wgd.config.shown import HIDDEN, dotted, shown
from wgd.model import AuthzMode, Endpoint, PortRange

if TYPE_CHECKING:
    from collections.abc import Callable


def refusal(validator: Callable[[object], object], value: object) -> str:
    with pytest.raises(voluptuous.Invalid) as caught:
        validator(value)
    return str(caught.value.msg)


@pytest.mark.parametrize(
    ("validator", "text", "value"),
    [
        (values.boolean, "true", True),
        (values.boolean, "no", False),
        (values.boolean, "Off", False),
        (values.port, "1", 1),
        (values.port, "65535", 65535),
        (values.integer(1, 300), "0xff", 255),
        (values.one_of(AuthzMode), "observe", AuthzMode.OBSERVE),
        (values.persistent_keepalive, "25", 25),
        (values.persistent_keepalive, "65535", 65535),
        (values.persistent_keepalive, "off", None),
        (values.persistent_keepalive, "0", None),
        (values.public_key, key_text(7), key(7)),
        (values.name, "alice", "alice"),
        (values.name, "a.b_c-1", "a.b_c-1"),
        (values.name, "a" * 39, "a" * 39),
        (values.reference, "group:staff", "group:staff"),
        (values.reference, key_text(7), key(7)),
        (values.rule_name, "staff to web [intern] é", "staff to web [intern] é"),
        (values.interface_name, "wgd0", "wgd0"),
        (values.interface_name, "abcdefghijklmno", "abcdefghijklmno"),
        (values.file_path, "/etc/wgd/server.key", "/etc/wgd/server.key"),
        (values.ports, "443", PortRange(443, 443)),
        (values.ports, "8000-8999", PortRange(8000, 8999)),
        (values.ports, "1-65535", PortRange(1, 65535)),
        (values.protocol, "tcp", 6),
        (values.protocol, "SCTP", 132),
        (values.protocol, "0", 0),
        (values.protocol, "255", 255),
        (values.routing_mark, "0x10000000", 0x10000000),
        (values.routing_mark, "2147483648", 0x80000000),
        (values.routing_table, "7780", 7780),
        (values.routing_table, "251", 251),
        (values.routing_table, "256", 256),
        (values.client_table, "main", 254),
        (values.client_table, "default", 253),
        (values.client_table, "252", 252),
        (values.client_table, "4294967295", 4294967295),
        (addresses.network, "10.20.0.0/24", ip_network("10.20.0.0/24")),
        (addresses.network, "10.20.0.1", ip_network("10.20.0.1/32")),
        (addresses.network, "0.0.0.0/0", ip_network("0.0.0.0/0")),
        (addresses.network, "FD20::/64", ip_network("fd20::/64")),
        (addresses.host_address, "10.80.0.1/24", ip_interface("10.80.0.1/24")),
        (addresses.host_address, "10.80.0.1", ip_interface("10.80.0.1/32")),
        (addresses.host_address, "10.80.0.0/31", ip_interface("10.80.0.0/31")),
        (addresses.host_address, "fd80::1/64", ip_interface("fd80::1/64")),
        (addresses.host_address, "fd80::/127", ip_interface("fd80::/127")),
        (addresses.literal_address, "fd80::1", ip_address("fd80::1")),
        (addresses.literal_endpoint, "192.0.2.7:51820", Endpoint("192.0.2.7", 51820)),
        (addresses.literal_endpoint, "[2001:DB8::1]:1", Endpoint("2001:db8::1", 1)),
        (addresses.endpoint, "gw.example.org:51820", Endpoint("gw.example.org", 51820)),
        (addresses.endpoint, "gateway:51820", Endpoint("gateway", 51820)),
        (addresses.endpoint, "192.0.2.7:51820", Endpoint("192.0.2.7", 51820)),
    ],
)
def test_value_is_taken(validator: Callable[[object], object], text: str, value: object) -> None:
    assert validator(text) == value


@pytest.mark.parametrize(
    ("validator", "text", "word"),
    [
        (values.boolean, "maybe", "must be true or false"),
        (values.port, "0", "must be from 1 to 65535, not '0'"),
        (values.port, "65536", "must be from 1 to 65535, not '65536'"),
        (values.port, "007", "must be a whole number"),
        (values.port, "-1", "must be a whole number"),
        (values.port, "1_0", "must be a whole number"),
        (values.port, "٣", "must be a whole number"),
        (values.port, "", "is empty"),
        (values.port, ["1"], "must be a single value, not a list"),
        (values.port, {"a": "1"}, "must be a single value, not a mapping"),
        (values.one_of(AuthzMode), "strict", "must be observe or enforce, not 'strict'"),
        (values.persistent_keepalive, "65536", "must be seconds from 1 to 65535, or off"),
        (values.persistent_keepalive, "25s", "must be seconds from 1 to 65535, or off"),
        (values.public_key, key_text(7)[:-2] + "==", "paste the public key"),
        (values.public_key, "short", "paste the public key"),
        (values.name, "-alice", "beginning with a letter or digit"),
        (values.name, "../alice", "must be 1 to 63"),
        (values.name, "a" * 64, "looks like a key"),
        (values.name, "a-" * 32, "must be 1 to 63"),
        (values.name, "a\nb", "must be 1 to 63"),
        (values.name, "group:a", "must be 1 to 63"),
        (values.name, key_text(7), "looks like a key"),
        (values.reference, "group:", "is empty"),
        (values.reference, "group:group:a", "must be 1 to 63"),
        (values.reference, key_text(7)[:-1], "paste the public key"),
        (values.rule_name, "web[1]", "must not end in"),
        (values.rule_name, "web [", "must not end in"),
        (values.rule_name, "a\x1bb", "printable"),
        (values.rule_name, "a ", "without spaces at the ends"),
        (values.interface_name, "abcdefghijklmnop", "1 to 15 characters"),
        (values.interface_name, ".", "1 to 15 characters"),
        (values.interface_name, "..", "1 to 15 characters"),
        (values.interface_name, "a b", "1 to 15 characters"),
        (values.interface_name, "a/b", "must not hold"),
        (values.interface_name, "a:b", "must not hold"),
        (values.interface_name, "wgd%d", "must not hold"),
        (values.interface_name, "wgd*", "must not hold"),
        (values.interface_name, "all", "which Linux uses itself"),
        (values.file_path, "server.key", "must be the absolute path"),
        (values.file_path, "/etc/wgd/", "must be the absolute path"),
        (values.ports, "0", "must be from 1 to 65535, not '0'"),
        (values.ports, "1-65536", "must be from 1 to 65535"),
        (values.ports, "9-8", "is reversed: write 8-9"),
        (values.ports, "-9", "must be a port or a range"),
        (values.ports, "1-2-3", "must be a port or a range"),
        (values.ports, "http", "must be a port or a range"),
        (values.protocol, "256", "must be from 0 to 255"),
        (values.protocol, "tpc", "is no protocol that wgd knows"),
        (values.routing_mark, "3", "must be exactly one bit"),
        (values.routing_mark, "0", "must be from 1"),
        (values.routing_mark, "0x100000000", "must be a whole number"),
        (values.routing_table, "0", "must be from 1"),
        (values.routing_table, "252", "253 is the kernel's table"),
        (values.routing_table, "254", "254 is the kernel's table"),
        (values.routing_table, "255", "255 is the kernel's table"),
        (values.routing_table, "4294967295", "must be from 1 to 4294967294"),
        (values.client_table, "local", "must be main, default or a number"),
        (values.client_table, "255", "must not be 255"),
        (values.client_table, "0", "must be from 1"),
        (addresses.network, "10.20.0.5/24", "write 10.20.0.0/24 for the network or 10.20.0.5/32 for the one host"),
        (addresses.network, "fd20::5/64", "write fd20::/64 for the network or fd20::5/128 for the one host"),
        (addresses.network, "10.20.0.0/33", "needs a prefix length from 0 to 32"),
        (addresses.network, "10.20.0.0/255.255.255.0", "needs a prefix length"),
        (addresses.network, "10.20.0.0/", "needs a prefix length"),
        (addresses.network, "10.20.0", "is not an IP address: '10.20.0'"),
        (addresses.network, "10.020.0.0/16", "is not an IP address"),
        (addresses.network, "fe80::1%eth0", "must not have a scope"),
        (addresses.network, "::ffff:10.0.0.1", "is IPv4-mapped IPv6: write it as IPv4, 10.0.0.1"),
        (addresses.network, "::ffff:0:0/96", "is IPv4-mapped IPv6"),
        (addresses.peer_network, "224.0.0.0/4", "no host can have"),
        (addresses.peer_network, "::1", "no host can have"),
        (
            addresses.host_address,
            "10.80.0.0/24",
            "is a network: the interface needs a host address in it, such as 10.80.0.1/24",
        ),
        (addresses.host_address, "fd80::/64", "such as fd80::1/64"),
        (addresses.host_address, "10.80.0.255/24", "is the broadcast address of 10.80.0.0/24"),
        (addresses.host_address, "0.0.0.0/8", "unspecified, multicast or loopback"),
        (addresses.host_address, "127.0.0.1/8", "unspecified, multicast or loopback"),
        (addresses.host_address, "ff02::1/64", "unspecified, multicast or loopback"),
        (addresses.literal_address, "10.0.0.1/32", "is not an IP address"),
        (addresses.literal_endpoint, "gw.example.org:51820", "must be an address, not a name"),
        (addresses.literal_endpoint, "192.0.2.7", "must be HOST:PORT"),
        (addresses.literal_endpoint, "192.0.2.7:0", "has a wrong port, which must be from 1 to 65535"),
        (addresses.literal_endpoint, "2001:db8::1:51820", "needs brackets around the IPv6 address"),
        (addresses.literal_endpoint, "[192.0.2.7]:51820", "has brackets, which are for IPv6"),
        (addresses.literal_endpoint, "0.0.0.0:51820", "cannot be reached"),
        (addresses.endpoint, "192.0.2:51820", "is not an IP address"),
        (addresses.endpoint, "gw example:51820", "has no valid host name"),
        (addresses.endpoint, "-gw.example:51820", "has no valid host name"),
        (addresses.endpoint, ":51820", "must be HOST:PORT"),
    ],
)
def test_value_is_refused_with_what_to_do(validator: Callable[[object], object], text: object, word: str) -> None:
    assert word in refusal(validator, text)


@pytest.mark.parametrize(
    ("value", "entry"),
    [
        ("10.0.0.0/8", (ip_network("10.0.0.0/8"), None, ())),
        ({"to": "10.0.0.1"}, (ip_network("10.0.0.1/32"), None, ())),
        ({"to": "10.0.0.1", "proto": "tcp"}, (ip_network("10.0.0.1/32"), 6, ())),
        (
            {"to": "10.0.0.1", "proto": "udp", "ports": ["53", "60-70"]},
            (ip_network("10.0.0.1/32"), 17, (PortRange(53, 53), PortRange(60, 70))),
        ),
        ({"to": "10.0.0.1", "proto": "tcp", "ports": "443"}, (ip_network("10.0.0.1/32"), 6, (PortRange(443, 443),))),
        ({"to": "10.0.0.1", "proto": "icmp"}, (ip_network("10.0.0.1/32"), 1, ())),
        ({"to": "fd20::/64", "proto": "icmp"}, (ip_network("fd20::/64"), 58, ())),
        ({"to": "fd20::/64", "proto": "icmpv6"}, (ip_network("fd20::/64"), 58, ())),
    ],
)
def test_allow_entry_is_taken(value: object, entry: tuple[object, ...]) -> None:
    assert tuple(allow_entry(value)) == entry


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"proto": "tcp"}, ["to: is required"]),
        ({"to": "10.0.0.1", "ports": ["1"]}, ["ports: need a protocol"]),
        ({"to": "10.0.0.1", "proto": "icmp", "ports": ["1"]}, ["ports: exist only with tcp, udp"]),
        ({"to": "10.0.0.1", "proto": "47", "ports": ["1"]}, ["ports: exist only with tcp, udp"]),
        ({"to": "10.0.0.1", "proto": "tcp", "ports": []}, ["ports: is an empty list"]),
        ({"to": "10.0.0.1", "proto": "icmpv6"}, ["proto: is IPv6's"]),
        ({"to": "10.0.0.1", "protocol": "tcp"}, ["protocol: unknown key; did you mean proto?"]),
        ({"to": "10.0.0.1", "proto": "tpc", "ports": ["1"]}, ["proto: is no protocol"]),
        (
            {"to": "10.0.0.1/8", "proto": "tcp", "ports": ["0", "22", "9-8"]},
            ["ports[0]: must be from", "ports[2]: is reversed", "to: has a host part"],
        ),
        (["10.0.0.1"], [": must be a network"]),
    ],
)
def test_allow_entry_is_refused_with_all_its_problems(value: object, expected: list[str]) -> None:
    with pytest.raises(voluptuous.Invalid) as caught:
        allow_entry(value)
    errors = caught.value.errors if isinstance(caught.value, voluptuous.MultipleInvalid) else [caught.value]
    said = sorted(f"{dotted(error.path)}: {error.msg}" for error in errors)
    assert len(said) == len(expected)
    assert all(line.startswith(start) for line, start in zip(said, expected, strict=True))


def test_what_resembles_a_key_is_never_shown() -> None:
    assert shown(key_text(7)) == HIDDEN
    assert shown("aGFsZiBvZiBhIGtleSE1") == HIDDEN
    assert dotted(["peers", 0, key_text(7)]) == "peers[0].(hidden)"
    assert dotted(["A" * 43]) == HIDDEN


def test_shown_values_are_escaped_and_short() -> None:
    assert shown("a\x1b[2J\nb") == r"'a\x1b[2J\nb'"
    assert len(shown("10.0.0.1 " * 1000)) < 80


@pytest.mark.parametrize("proto", ["0", "43", "44", "ah", "60"])
def test_an_extension_header_is_no_protocol_of_ipv6_and_one_of_ipv4(proto: str) -> None:
    with pytest.raises(voluptuous.Invalid, match="looks past"):
        allow_entry({"to": "fd20::/64", "proto": proto})
    assert allow_entry({"to": "10.20.0.0/24", "proto": proto}).proto is not None
