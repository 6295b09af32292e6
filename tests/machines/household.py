"""A gateway with its client and its network on one machine, the latter two in network namespaces.

namespace client             the machine                namespace lan
outer   192.0.2.2   -------  outer 192.0.2.1
                             inner 10.20.0.1   -------  inner 10.20.0.10 and 10.20.0.11
                             inner fd20::1              inner fd20::10 and fd20::11
                                                        elsewhere 198.51.100.10 and 198.51.100.11
                                                        elsewhere 2001:db8:1::10 and 2001:db8:1::11
tunnel  10.80.0.2   =======  tunnel 10.80.0.1
        fd80::2                     fd80::1
"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from typing import Any

from tests.machines.machine import Machine, wait_until
from tests.machines.office import EVENTS, GATEWAY
from tests.machines.site import ADDRESSES, key_pair, link_file, public_key
from tests.unit.events.event_schema import checked

CLIENT, LAN = "client", "lan"
PORT = 8080
NETWORK = ("10.20.0.0/24", "fd20::/64")
ALLOWED = (f"http://10.20.0.10:{PORT}/", f"http://[fd20::10]:{PORT}/")
DENIED = (f"http://10.20.0.11:{PORT}/", f"http://[fd20::11]:{PORT}/")
# What only a full tunnel leads to.
ELSEWHERE = ("198.51.100.0/24", "2001:db8:1::/64")
ALLOWED_ELSEWHERE = (f"http://198.51.100.10:{PORT}/", f"http://[2001:db8:1::10]:{PORT}/")
DENIED_ELSEWHERE = (f"http://198.51.100.11:{PORT}/", f"http://[2001:db8:1::11]:{PORT}/")
# The other end of each cable, in a namespace: link, namespace, its addresses there and its way back to the clients.
CABLES = (
    ("outer", CLIENT, ADDRESSES["client"]["outer"], ()),
    (
        "inner",
        LAN,
        (
            *ADDRESSES["resource"]["inner"],
            *("198.51.100.10/32", "198.51.100.11/32", "2001:db8:1::10/128", "2001:db8:1::11/128"),
        ),
        (("10.80.0.0/24", "10.20.0.1"), ("fd80::/64", "fd20::1")),
    ),
)
# The gateway's own way to what is elsewhere.
BEHIND = {"inner": tuple(zip(ELSEWHERE, ("10.20.0.10", "fd20::10"), strict=True))}
RESOURCE = f"systemd-run --quiet --unit=resource --property=NetworkNamespacePath=/run/netns/{LAN} \
wgd-protected-resource --listen [::]:{PORT}"


def alice(public: str) -> str:
    """Return the gateway's drop-in for the client."""
    return textwrap.dedent(f"""\
        peers:
          - name: alice
            public_key: "{public}"
            allowed_ips: [10.80.0.2/32, "fd80::2/128"]
        policy:
          rules:
            - name: alice to the resource
              client_id: alice
              allow:
                - {{to: 10.20.0.10, proto: tcp, ports: [{PORT}]}}
                - {{to: "fd20::10", proto: tcp, ports: [{PORT}]}}
                - {{to: 198.51.100.10, proto: tcp, ports: [{PORT}]}}
                - {{to: "2001:db8:1::10", proto: tcp, ports: [{PORT}]}}
        """)


class Household:
    """The namespaces of a machine on which wgd-server is installed; `set_up` makes them and the client's grant."""

    def __init__(self, gateway: Machine) -> None:
        self.gateway = gateway
        self.private, self.public = key_pair()

    def set_up(self) -> None:
        """Connect the namespaces, the machine's own ends by systemd-networkd, and grant the client what is allowed."""
        for link, namespace, addresses, routes in CABLES:
            behind = BEHIND.get(link, ())
            text = link_file(link, ADDRESSES["gateway"][link], behind)
            self.gateway.write(f"/etc/systemd/network/{link}.network", text)
            inside = f"ip -n {namespace}"
            script = [
                f"ip netns add {namespace}",
                f"{inside} link set lo up",
                f"ip link add {link} type veth peer name {link} netns {namespace}",
                *(f"{inside} address add {address} dev {link} nodad" for address in addresses),
                f"{inside} link set {link} up",
                *(f"{inside} route add {to} via {gateway}" for to, gateway in routes),
            ]
            self.gateway.shell("\n".join(script))
        self.gateway.run("systemctl", "enable", "--now", "systemd-networkd.service")
        self.gateway.shell(RESOURCE)
        self.gateway.write("/etc/wgd/server.d/alice.yaml", alice(self.public), "0640", "wgd")
        self.gateway.run("systemctl", "reload", GATEWAY)
        wait_until("the gateway reaches its network", lambda: self.gateway.succeeds("ping", "-c1", "-W1", "fd20::10"))

    @contextlib.contextmanager
    def wg_quick(self, *allowed_ips: str) -> Iterator[None]:
        """Have the client connected by Debian's wg-quick during the block, with its own WireGuard interface."""
        server_key = public_key(self.gateway.read("/etc/wgd/server.key"))
        config = f"""\
            [Interface]
            PrivateKey = {self.private}
            Address = 10.80.0.2/32, fd80::2/128
            [Peer]
            PublicKey = {server_key}
            Endpoint = 192.0.2.1:51820
            AllowedIPs = {", ".join(allowed_ips)}
            """
        self.gateway.write("/etc/wireguard/wg-alice.conf", textwrap.dedent(config), "0600")
        self.gateway.run("ip", "netns", "exec", CLIENT, "wg-quick", "up", "wg-alice")
        try:
            yield
        finally:
            self.gateway.run("ip", "netns", "exec", CLIENT, "wg-quick", "down", "wg-alice")

    def fetch(self, url: str) -> bool:
        """Ask for a page from the client; tell whether it came."""
        asking = (
            "curl",
            "--silent",
            "--globoff",
            "--connect-timeout",
            "3",
            "--max-time",
            "20",
            "--output",
            "/dev/null",
        )
        return self.gateway.succeeds("ip", "netns", "exec", CLIENT, *asking, url)

    def assert_enforced(self, allowed: tuple[str, ...] = ALLOWED, denied: tuple[str, ...] = DENIED) -> None:
        """What is granted passes, in both families, and what is not does not."""
        assert {url: self.fetch(url) for url in (*allowed, *denied)} == {
            **dict.fromkeys(allowed, True),
            **dict.fromkeys(denied, False),
        }

    def events(self, **fields: Any) -> list[dict[str, Any]]:
        """Return the lines of the event log that have these fields; every line is held against the schema."""
        return [line for line in checked(self.gateway.read(EVENTS).encode()) if fields.items() <= line.items()]
