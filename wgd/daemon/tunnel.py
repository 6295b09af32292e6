"""One WireGuard interface on this host, found or created: what gateway and client have in common."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_interface

from wgd.daemon.found import Found, Memory
from wgd.errors import ConflictError, KernelError
from wgd.host.files import Note
from wgd.kernel.links import Links
from wgd.kernel.monitor import Monitor
from wgd.kernel.wireguard import WireGuard, open_wireguard
from wgd.model import Backend, Interface, PublicKey, SecretKey
from wgd.plan import peers, routing
from wgd.plan.state import Device, DeviceAddress, DeviceChange, Link, PeerChange

log = logging.getLogger(__name__)

NO_KEY = SecretKey(bytes(32))
"""WireGuard's word for taking the private key away."""


class Tunnel:
    """The interface of one daemon. Every setter reads, compares and sets only what differs."""

    def __init__(self, note: Note) -> None:
        self.links = Links()
        self.memory = Memory(note)
        self._wireguard: WireGuard | None = None
        self._monitor: Monitor | None = None

    def close(self) -> None:
        """Let go of the kernel's sockets; everything set stays."""
        self.links.close()
        if self._monitor is not None:
            self._monitor.close()
        if self._wireguard is not None:
            self._wireguard.close()

    @property
    def monitor(self) -> Monitor:
        """What the kernel notifies of what others changed, from the first time that this is asked for."""
        if self._monitor is None:
            self._monitor = Monitor()
        return self._monitor

    def left_behind(self, name: str) -> bool:
        """Tell whether an earlier run left another interface than `name` behind, which has to be taken down first."""
        found = self.memory.found
        if found is None or found.interface == name:
            return False
        log.info("taking down %s, which an earlier run left behind", found.interface)
        return True

    def open(self, interface: Interface, desired: Device) -> None:
        """Find or create the interface, and note what was there before.

        Raise ConflictError when it is somebody else's tunnel, UnsupportedError when it cannot be created here.
        """
        link = self.links.find(interface.name)
        if self._wireguard is not None:
            self._wireguard.close()
        self._wireguard = open_wireguard(interface.name, interface.backend, link)
        if link is None:
            if interface.backend is Backend.USERSPACE:
                raise KernelError(
                    interface.name,
                    "does not exist, and backend is userspace: start its WireGuard first"
                    f" (systemctl start wgd-userspace@{interface.name}.service, or wireguard-go {interface.name})",
                )
            self._create(interface.name)
        elif self.memory.found is None or self.memory.found.index != link.index:
            device = self._wireguard.read(interface.name)
            _refuse_foreign(device, desired)
            settings = self.memory.found.settings if self.memory.found is not None else {}
            self.memory.begin(replace(Found.of(link, device), settings=settings))

    def _create(self, name: str) -> None:
        """Create the interface and note that it is ours to delete, whatever stood there before."""
        link = self.links.create_wireguard(name)
        settings = self.memory.found.settings if self.memory.found is not None else {}
        self.memory.begin(Found(name, created=True, index=link.index, settings=settings))

    def link(self, name: str) -> Link:
        """Return the link; raise KernelError when it is gone."""
        link = self.links.find(name)
        if link is None:
            raise KernelError(name, "the interface has disappeared")
        return link

    def device(self, name: str) -> Device:
        """Return the WireGuard device with its peers' handshakes and counters."""
        if self._wireguard is None:
            raise KernelError(name, "is not open yet")
        return self._wireguard.read(name)

    def set_device(self, desired: Device, before: Device | None) -> None:
        """Set key, listen port and peers; `before` is what was last wanted, so that a roamed endpoint stays."""
        actual = self.device(desired.name)
        if self._wireguard is not None:
            self._wireguard.apply(desired.name, peers.change(desired, actual, before))

    def set_link(self, name: str, mtu: int | None) -> None:
        """Set the MTU if one is wanted, and the interface up."""
        link = self.link(name)
        if mtu is not None and link.mtu != mtu:
            self.links.set_mtu(link, mtu)
        if not link.up:
            self.links.set_up(link, up=True)

    def set_addresses(self, name: str, addresses: tuple[DeviceAddress, ...]) -> None:
        """Set the addresses; one that was there before and is not ours stays."""
        link = self.link(name)
        added = self.memory.found.addresses if self.memory.found is not None else ()
        change = routing.change(addresses, self.links.addresses(link))
        self.memory.change(addresses=tuple(dict.fromkeys((*added, *(str(new.address) for new in change.add)))))
        wanted = {address.address for address in addresses}
        for old in change.remove:
            # The same address without noprefixroute: the kernel does not change that flag on one that is there.
            if old.address in wanted:
                self.links.remove_address(link, old)
        for new in change.add:
            self.links.add_address(link, new)
        for old in change.remove:
            if old.address not in wanted and str(old.address) in added:
                self.links.remove_address(link, old)

    def undo(self, ours: frozenset[PublicKey] | None) -> None:
        """Delete the interface that start created, or leave the one it found as it was.

        `ours` are the peers to take from a found interface; None, after a crash, means all.
        """
        found = self.memory.found
        link = self.links.find(found.interface) if found is not None else None
        if found is None or link is None:
            return
        if found.created:
            self.links.delete(link)
            return
        door = open_wireguard(link.name, Backend.AUTO, link)
        leaving = [peer.public_key for peer in door.read(link.name).peers if ours is None or peer.public_key in ours]
        door.apply(
            link.name,
            DeviceChange(
                private_key=None if found.had_key else NO_KEY,
                listen_port=found.listen_port,
                peers=tuple(PeerChange(public_key, remove=True) for public_key in leaving),
            ),
        )
        for address in found.addresses:
            # Whoever removed it before us wanted the same.
            with suppress(KernelError):
                self.links.remove_address(link, DeviceAddress(ip_interface(address)))
        if link.mtu != found.mtu:
            self.links.set_mtu(link, found.mtu)
        if not found.up:
            self.links.set_up(link, up=False)


def _refuse_foreign(device: Device, desired: Device) -> None:
    """Refuse an interface that was there before and is somebody else's tunnel."""
    if device.private_key is not None and device.private_key != desired.private_key:
        raise ConflictError(
            device.name,
            "is already configured with another private key: it is somebody else's tunnel."
            " Remove it or choose another interface.name",
        )
