"""Three machines and two networks: an outside host, the gateway, and the private network with a protected resource.

client                       gateway                          resource
outer   192.0.2.2   -------  outer 192.0.2.1
                             inner 10.20.0.1   -------------  inner 10.20.0.10 and 10.20.0.11
                             inner fd20::1                    inner fd20::10 and fd20::11
tunnel  10.80.0.2   =======  tunnel 10.80.0.1
        fd80::2                     fd80::1
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.machines.container import Container
from tests.machines.network import network
from tests.machines.root import quietly

INTERNET, LAN = "internet", "lan"
CABLES = {
    "client": {"outer": INTERNET},
    "gateway": {"outer": INTERNET, "inner": LAN},
    "resource": {"inner": LAN},
}
ADDRESSES = {
    "client": {"outer": ("192.0.2.2/24", "2001:db8::2/64")},
    "gateway": {"outer": ("192.0.2.1/24", "2001:db8::1/64"), "inner": ("10.20.0.1/24", "fd20::1/64")},
    "resource": {"inner": ("10.20.0.10/24", "10.20.0.11/24", "fd20::10/64", "fd20::11/64")},
}
# The network's way back to the clients.
ROUTES = {"resource": {"inner": (("10.80.0.0/24", "10.20.0.1"), ("fd80::/64", "fd20::1"))}}


@dataclass(frozen=True)
class Site:
    """The three machines."""

    client: Container
    gateway: Container
    resource: Container

    @property
    def machines(self) -> tuple[Container, Container, Container]:
        return self.client, self.gateway, self.resource


def link_file(link: str, addresses: Sequence[str], routes: Sequence[tuple[str, str]]) -> str:
    """Return systemd-networkd's file for a link."""
    lines = ["[Match]", f"Name={link}", "[Network]", "LinkLocalAddressing=ipv6", "IPv6AcceptRA=no"]
    for address in addresses:
        # Nobody waits a second to learn that the address is its own.
        lines += ["[Address]", f"Address={address}", "DuplicateAddressDetection=none"]
    for destination, gateway in routes:
        lines += ["[Route]", f"Destination={destination}", f"Gateway={gateway}"]
    return "\n".join(lines) + "\n"


def configure_links(root: Path, role: str) -> None:
    """Have the machine of a role come up with its addresses, by systemd-networkd."""
    for link, addresses in ADDRESSES[role].items():
        routes = ROUTES.get(role, {}).get(link, ())
        (root / f"etc/systemd/network/{link}.network").write_text(link_file(link, addresses, routes))
    quietly("systemctl", f"--root={root}", "enable", "systemd-networkd.service")


@contextlib.contextmanager
def site(suite: str, root: Path, scratch: Path) -> Iterator[Site]:
    """Make the three machines and boot them; all of it is gone afterwards."""
    with network(INTERNET, LAN) as net, contextlib.ExitStack() as running:
        made = {}
        for role, cables in CABLES.items():
            machine = Container(role, suite, root, scratch / role, network=net, cables=cables)
            running.callback(machine.remove)
            configure_links(machine.root, role)
            machine.boot()
            made[role] = machine
        yield Site(**made)


def public_key(private: str) -> str:
    """Return the public key that belongs to a private one."""
    return subprocess.run(["wg", "pubkey"], input=private, capture_output=True, text=True, check=True).stdout.strip()


def key_pair() -> tuple[str, str]:
    """Return a private key and its public key."""
    private = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout.strip()
    return private, public_key(private)
