"""wgd-client run: one connection under the loop, with signals and the service manager around it."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from wgd import __version__
from wgd.daemon import notify
from wgd.daemon.client_service import ClientService
from wgd.daemon.connection import Connection
from wgd.daemon.control import ControlSocket
from wgd.daemon.drift import Reports
from wgd.daemon.listening import refuse_live
from wgd.daemon.loop import Loop
from wgd.daemon.reach import Reach
from wgd.daemon.status import interface_fields, peer_fields
from wgd.daemon.watch import Watch
from wgd.errors import WgdError
from wgd.host.control import client_control_socket
from wgd.host.files import Note
from wgd.kernel.monitor import Notice, Subject
from wgd.model import ClientConfig
from wgd.plan.gateway import Difference

log = logging.getLogger(__name__)

RUNTIME_DIRECTORY = Path("/run/wgd-client")
CHECK_SECONDS = 5.0
TICK_SECONDS = 1.0
"""How often it is looked whether a caller on the control socket has had its time."""


class Client:
    """The daemon. `load` reads the config anew whenever it is called; it is called once to begin with.

    Raise ConfigError or HostError for a config or a key file that cannot be used, ConflictError when the host is in
    the way. Nothing is touched before `run`.

    With `leave_up` the end of `run` leaves everything that was set standing, for a next run to go on with or for
    `take_down`.
    """

    def __init__(self, name: str, load: Callable[[], ClientConfig], *, leave_up: bool = False) -> None:
        self._name = name
        self._started = time.time()
        self._load = load
        self._leave_up = leave_up
        config = load()
        self._connection = Connection(note(name))
        self._first = self._connection.prepare(config)
        self._reach = Reach(self._connection.use)
        self._reports = Reports()
        self._failing: str | None = None

    def run(self) -> None:
        """Start, serve until SIGTERM or SIGINT, stop. Raise WgdError when the start or the stop fails."""
        try:
            # First of all: it refuses where another daemon of this name runs.
            control_path = client_control_socket(self._name)
            with closing(ControlSocket(control_path, ClientService(self).answer)) as control, Loop() as loop:
                loop.on_signal((signal.SIGTERM, signal.SIGINT), loop.stop)
                loop.on_signal((signal.SIGHUP,), self._hang_up)
                self._start()
                loop.on_readable(self._reach.resolver, self._reach.resolved)
                loop.every(min(CHECK_SECONDS, notify.watchdog_interval() or CHECK_SECONDS), self._check)
                loop.on_readable(control, control.handle)
                loop.every(TICK_SECONDS, control.expire)
                Watch(loop, self._connection.monitor, self._concerns, lambda _: self._look())
                loop.run()
                notify.stopping()
                log.info("stopping%s", "; what was set stays up" if self._leave_up else "")
                if not self._leave_up:
                    self._connection.stop()
        finally:
            self._reach.close()
            self._connection.close()

    def _start(self) -> None:
        config = self._first.config
        self._connection.start(self._first)
        self._reach.begin(config.server.endpoints)
        log.info("%s is ready: %s", config.interface.name, describe(config))
        notify.status(self._status())
        notify.ready()

    def _hang_up(self) -> None:
        # What is wrong is in the log.
        with suppress(WgdError):
            self.reload()

    def reload(self) -> None:
        """Read the config anew and go over to it; raise WgdError, and stay with what was, when that is refused."""
        notify.reloading()
        try:
            config = self._load()
            in_use = self._reach.in_use(config.server.endpoints)
            self._connection.reload(self._connection.prepare(config, in_use))
            self._reach.begin(config.server.endpoints)
        except WgdError as error:
            log.error("reload refused, nothing was changed:")
            for line in str(error).splitlines():
                log.error("  %s", line)
            raise
        else:
            log.info("reloaded: %s", describe(config))
        finally:
            notify.status(self._status())
            notify.ready()

    def status(self) -> dict[str, Any]:
        """Return what Status answers; raise WgdError when the kernel cannot be read."""
        config = (self._connection.desired or self._first).config
        actual, server = self._connection.actual(), self._connection.server()
        link, device, addresses = (None, None, ()) if actual is None else (actual.link, actual.device, actual.addresses)
        gateway = None
        if server is not None:
            endpoints = {"endpoints": [str(endpoint) for endpoint in config.server.endpoints]}
            gateway = {**endpoints, **peer_fields(server, time.time())}
        return {
            "name": self._name,
            "version": __version__,
            "started": self._started,
            "interface": interface_fields(config.interface.name, link, device, addresses),
            "gateway": gateway,
            "trouble": self._reach.trouble or None,
            "failing": self._failing,
        }

    def _check(self) -> None:
        """Put back what is gone, look after the endpoint, and feed the watchdog only when all is there."""
        self._look()
        if self._failing is None:
            notify.status(self._status())
            notify.watchdog()

    def _look(self) -> bool:
        """Put back what is gone, and look after the endpoint; tell whether anything was gone or failed."""
        try:
            missing = self._connection.missing()
            if missing:
                self._connection.repair()
                self._reports.add((Difference("link", what) for what in missing), "restored", time.monotonic())
            for difference, _, _ in self._reports.due(time.monotonic()):
                log.warning("%s; it is put back", difference.detail)
            server = self._connection.server()
            if server is not None:
                self._reach.look_after(server)
        except WgdError as error:
            if str(error) != self._failing:
                log.error("%s", error)
            self._failing = str(error)
            notify.status(f"failing: {error}")
            return True
        self._failing = None
        return bool(missing)

    def _concerns(self, notice: Notice) -> bool:
        """Tell whether a notification may be about what this client has set."""
        if notice.subject is Subject.ROUTE:
            return notice.scope == (self._connection.desired or self._first).config.routes.table
        return notice.subject in (Subject.LINK, Subject.ADDRESS, Subject.LOST)

    def _status(self) -> str:
        """Return one line for `systemctl status`."""
        desired = self._connection.desired
        if desired is None:
            return "starting"
        state = "connected" if self._reach.handshake_done else self._reach.trouble or "no handshake yet"
        return f"{describe(desired.config)}; {state}"


def note(name: str) -> Note:
    """Return where the daemon of a connection writes down what it found."""
    return Note(RUNTIME_DIRECTORY / f"{name}.json")


def take_down(name: str) -> None:
    """Take down what a run with `leave_up` has left standing.

    Raise ConflictError while a daemon of that name runs, WgdError when something cannot be taken down.
    """
    refuse_live(client_control_socket(name))
    with closing(Connection(note(name))) as connection:
        connection.stop()


def describe(config: ClientConfig) -> str:
    """Return the config in a few words, for people."""
    return f"{', '.join(map(str, config.server.allowed_ips))} through {config.server.endpoints[0]}"
