"""wgd on the three machines of a site: installed from a repository by name, configured, and seen at work."""

from __future__ import annotations

import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.machines.machine import Machine, wait_until
from tests.machines.packages import REPOSITORY
from tests.machines.site import Site, key_pair, public_key
from tests.unit.events.event_schema import checked

EVENTS = "/var/log/wgd/events.jsonl"
GATEWAY, CLIENT, RESOURCE = "wgd-server", "wgd-client@office", "wgd-protected-resource"
ALLOWED = ("http://10.20.0.10:8080/", "http://[fd20::10]:8080/")
DENIED = ("http://10.20.0.11:8080/", "http://[fd20::11]:8080/")
ALLOWED_PORT, DENIED_PORT, TALK_PORT = 7001, 7002, 7003


def add_repository(machine: Machine, place: str = REPOSITORY) -> None:
    """Do what packaging/build tells to do."""
    machine.run("cp", f"{place}/{machine.suite}.sources", "/etc/apt/sources.list.d/wgd.sources")
    machine.run("apt-get", "--quiet", "--quiet", "update")


def install(machine: Machine, *packages: str) -> str:
    """Install packages by name, and return what apt said."""
    return machine.run("apt-get", "--yes", "--no-install-recommends", "install", *packages)


def add_and_install(machine: Machine, packages: tuple[str, ...], place: str) -> None:
    """Add a repository and install packages from it."""
    add_repository(machine, place)
    install(machine, *packages)


def alice(public_key: str) -> str:
    """Return the gateway's drop-in for the client, a file as people write it."""
    return textwrap.dedent(f"""\
        peers:
          - name: alice
            public_key: "{public_key}"
            allowed_ips: [10.80.0.2/32, "fd80::2/128"]
        policy:
          rules:
            - name: alice to the resource
              client_id: alice
              allow:
                - {{to: 10.20.0.10, proto: tcp, ports: [8080, {TALK_PORT}]}}
                - {{to: "fd20::10", proto: tcp, ports: [8080]}}
                - {{to: 10.20.0.10, proto: udp, ports: [{ALLOWED_PORT}]}}
          tests:
            - {{client_id: alice, to: 10.20.0.11, proto: tcp, port: 22, expect: deny}}
        """)


def office(server_key: str) -> str:
    """Return the client's config."""
    return textwrap.dedent(f"""\
        interface:
          name: wgd-office
          address: [10.80.0.2/32, "fd80::2/128"]
          private_key_file: /etc/wgd/client/office.key
        server:
          public_key: "{server_key}"
          endpoint: 192.0.2.1:51820
          allowed_ips: [10.20.0.0/24, "fd20::/64", 10.80.0.1/32]
          persistent_keepalive: 25
        """)


class Office:
    """A site on which `set_up` has made everything run."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.client, self.gateway, self.resource = site.client, site.gateway, site.resource

    def set_up(self, repository: str = REPOSITORY) -> None:
        """Install from `repository`, configure and start. No machine has a kernel with WireGuard: one command each."""
        wanted = {
            self.client: ("wgd-client", "wireguard-go"),
            self.gateway: ("wgd-server", "wireguard-go", "nftables"),
            self.resource: ("wgd-protected-resource",),
        }
        with ThreadPoolExecutor() as workers:
            for installed in [workers.submit(add_and_install, *each, repository) for each in wanted.items()]:
                installed.result()
        self.client.concerns, self.gateway.concerns, self.resource.concerns = [CLIENT], [GATEWAY], [RESOURCE]
        private, public = key_pair()
        self.gateway.run("systemctl", "enable", "--now", "wgd-userspace@wgd0.service")
        self.gateway.wait_active(GATEWAY)
        self.gateway.write("/etc/wgd/server.d/alice.yaml", alice(public), "0640", "wgd")
        self.gateway.run("systemctl", "reload", GATEWAY)
        self.resource.write(
            f"/etc/systemd/system/{RESOURCE}.service.d/both-families.conf",
            "[Service]\nExecStart=\nExecStart=/usr/bin/wgd-protected-resource --listen [::]:8080\n",
        )
        self.resource.run("systemctl", "daemon-reload")
        self.resource.run("systemctl", "restart", RESOURCE)
        server_key = public_key(self.gateway.read("/etc/wgd/server.key"))
        self.client.write("/etc/wgd/client/office.key", f"{private}\n", "0640", "wgd")
        self.client.write("/etc/wgd/client/office.yaml", office(server_key), "0640", "wgd")
        self.client.run("systemctl", "enable", "--now", "wgd-userspace@wgd-office.service")
        self.client.run("systemctl", "enable", "--now", CLIENT)
        wait_until("the client gets through", lambda: self.fetch(ALLOWED[0]))

    def fetch(self, url: str) -> bool:
        """Ask for a page from the client; tell whether it came."""
        return self.client.succeeds("curl", "--silent", "--globoff", "--max-time", "2", "--output", "/dev/null", url)

    def assert_enforced(self) -> None:
        """What is granted passes, in both families, and what is not does not."""
        assert {url: self.fetch(url) for url in (*ALLOWED, *DENIED)} == {
            **dict.fromkeys(ALLOWED, True),
            **dict.fromkeys(DENIED, False),
        }

    def events(self, log: str = EVENTS, **fields: Any) -> list[dict[str, Any]]:
        """Return the lines of an event log that have these fields; every line is held against the schema."""
        return [line for line in checked(self.gateway.read(log).encode()) if fields.items() <= line.items()]
