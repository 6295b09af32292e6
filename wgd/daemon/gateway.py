"""The gateway: from a config to the kernel and back.

The order of the steps is part of the promise. At start the ruleset and the routing rules stand before the interface
comes up and before anything is forwarded; at stop the interface goes first and the locks last, so that at no moment
a packet passes that enforce would drop. Every step reads, compares and sets only what differs: the first start, a
start after a crash, a reload and a repair are the same steps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from wgd.daemon.status import View
from wgd.daemon.table import Table
from wgd.daemon.tunnel import Tunnel
from wgd.errors import ConflictError, KernelError, SubjectError, WgdError
from wgd.host import sysctl
from wgd.host.files import Note, private_key_path, read_key
from wgd.kernel.monitor import Monitor
from wgd.kernel.nft_others import read_other_tables
from wgd.model import Forwarding, ServerConfig
from wgd.plan import flow_accounting, forwarding, routing
from wgd.plan import gateway as plan
from wgd.plan.explain import Answer, Question, by_config, by_kernel, sources
from wgd.plan.gateway import ALL_PARTS, Actual, Desired, Difference, Keys, Part
from wgd.plan.neighbours import Finding, findings
from wgd.plan.preview import Change, preview
from wgd.plan.state import PROTOCOL, Device, Way

log = logging.getLogger(__name__)

STEPS = {
    "forwarding that is not wanted any more": Part.FORWARDING,
    "accounting of flows": Part.FORWARDING,
    "ruleset": Part.RULESET,
    "accounting of flows, now that conntrack is there": Part.FORWARDING,
    "routing rules": Part.RULES,
    "prohibit routes": Part.ROUTES,
    "peers": Part.DEVICE,
    "link": Part.LINK,
    "addresses": Part.LINK,
    "routes": Part.ROUTES,
    "forwarding": Part.FORWARDING,
}
"""The steps to a config and what each of them is about."""
LOCKS = frozenset({Part.RULESET, Part.RULES})


class Gateway:
    """One gateway interface with its peers, locks and forwarding, in the network namespace of this process."""

    def __init__(self, note: Note) -> None:
        self._tunnel = Tunnel(note)
        self._table = Table()
        self.desired: Desired | None = None
        self.handshakes: tuple[float, ...] = ()
        """When the peers last shook hands, as of the last time that they were read back."""

    def close(self) -> None:
        """Let go of the kernel's sockets; everything set stays."""
        self._tunnel.close()
        self._table.close()

    @property
    def monitor(self) -> Monitor:
        """What the kernel notifies of what others changed, from the first time that this is asked for."""
        return self._tunnel.monitor

    def prepare(self, config: ServerConfig) -> Desired:
        """Return what `config` wants of this host; changes nothing.

        Raise HostError for a key file that is refused, ConflictError when the host is in the way.
        """
        keys = read_keys(config)
        if self.desired is not None and config.interface.name != self.desired.config.interface.name:
            raise ConflictError("interface.name", "cannot change while the gateway runs: restart it")
        # Tables that are ours already were free when we took them.
        ours = self.desired is not None and config.routing == self.desired.config.routing
        routes = () if ours else self._tunnel.links.routes()
        routing.refuse_collisions(config, self._tunnel.links.rules(), routes)
        held = forwarding.held_families(config, sysctl.read_settings(), self._originals())
        return plan.desired(config, keys, held, self.desired)

    def start(self, desired: Desired) -> None:
        """Bring everything up and read it back. Raise at the first step that fails, with everything undone."""
        if self._tunnel.left_behind(desired.device.name):
            self.stop()
        self._tunnel.open(desired.config.interface, desired.device)
        try:
            self.desired = self._apply(desired, None)
        except WgdError:
            with suppress(WgdError):
                self.stop()
            raise

    def reload(self, desired: Desired) -> None:
        """Go over to `desired`; when a step fails, go back to what was and raise."""
        before = self.desired
        try:
            self.desired = self._apply(desired, before, plan.changed_parts(desired, before))
        except WgdError as error:
            log.error("reload failed, going back: %s", error)
            if before is not None:
                self._go_back(before, desired, error)
            raise

    def _go_back(self, before: Desired, desired: Desired, reason: WgdError) -> None:
        """Apply what was before; raise KernelError with both reasons when that fails too."""
        try:
            self.desired = self._apply(before, desired)
        except WgdError as error:
            raise KernelError(
                desired.device.name, f"{reason}; and it could not go back, which the next check tries again: {error}"
            ) from error

    def differences(self, parts: frozenset[Part] = ALL_PARTS) -> tuple[Difference, ...]:
        """Return in what the kernel differs from what the gateway last set; only `parts` are read."""
        if self.desired is None:
            return ()
        if Part.RULESET in parts and self._table.is_as_trusted():
            parts -= {Part.RULESET}
        actual = self._actual(self.desired, parts)
        found = plan.differences(self.desired, actual, self._originals(), time.time(), parts)
        if Part.RULESET in parts and not found:
            self._table.trust(actual.ruleset)
        return found

    def repair(self, parts: frozenset[Part] = ALL_PARTS) -> None:
        """Put back what is missing of `parts`; only they are read and set."""
        if self.desired is None:
            return
        if Part.LINK in parts:
            try:
                self._tunnel.open(self.desired.config.interface, self.desired.device)
            except WgdError:
                # Both locks hold without an interface, and where wgd has switched forwarding on, they must.
                self.desired = self._apply(self.desired, self.desired, parts & LOCKS)
                raise
        self.desired = self._apply(self.desired, self.desired, parts)

    def preview(self, desired: Desired) -> tuple[Change, ...]:
        """Return what `reload` would change, in words; changes nothing."""
        before = self.desired if self.desired is not None else desired
        return preview(desired, before, self._actual(desired), self._originals(), time.time())

    def explain(self, question: Question) -> tuple[Answer, Answer]:
        """Return whether a client may reach something, by the config and by what the kernel holds."""
        if self.desired is None:
            raise KernelError("gateway", "has not started yet")
        actual, source = self._actual(self.desired), next(iter(sources(question)), None)
        way = Way(None)
        if source is not None and actual.link is not None:
            mark = self.desired.config.routing.mark
            way = self._tunnel.links.way(source, question.to, actual.link.name, mark)
        told = by_config(self.desired.config, question, way, time.time())
        return told, by_kernel(self.desired, actual, question, way)

    def view(self) -> View:
        """Return what the kernel shows of the gateway for `status`."""
        link = self._tunnel.links.find(self.desired.device.name) if self.desired is not None else None
        if link is None:
            return View(None, None, (), self._table.dropped())
        return View(link, self._tunnel.device(link.name), self._tunnel.links.addresses(link), self._table.dropped())

    def neighbours(self) -> tuple[Finding, ...]:
        """Return what others on this host do to the gateway's traffic."""
        if self.desired is None:
            return ()
        rules = self._tunnel.links.rules()
        return findings(read_other_tables(), rules, sysctl.read_settings(), self.desired.config)

    def stop(self) -> None:
        """Take back what start did: the interface first, the locks last. Raise the first error after trying it all."""
        ours = None if self.desired is None else frozenset(peer.public_key for peer in self.desired.device.peers)
        steps: tuple[Callable[[], None], ...] = (
            lambda: self._tunnel.undo(ours),
            lambda: sysctl.write_settings(forwarding.restore(self._originals()), missing_ok=True),
            self._undo_routing,
            self._table.delete,
            self._tunnel.memory.forget,
        )
        errors: list[WgdError] = []
        for step in steps:
            try:
                step()
            except WgdError as error:
                errors.append(error)
        self.desired = None
        if errors:
            raise errors[0]

    def _originals(self) -> dict[str, str]:
        found = self._tunnel.memory.found
        return dict(found.settings) if found is not None else {}

    def _apply(self, desired: Desired, before: Desired | None, parts: frozenset[Part] = ALL_PARTS) -> Desired:
        """Set `parts`, read them back, and return `desired` with the ruleset's generation."""
        for name, step in self._steps(desired, before):
            try:
                if STEPS[name] in parts:
                    step()
            except SubjectError as error:
                raise type(error)(error.subject, f"{error.reason} (while setting the {name})") from error
        desired = replace(desired, ruleset=self._table.applied)
        if parts == ALL_PARTS:
            # What was notified so far is in what is read now: what we do ourselves makes nobody look again.
            self.monitor.discard()
        actual = self._actual(desired, parts)
        left = plan.differences(desired, actual, self._originals(), time.time(), parts)
        if left:
            listed = ", ".join(f"{difference.object} {difference.detail}" for difference in left[:3])
            raise KernelError(desired.device.name, f"the kernel does not hold what was set: {listed}")
        if Part.RULESET in parts:
            self._table.trust(actual.ruleset)
        return desired

    def _steps(self, desired: Desired, before: Desired | None) -> Iterator[tuple[str, Callable[[], None]]]:
        interface = desired.config.interface
        previous = before.device if before is not None else None
        # A family whose switch is on must not for a moment lack the rule that keeps others from being forwarded.
        yield "forwarding that is not wanted any more", lambda: self._give_back_forwarding(desired)
        # Before the ruleset records a flow; a host that had no conntrack so far has it with the ruleset.
        yield "accounting of flows", lambda: self._set_flow_accounting(desired)
        yield "ruleset", lambda: self._table.set(desired.ruleset)
        yield "accounting of flows, now that conntrack is there", lambda: self._set_flow_accounting(desired)
        yield "routing rules", lambda: self._set_rules(desired)
        yield "prohibit routes", lambda: self._set_routes(desired, {"prohibit"})
        yield "peers", lambda: self._tunnel.set_device(desired.device, previous)
        yield "link", lambda: self._tunnel.set_link(interface.name, interface.mtu)
        yield "addresses", lambda: self._tunnel.set_addresses(interface.name, desired.addresses)
        yield "routes", lambda: self._set_routes(desired, {"unicast", "prohibit"})
        yield "forwarding", lambda: self._set_forwarding(desired)

    def _set_rules(self, desired: Desired) -> None:
        change = routing.change(desired.rules, plan.our_rules(self._tunnel.links.rules()))
        for rule in change.add:
            self._tunnel.links.add_rule(rule)
        for rule in change.remove:
            self._tunnel.links.remove_rule(rule)

    def _set_routes(self, desired: Desired, kinds: set[str]) -> None:
        found = plan.routes_in_charge(self._tunnel.links.routes(), desired.config)
        change = routing.change(desired.routes, found)
        links = self._tunnel.links
        # Somebody else's may stand where ours has to.
        for route in change.remove:
            if route.protocol != PROTOCOL:
                links.remove_route(route)
        links.add_routes(route for route in change.add if route.kind in kinds)
        links.remove_routes(route for route in change.remove if route.kind in kinds and route.protocol == PROTOCOL)

    def _give_back_forwarding(self, desired: Desired) -> None:
        originals = self._originals()
        given_back = forwarding.no_longer_held(desired.config, sysctl.read_settings(), originals)
        sysctl.write_settings(given_back, missing_ok=True)
        # From now on these are the operator's: a later repair or stop must not write them again.
        kept = {name: value for name, value in originals.items() if name not in given_back}
        self._tunnel.memory.change(settings=kept)

    def _set_flow_accounting(self, desired: Desired) -> None:
        settings = sysctl.read_flow_settings()
        change = flow_accounting.desired_settings(desired.config, settings)
        if change:
            self._tunnel.memory.change(settings={**{name: settings[name] for name in change}, **self._originals()})
            sysctl.write_settings(change)

    def _set_forwarding(self, desired: Desired) -> None:
        settings = sysctl.read_settings()
        originals = self._originals()
        change = forwarding.desired_settings(desired.config, settings, originals)
        self._tunnel.memory.change(settings=forwarding.before(change, settings, originals))
        sysctl.write_settings(change)
        if desired.config.forwarding is Forwarding.MANUAL:
            for family in sorted(forwarding.missing_families(desired.config, sysctl.read_settings())):
                log.warning(
                    "IPv%s is not forwarded: forwarding is manual, and %s is off", family, forwarding.SWITCHES[family]
                )

    def _actual(self, desired: Desired, parts: frozenset[Part] = ALL_PARTS) -> Actual:
        """Read the kernel; what is of none of `parts` is left out."""
        links = self._tunnel.links
        link = links.find(desired.device.name)
        return Actual(
            link,
            self._device(link.name) if link is not None and Part.DEVICE in parts else None,
            links.addresses(link) if link is not None and Part.LINK in parts else (),
            plan.routes_in_charge(links.routes(), desired.config) if Part.ROUTES in parts else (),
            plan.our_rules(links.rules()) if Part.RULES in parts else (),
            self._table.read() if Part.RULESET in parts else None,
            sysctl.read_settings() if Part.FORWARDING in parts else {},
        )

    def _device(self, name: str) -> Device:
        device = self._tunnel.device(name)
        self.handshakes = tuple(peer.last_handshake for peer in device.peers)
        return device

    def _undo_routing(self) -> None:
        links = self._tunnel.links
        for route in plan.our_routes(links.routes()):
            links.remove_route(route)
        for rule in plan.our_rules(links.rules()):
            links.remove_rule(rule)


def read_keys(config: ServerConfig) -> Keys:
    """Return the secrets that `config` names; raise HostError for a file that is missing, exposed or holds no key."""
    private = read_key(private_key_path(config.interface.private_key_file))
    preshared = {
        peer.public_key: read_key(Path(peer.preshared_key_file))
        for peer in config.peers
        if peer.preshared_key_file is not None
    }
    return Keys(private.clamped(), preshared)
