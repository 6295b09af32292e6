"""wgd-server run: the gateway and the recorder under one loop, with signals and the service manager around them."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

from wgd import __version__
from wgd.daemon import notify
from wgd.daemon.confirmation import Confirmation
from wgd.daemon.control import ControlSocket
from wgd.daemon.drift import Drift, parts_of
from wgd.daemon.explaining import explanation, question
from wgd.daemon.gateway import Gateway
from wgd.daemon.loop import Loop
from wgd.daemon.neighbours import Neighbours
from wgd.daemon.recording import Recording
from wgd.daemon.service import Service
from wgd.daemon.status import DriftSeen, event_log_fields, is_live, kernel_fields
from wgd.daemon.watch import Watch
from wgd.errors import WgdError
from wgd.host.control import CONTROL_SOCKET
from wgd.host.files import Note
from wgd.kernel.monitor import Notice, Subject
from wgd.kernel.nflog import open_nflog
from wgd.model import Address, ServerConfig
from wgd.plan.gateway import ALL_PARTS, Desired, Difference, Part
from wgd.plan.preview import Change
from wgd.policy.names import names
from wgd.policy.table import policy_digest

log = logging.getLogger(__name__)

RUNTIME_DIRECTORY = Path("/run/wgd-server")
CHECK_SECONDS = 10.0
"""How often the kernel is read back when no watchdog sets the pace."""
TICK_SECONDS = 1.0
"""How often it is looked whether a time is over: of a caller on the control socket, of a reload to be confirmed, of
what is not told at once."""


class Server:
    """The daemon. `load` reads the config anew whenever it is called; it is called once to begin with.

    Raise ConfigError or HostError for a config or a key file that cannot be used, ConflictError when the host is in
    the way. Nothing is touched before `run`.
    """

    def __init__(self, load: Callable[[], ServerConfig]) -> None:
        self._load = load
        config = load()
        self._gateway = Gateway(Note(RUNTIME_DIRECTORY / "found.json"))
        self._first = self._gateway.prepare(config)
        self._recording: Recording | None = None
        self._loop: Loop | None = None
        self._heard: Recording | None = None
        self._started = time.time()
        self._confirmation = Confirmation()
        self._drift_seen = DriftSeen()
        self._failing: str | None = None
        self._drift = Drift(self._gateway, self._tell_drift)
        self._neighbours = Neighbours(self._gateway.neighbours)

    def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, stop. Raise WgdError when the start or the stop fails."""
        try:
            # First of all: it refuses where another daemon runs. Who calls now is answered when all is ready.
            with closing(ControlSocket(CONTROL_SOCKET, Service(self).answer)) as control, Loop() as loop:
                # Before the start: a signal that comes during it waits for the loop, and stop takes everything back.
                loop.on_signal((signal.SIGTERM, signal.SIGINT), loop.stop)
                loop.on_signal((signal.SIGHUP,), self._hang_up)
                loop.on_signal((signal.SIGUSR1,), self._reopen)
                self._start()
                loop.every(notify.watchdog_interval() or CHECK_SECONDS, self._check)
                Watch(loop, self._gateway.monitor, self._concerns, self._notified)
                loop.on_readable(control, control.handle)
                loop.every(TICK_SECONDS, control.expire)
                loop.every(TICK_SECONDS, self._go_back_in_time)
                loop.every(TICK_SECONDS, self._drift.tell)
                self._loop = loop
                self._listen()
                loop.run()
                self._stop()
        finally:
            if self._recording is not None:
                self._recording.stop()
            self._gateway.close()

    def _start(self) -> None:
        config = self._first.config
        # Before the ruleset: the kernel keeps nothing for a log group that nobody reads.
        self._recording = start_recording(config)
        self._gateway.start(self._first)
        self._event("started")
        log.info("%s is ready: %s", config.interface.name, describe(config))
        self._neighbours.look()
        notify.status(self._status())
        notify.ready()

    def _stop(self) -> None:
        notify.stopping()
        log.info("stopping")
        self._gateway.stop()
        self._event("stopped")

    def _hang_up(self) -> None:
        # What is wrong is in the log.
        with suppress(WgdError):
            self.reload(None)

    def reload(self, confirm: int | None) -> None:
        """Read the config anew and go over to it; raise WgdError, and stay with what was, when that is refused.

        `confirm` is after how many seconds to go back unless `confirm` was called.
        """
        notify.reloading()
        before = self._gateway.desired
        try:
            desired = self._gateway.prepare(self._load())
            self._go_over_to(desired)
        except WgdError as error:
            log.error("reload refused:")
            for line in str(error).splitlines():
                log.error("  %s", line)
            notify.status(f"{self._status()}; the last reload was refused")
            raise
        else:
            if confirm is not None and before is not None:
                self._confirmation.begin(before, confirm, time.monotonic())
            self._reloaded(desired, "reloaded" if confirm is None else f"reloaded, to be confirmed in {confirm} s")
        finally:
            notify.ready()

    def confirm(self) -> bool:
        """Keep the config that was to be confirmed; False when none was."""
        confirmed = self._confirmation.end()
        if confirmed:
            log.info("the reload is confirmed")
        return confirmed

    def _go_back_in_time(self) -> None:
        """Go back to the config before when nobody has confirmed the new one in time."""
        before = self._confirmation.due(time.monotonic())
        if before is None:
            return
        log.warning("nobody has confirmed the reload: going back to the config before; the files are still the new one")
        try:
            self._go_over_to(before)
        except WgdError as error:
            log.error("cannot go back, and will try again: %s", error)
            self._confirmation.retry(time.monotonic())
        else:
            self._confirmation.end()
            self._reloaded(before, "went back")

    def _reloaded(self, desired: Desired, how: str) -> None:
        log.info("%s: %s", how, describe(desired.config))
        self._event("reloaded", detail=how)
        self._neighbours.look(anew=True)
        notify.status(self._status())

    def plan(self) -> tuple[Change, ...]:
        """Return what a reload would change; raise WgdError where it would be refused."""
        return self._gateway.preview(self._gateway.prepare(self._load()))

    def explain(self, client: str, to: Address, proto: int | None, port: int | None) -> dict[str, Any] | None:
        """Return what Explain answers, None when there is no such client; raise KernelError as `status` does."""
        config = self._config
        asked = question(config, client, to, proto, port)
        if asked is None:
            return None
        self._neighbours.look()
        answers = explanation(config, asked, *self._gateway.explain(asked))
        return {**answers, "neighbours": self._neighbours.fields()}

    @property
    def _config(self) -> ServerConfig:
        return (self._gateway.desired or self._first).config

    def status(self) -> dict[str, Any]:
        """Return what Status answers; raise KernelError when the kernel cannot be read."""
        config = self._config
        return {
            "version": __version__,
            "started": self._started,
            **kernel_fields(config, self._gateway.view()),
            "event_log": event_log_fields(self._recording, config),
            **self._drift_seen.fields(),
            "neighbours": self._neighbours.fields(),
            "failing": self._failing,
            "confirm_seconds": self._confirmation.left(time.monotonic()),
        }

    def _go_over_to(self, desired: Desired) -> None:
        """Reload with the recorder one step ahead: it knows the new names before a packet is logged with them."""
        before = self._gateway.desired
        old, new = before.config.logging if before is not None else None, desired.config.logging
        if old is None or (old.enabled, old.nflog_group) != (new.enabled, new.nflog_group):
            self._reload_with_another_recording(desired)
            return
        if self._recording is not None:
            self._recording.names(names(desired.config, policy_digest(desired.config)))
            if old.path != new.path:
                self._recording.move(Path(new.path))
        try:
            self._gateway.reload(desired)
        except WgdError:
            if self._recording is not None and old.path != new.path:
                self._recording.move(Path(old.path))
            raise

    def _reload_with_another_recording(self, desired: Desired) -> None:
        """Reload with a recorder on other groups: the new one reads before the ruleset logs to them."""
        old, self._recording = self._recording, start_recording(desired.config)
        try:
            self._gateway.reload(desired)
        except WgdError:
            old, self._recording = self._recording, old
            raise
        finally:
            self._listen()
            if old is not None:
                old.stop()

    def _listen(self) -> None:
        """Have the loop hear the recorder in use, and no longer the one before."""
        if self._loop is None or self._heard is self._recording:
            return
        if self._heard is not None:
            self._loop.forget(self._heard)
        if self._recording is not None:
            self._loop.on_readable(self._recording, self._recording.handle)
        self._heard = self._recording

    def _reopen(self) -> None:
        if self._recording is not None:
            self._recording.reopen()

    def _check(self) -> None:
        """Read the kernel back, put back what is gone, and feed the watchdog only when all is there."""
        self._neighbours.look()
        self._look(ALL_PARTS)
        if self._failing is None:
            notify.watchdog()

    def _look(self, parts: frozenset[Part]) -> bool:
        """Put back what others changed of `parts`; tell whether there was anything, or something could not be."""
        try:
            drifted = self._drift.check(parts)
            if self._recording is not None:
                self._recording.check()
            notify.status(self._status())
        except WgdError as error:
            if str(error) != self._failing:
                log.error("%s", error)
            self._failing = str(error)
            notify.status(f"failing: {error}")
            return True
        self._failing = None
        if drifted:
            # What others changed at the same time was discarded with what the repair did.
            self._neighbours.notified((Notice(Subject.LOST),))
        return drifted

    def _notified(self, notices: frozenset[Notice]) -> bool:
        """Look at what the kernel has notified, and at all of it where something is missing already."""
        self._neighbours.notified(notices)
        parts = self._parts(notices)
        if not parts:
            # Only somebody else's tables: they can wait for the next check.
            return False
        return self._look(parts if self._failing is None else ALL_PARTS)

    def _concerns(self, notice: Notice) -> bool:
        return notice.subject is Subject.TABLE or bool(self._parts((notice,)))

    def _parts(self, notices: Iterable[Notice]) -> frozenset[Part]:
        config = (self._gateway.desired or self._first).config
        return parts_of(notices, config.interface.name, frozenset({config.routing.table, config.routing.table + 1}))

    def _tell_drift(self, difference: Difference, action: str, count: int) -> None:
        self._drift_seen.add(difference, action, count)
        self._event("drift", object=difference.object, action=action, detail=difference.detail, count=count)
        times = "" if count == 1 else f" ({count} changes)"
        level, end = (logging.WARNING, "restored") if action == "restored" else (logging.ERROR, "cannot be put back")
        log.log(level, "%s %s: somebody changed it%s; %s", difference.object, difference.detail, times, end)

    def _event(self, event: str, **fields: str | int) -> None:
        if self._recording is not None:
            self._recording.event(event, **fields)

    def _status(self) -> str:
        """Return one line for `systemctl status`."""
        desired, device = self._gateway.desired, self._gateway.device()
        if desired is None or device is None:
            return "starting"
        live = sum(is_live(peer, time.time()) for peer in device.peers)
        in_the_way = len(self._neighbours.found)
        neighbours = f", {in_the_way} in the way (wgd-server status)" if in_the_way else ""
        return f"{describe(desired.config)}, {live} live{neighbours}"


def describe(config: ServerConfig) -> str:
    """Return the config in a few words, for people."""
    peers = f"{len(config.peers)} peer{'' if len(config.peers) == 1 else 's'}"
    events = f"events to {config.logging.path}" if config.logging.enabled else "no event log"
    return f"{config.authz_mode.value}, {peers}, {events}"


def start_recording(config: ServerConfig) -> Recording | None:
    """Return a running recorder for `config`, or None when it logs nothing; its sockets are bound when this returns."""
    if not config.logging.enabled:
        return None
    group = config.logging.nflog_group
    with ExitStack() as opened:
        sockets = [opened.enter_context(open_nflog(number)) for number in (group, group + 1)]
        recording = Recording(sockets, Path(config.logging.path), names(config, policy_digest(config)))
        opened.pop_all()
    recording.start()
    return recording
