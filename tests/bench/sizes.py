"""The configs that the benches are about: many clients, with few policies in common or one each."""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network
from pathlib import Path

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


def write(folder: Path, found: ServerConfig, key_file: Path) -> Path:
    """Write a config as YAML, its policies by group, and return the main file's path."""
    names = {peer.public_key: peer.name for peer in found.peers}
    lines = [
        "interface:",
        "  name: wgd0",
        f"  address: [{', '.join(repr(str(address)) for address in found.interface.address)}]",
        f"  listen_port: {found.interface.listen_port}",
        f"  private_key_file: {key_file}",
        f"authz_mode: {found.authz_mode.value}",
        "logging_enabled: true",
        f"logging: {{path: {folder}/events.jsonl}}",
        "peers:",
    ]
    for peer in found.peers:
        networks = ", ".join(repr(str(network)) for network in peer.allowed_ips)
        lines.append(f"  - {{name: {peer.name}, public_key: {peer.public_key}, allowed_ips: [{networks}]}}")
    lines += ["policy:", "  groups:"]
    for rule in found.policy.rules:
        lines.append(f"    {rule.name}: [{', '.join(names[key] for key in rule.clients)}]")
    lines.append("  rules:")
    for rule in found.policy.rules:
        lines += [f"    - name: {rule.name}", f"      client_id: group:{rule.name}", "      allow:"]
        lines += [f"        - {{to: '{a.to.network_address}', proto: udp, ports: [{a.ports[0]}]}}" for a in rule.allow]
    main = folder / "server.yaml"
    main.write_text("\n".join(lines) + "\n")
    (folder / "server.d").mkdir(exist_ok=True)
    return main


def write_one(folder: Path, port: int) -> None:
    """Write the drop-in file that gives one client a rule of its own."""
    (folder / "server.d" / "one.yaml").write_text(
        "policy:\n  rules:\n    - name: one\n      client_id: c77\n      allow:\n"
        f"        - {{to: 172.31.0.1, proto: tcp, ports: [{port}]}}\n"
    )
