"""The client's side of a tunnel: from a config to the kernel and back."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from wgd.daemon.tunnel import Tunnel
from wgd.errors import ConflictError, KernelError, WgdError
from wgd.host.files import Note, private_key_path, read_key
from wgd.kernel.monitor import Monitor
from wgd.model import ClientConfig, Endpoint
from wgd.plan import client as plan
from wgd.plan import routing
from wgd.plan.client import Actual, Desired
from wgd.plan.state import DevicePeer

log = logging.getLogger(__name__)


class Connection:
    """One interface to one server, in the network namespace of this process."""

    def __init__(self, note: Note) -> None:
        self._tunnel = Tunnel(note)
        self.desired: Desired | None = None

    def close(self) -> None:
        """Let go of the kernel's sockets; everything set stays."""
        self._tunnel.close()

    @property
    def monitor(self) -> Monitor:
        """What the kernel notifies of what others changed, from the first time that this is asked for."""
        return self._tunnel.monitor

    def prepare(self, config: ClientConfig, in_use: Endpoint | None = None) -> Desired:
        """Return what `config` wants; changes nothing. `in_use` is a literal endpoint to stay with.

        Raise HostError for a key file that is refused, ConflictError for a route or endpoint that is in the way.
        """
        if self.desired is not None and config.interface.name != self.desired.config.interface.name:
            raise ConflictError("interface.name", "cannot change while the client runs: restart it")
        private_key = read_key(private_key_path(config.interface.private_key_file))
        preshared = config.server.preshared_key_file
        for endpoint in config.server.endpoints:
            if endpoint.address is not None:
                plan.refuse_loop(config, endpoint.address)
        plan.refuse_conflicts(config, self._tunnel.links.routes())
        desired = plan.desired(config, private_key, read_key(Path(preshared)) if preshared is not None else None)
        return desired if in_use is None else desired.with_endpoint(in_use)

    def start(self, desired: Desired) -> None:
        """Bring everything up and read it back. Raise at the first step that fails, with everything undone."""
        if self._tunnel.left_behind(desired.device.name):
            self.stop()
        self._tunnel.open(desired.config.interface, desired.device)
        try:
            self._apply(desired, None)
        except WgdError:
            with suppress(WgdError):
                self.stop()
            raise

    def reload(self, desired: Desired) -> None:
        """Go over to `desired`; when a step fails, go back to what was and raise."""
        before = self.desired
        try:
            self._apply(desired, before)
        except WgdError:
            if before is not None:
                self._apply(before, desired)
            raise

    def use(self, endpoint: Endpoint) -> None:
        """Send to another endpoint of the server, a literal one; raise ConflictError when it lies in AllowedIPs."""
        if self.desired is None:
            return
        if endpoint.address is not None:
            plan.refuse_loop(self.desired.config, endpoint.address)
        self.desired = self.desired.with_endpoint(endpoint)
        self._tunnel.set_device(self.desired.device, None)

    def actual(self) -> Actual | None:
        """Return what the kernel holds, None before the start; raise KernelError when it cannot be read."""
        return None if self.desired is None else self._actual(self.desired)

    def missing(self) -> tuple[str, ...]:
        """Return in words what the kernel no longer holds of what was last set."""
        return () if self.desired is None else tuple(plan.missing(self.desired, self._actual(self.desired)))

    def repair(self) -> None:
        """Put back what is missing."""
        if self.desired is not None:
            self._tunnel.open(self.desired.config.interface, self.desired.device)
            self._apply(self.desired, self.desired)

    def server(self) -> DevicePeer | None:
        """Return the server peer as the kernel has it, or None when it is not there."""
        if self.desired is None:
            return None
        peers = self._tunnel.device(self.desired.device.name).peers
        wanted = self.desired.config.server.public_key
        return next((peer for peer in peers if peer.public_key == wanted), None)

    def stop(self) -> None:
        """Take back what start did: the routes, then the interface."""
        links, desired, found = self._tunnel.links, self.desired, self._tunnel.memory.found
        if found is not None:
            for route in plan.our_routes(found.interface, links.routes()):
                links.remove_route(route)
        self._tunnel.undo(None if desired is None else frozenset({desired.config.server.public_key}))
        self._tunnel.memory.forget()
        self.desired = None

    def _apply(self, desired: Desired, before: Desired | None) -> None:
        """Set what differs, the interface before its routes, and read it back."""
        name, links = desired.device.name, self._tunnel.links
        self.desired = desired
        self._tunnel.set_device(desired.device, before.device if before is not None else None)
        self._tunnel.set_link(name, desired.config.interface.mtu)
        self._tunnel.set_addresses(name, desired.addresses)
        change = routing.change(desired.routes, plan.our_routes(name, links.routes()))
        for route in change.add:
            links.add_route(route)
        for route in change.remove:
            links.remove_route(route)
        # What was notified so far is in what is read now: what we do ourselves makes nobody look again.
        self.monitor.discard()
        missing = self.missing()
        if missing:
            raise KernelError(name, f"the kernel does not hold what was set: {missing[0]}")
        for bypass in plan.bypasses(desired.config, links.routes()):
            log.warning("%s", bypass)

    def _actual(self, desired: Desired) -> Actual:
        links = self._tunnel.links
        link = links.find(desired.device.name)
        if link is None:
            return Actual(None, None, (), links.routes())
        return Actual(link, self._tunnel.device(link.name), links.addresses(link), links.routes())
