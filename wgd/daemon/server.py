"""wgd-server run: the gateway and the recorder under one loop, with signals and the service manager around them."""

from __future__ import annotations

import gc
import logging
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from wgd import __version__
from wgd.daemon import notify
from wgd.daemon.control import ControlSocket
from wgd.daemon.drift import Drift, parts_of
from wgd.daemon.explaining import explanation, question
from wgd.daemon.gateway import Gateway
from wgd.daemon.listening import refuse_live
from wgd.daemon.loop import Loop
from wgd.daemon.neighbours import Neighbours
from wgd.daemon.recordings import Recordings
from wgd.daemon.reload import Reload
from wgd.daemon.service import Service
from wgd.daemon.status import DriftSeen, event_log_fields, is_live, kernel_fields, troubles_in_words
from wgd.daemon.watch import Watch
from wgd.errors import WgdError
from wgd.host.control import CONTROL_SOCKET
from wgd.host.files import Note
from wgd.host.privileges import keep_privileges_from_children
from wgd.kernel.monitor import Notice, Subject
from wgd.kernel.nft_counters import read_logged
from wgd.model import Address, ServerConfig
from wgd.plan.gateway import ALL_PARTS, Desired, Difference, Part
from wgd.plan.preview import Change
from wgd.plan.reloaded import reloaded

log = logging.getLogger(__name__)

NOTE = Note(Path("/run/wgd-server/found.json"))
CHECK_SECONDS = 10.0
"""How often the kernel is read back when no watchdog sets the pace."""
TICK_SECONDS = 1.0
"""How often it is looked whether a time is over: of a caller on the control socket, of a reload to be confirmed, of
what is not told at once."""


class Server:
    """The daemon. `load` reads the config anew whenever it is called; it is called once to begin with.

    Raise ConfigError or HostError for a config or a key file that cannot be used, ConflictError when the host is in
    the way. Nothing is touched before `run`.

    With `leave_up` the end of `run` leaves everything that was set standing, for a next run to go on with or for
    `take_down`.
    """

    def __init__(self, load: Callable[[], ServerConfig], *, leave_up: bool = False) -> None:
        self._leave_up = leave_up
        config = load()
        self._gateway = Gateway(NOTE)
        self._first = self._gateway.prepare(config)
        self._recordings = Recordings()
        self._reload = Reload(self._gateway, self._recordings, load, self._reloaded)
        self._started = time.time()
        self._drift_seen = DriftSeen()
        self._failing: str | None = None
        self._drift = Drift(self._gateway, self._tell_drift)
        self._neighbours = Neighbours(self._gateway.neighbours)

    def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, stop. Raise WgdError when the start or the stop fails."""
        # The recorder begins without them; the daemon itself keeps them.
        keep_privileges_from_children()
        try:
            # First of all: it refuses where another daemon runs. Who calls now is answered when all is ready.
            with closing(ControlSocket(CONTROL_SOCKET, Service(self).answer)) as control, Loop() as loop:
                # Before the start: a signal that comes during it waits for the loop, and stop takes everything back.
                loop.on_signal((signal.SIGTERM, signal.SIGINT), loop.stop)
                loop.on_signal((signal.SIGHUP,), self._hang_up)
                loop.on_signal((signal.SIGUSR1,), self._recordings.reopen)
                self._start()
                loop.every(notify.watchdog_interval() or CHECK_SECONDS, self._check)
                Watch(loop, self._gateway.monitor, self._concerns, self._notified)
                loop.on_readable(control, control.handle)
                loop.every(TICK_SECONDS, control.expire)
                loop.every(TICK_SECONDS, self._reload.go_back_in_time)
                loop.every(TICK_SECONDS, self._drift.tell)
                self._recordings.listen(loop)
                loop.run()
                self._stop()
        finally:
            self._recordings.stop()
            self._gateway.close()

    def _start(self) -> None:
        config = self._first.config
        # Before the ruleset: the kernel keeps nothing for a log group that nobody reads.
        self._recordings.start(config)
        self._gateway.start(self._first)
        self._recordings.event("started")
        log.info("%s is ready: %s", config.interface.name, describe(config))
        self._neighbours.look()
        notify.status(self._status())
        notify.ready()
        # A config's values stay: nobody has to look through a million of them for garbage again and again.
        gc.collect()
        gc.freeze()

    def _stop(self) -> None:
        notify.stopping()
        log.info("stopping%s", "; what was set stays up" if self._leave_up else "")
        if not self._leave_up:
            self._gateway.stop()
            self._recordings.end_flows()
        self._recordings.event("stopped")

    def _hang_up(self) -> None:
        # What is wrong is in the log.
        with suppress(WgdError):
            self.reload(None)

    def reload(self, confirm: int | None) -> None:
        """Do what Reload.reload does, and tell the service manager when it begins and ends."""
        notify.reloading()
        try:
            self._reload.reload(confirm)
        except WgdError:
            notify.status(f"{self._status()}; the last reload was refused")
            raise
        finally:
            notify.ready()

    def confirm(self) -> bool:
        """Keep the config that was to be confirmed; False when none was."""
        return self._reload.confirm()

    def _reloaded(self, desired: Desired, before: Desired | None, how: str) -> None:
        log.info("%s: %s", how, describe(desired.config))
        self._recordings.event("reloaded", detail=how)
        for change in reloaded(desired.config, before.config) if before is not None else ():
            about = {} if change.object is None else {"object": change.object}
            self._recordings.event("reloaded", **about, action=change.action, detail=change.detail, count=change.count)
        self._neighbours.look(anew=True)
        notify.status(self._status())

    def plan(self) -> tuple[Change, ...]:
        """Return what a reload would change; raise WgdError where it would be refused."""
        return self._gateway.preview(self._reload.prepare())

    def explain(
        self, client: str, to: Address, proto: int | None, port: int | None, *, incoming: bool
    ) -> dict[str, Any] | None:
        """Return what Explain answers, None when there is no such client; raise KernelError as `status` does."""
        config = self._config
        asked = question(config, client, to, proto, port, incoming=incoming)
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
            "event_log": event_log_fields(self._recordings.current, config),
            **self._drift_seen.fields(),
            "neighbours": self._neighbours.fields(),
            "failing": self._failing,
            "confirm_seconds": self._reload.confirm_seconds,
        }

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
            self._recordings.check()
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
        self._recordings.event("drift", object=difference.object, action=action, detail=difference.detail, count=count)
        times = "" if count == 1 else f" ({count} changes)"
        level, end = (logging.WARNING, "restored") if action == "restored" else (logging.ERROR, "cannot be put back")
        log.log(level, "%s %s: somebody changed it%s; %s", difference.object, difference.detail, times, end)

    def _status(self) -> str:
        """Return one line for `systemctl status`."""
        desired = self._gateway.desired
        if desired is None:
            return "starting"
        now = time.time()
        live = sum(is_live(handshake, now) for handshake in self._gateway.handshakes)
        troubles = troubles_in_words(self._recordings.current, self._drift_seen, len(self._neighbours.found))
        return ", ".join([describe(desired.config), f"{live} live", *troubles])


def take_down(load: Callable[[], ServerConfig]) -> None:
    """Take down what a run with `leave_up` has left standing, and have the log of `load`'s config close its flows.

    Raise ConflictError while a daemon runs, and the first error after everything was tried.
    """
    refuse_live(CONTROL_SOCKET)
    keep_privileges_from_children()
    recordings = Recordings()
    try:
        if read_logged() is not None:
            recordings.start(load())
    except WgdError as error:
        log.warning("the log does not tell of the flows that end now: %s", error)
    try:
        with closing(Gateway(NOTE)) as gateway:
            gateway.stop()
        recordings.end_flows()
    finally:
        recordings.stop()


def describe(config: ServerConfig) -> str:
    """Return the config in a few words, for people."""
    peers = f"{len(config.peers)} peer{'' if len(config.peers) == 1 else 's'}"
    events = f"events to {config.logging.path}" if config.logging.enabled else "no event log"
    return f"{config.authz_mode.value}, {peers}, {events}"
