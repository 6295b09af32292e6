"""The configs that the benches are about: many clients, with few policies in common or one each."""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network

from wgd.model import (
    AllowRule,
    AuthzMode,
    Backend,
    Interface,
    Logging,
    Peer,
    Policy,
    PortRange,
    PublicKey,
    Rule,
    ServerConfig,
)

UDP = 17
FIRST_CLIENT = {4: int(IPv4Address("10.80.0.2")), 6: int(IPv6Address("fd80::2"))}
FIRST_SERVER = {4: int(IPv4Address("172.16.0.1")), 6: int(IPv6Address("fd20::1"))}
FIRST_PORT = 1000


def public_key(number: int) -> PublicKey:
    return PublicKey(hashlib.sha256(f"client {number}".encode()).digest())


def client(number: int, family: int) -> str:
    """Return the address of a client."""
    kind = IPv4Address if family == 4 else IPv6Address
    return str(kind(FIRST_CLIENT[family] + number))


def server(policy: int, rule: int, rules: int) -> tuple[str, int]:
    """Return address and port of what rule `rule` of a policy opens: IPv4 and IPv6 by turns."""
    kind, family = (IPv4Address, 4) if rule % 2 == 0 else (IPv6Address, 6)
    return str(kind(FIRST_SERVER[family] + policy * rules + rule)), FIRST_PORT + rule


def last_rule(rules: int, family: int) -> int:
    """Return the last rule of a policy that is about this family."""
    return rules - 2 if family == 4 else rules - 1


def allow(policy: int, rules: int) -> tuple[AllowRule, ...]:
    """Return what a policy grants."""
    opened = (server(policy, rule, rules) for rule in range(rules))
    return tuple(AllowRule(ip_network(to), UDP, (PortRange(port, port),)) for to, port in opened)


def config(clients: int, policies: int, rules: int) -> ServerConfig:
    """Return a config in which client N has policy N modulo `policies`, of `rules` rules."""
    keys = [public_key(number) for number in range(clients)]
    return ServerConfig(
        interface=Interface(
            "wgd0", (ip_interface("10.80.0.1/32"), ip_interface("fd80::1/128")), 51820, None, None, Backend.AUTO
        ),
        authz_mode=AuthzMode.ENFORCE,
        peers=tuple(
            Peer(f"c{number}", key, tuple(ip_network(client(number, family)) for family in (4, 6)))
            for number, key in enumerate(keys)
        ),
        policy=Policy(
            tuple(Rule(f"p{policy}", tuple(keys[policy::policies]), allow(policy, rules)) for policy in range(policies))
        ),
        logging=Logging(enabled=True),
    )
