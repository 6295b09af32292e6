"""What an operator types to let wgd's traffic through a filter of somebody else, in the words of its own tool."""

from __future__ import annotations

import re

from wgd.model import ServerConfig
from wgd.plan.foreign_tables import Chain, Tables

IPTABLES = {"ip": "iptables", "ip6": "ip6tables"}
IPTABLES_TABLES = frozenset({"filter", "nat", "mangle", "raw", "security"})
_COUNTER = re.compile(r"\bcounter packets \d+ bytes \d+ ?")


def prefixed(rule: str) -> str:
    """Return a rule's text without what its counter has counted."""
    return _COUNTER.sub("", rule).strip()


def accept_remedy(tables: Tables, chain: Chain, config: ServerConfig) -> str:
    """Return how to let pass what wgd has decided about: whatever enters or leaves by its interface."""
    name = config.interface.name
    why = f"Let what enters or leaves by {name} pass here, since wgd decides about it"
    if chain.table == "inet firewalld":
        return f"{why}: firewall-cmd --permanent --zone=trusted --add-interface={name} && firewall-cmd --reload"
    if _is_iptables(chain):
        program = IPTABLES[chain.family]
        if tables.has_chain(chain.table, "ufw"):
            return f"{why}: ufw route allow in on {name} && ufw route allow out on {name}"
        into = "DOCKER-USER" if chain.hook == "forward" and tables.has_chain(chain.table, "DOCKER-USER") else chain.name
        table = chain.table.split()[1]
        option = "" if table == "filter" else f"-t {table} "
        return (
            f"{why}: {program} {option}-I {into} -i {name} -j ACCEPT && {program} {option}-I {into} -o {name} -j ACCEPT"
        )
    insert = f"nft insert rule {chain.table} {chain.name}"
    return f'{why}: {insert} iifname "{name}" accept && {insert} oifname "{name}" accept'


def port_remedy(tables: Tables, chain: Chain, config: ServerConfig) -> str:
    """Return how to open the listen port."""
    port = config.interface.listen_port
    why = "Open WireGuard's port"
    if chain.table == "inet firewalld":
        return f"{why}: firewall-cmd --permanent --add-port={port}/udp && firewall-cmd --reload"
    if _is_iptables(chain):
        if tables.has_chain(chain.table, "ufw"):
            return f"{why}: ufw allow {port}/udp"
        return f"{why}: {IPTABLES[chain.family]} -I {chain.name} -p udp --dport {port} -j ACCEPT"
    return f"{why}: nft insert rule {chain.table} {chain.name} udp dport {port} accept"


def _is_iptables(chain: Chain) -> bool:
    return chain.family in IPTABLES and chain.table.split()[1] in IPTABLES_TABLES
