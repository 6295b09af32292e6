"""Which recording is in use: from the first config, over reloads that move it, to the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from wgd.daemon.loop import Loop
from wgd.daemon.recording import Recording
from wgd.daemon.sources import Handed, Kind
from wgd.errors import WgdError
from wgd.kernel.nflog import open_nflog
from wgd.model import Logging, ServerConfig
from wgd.policy.names import names
from wgd.policy.table import policy_digest


class Recordings:
    """Holds the event log that the config in force asks for; `current` is None while it asks for none."""

    def __init__(self) -> None:
        self.current: Recording | None = None
        self._loop: Loop | None = None
        self._heard: Recording | None = None

    def start(self, config: ServerConfig) -> None:
        """Begin with what `config` asks for; raise WgdError when it cannot be had."""
        self.current = start_recording(config)

    def listen(self, loop: Loop) -> None:
        """Hear the recorder in the loop from now on, whichever is in use."""
        self._loop = loop
        self._hear()

    def follow(self, before: Logging | None, config: ServerConfig, reload: Callable[[], None]) -> None:
        """Go over to `config` around `reload`, which changes the kernel; go back when it raises WgdError.

        The recorder is one step ahead: it knows the new names, and reads the new groups, before a packet is logged
        with them.
        """
        new = config.logging
        if before is None or (before.enabled, before.nflog_group) != (new.enabled, new.nflog_group):
            self._replace(config, reload)
            return
        recording, moves = self.current, before.path != new.path
        if recording is not None:
            recording.names(names(config, policy_digest(config)))
            if moves:
                recording.move(Path(new.path))
        try:
            reload()
        except WgdError:
            if recording is not None and moves:
                recording.move(Path(before.path))
            raise

    def event(self, event: str, **fields: str | int) -> None:
        """Write a line of the gateway itself."""
        if self.current is not None:
            self.current.event(event, **fields)

    def reopen(self) -> None:
        """Open the log file anew, after a rotation."""
        if self.current is not None:
            self.current.reopen()

    def check(self) -> None:
        """Start a recorder if none is there; raise HostError when none can be."""
        if self.current is not None:
            self.current.check()

    def stop(self) -> None:
        """Write what is queued and end."""
        if self.current is not None:
            self.current.stop()

    def _replace(self, config: ServerConfig, reload: Callable[[], None]) -> None:
        old, self.current = self.current, start_recording(config)
        try:
            reload()
        except WgdError:
            old, self.current = self.current, old
            raise
        finally:
            self._hear()
            if old is not None:
                old.stop()

    def _hear(self) -> None:
        """Have the loop hear the recorder in use, and no longer the one before."""
        if self._loop is None or self._heard is self.current:
            return
        if self._heard is not None:
            self._loop.forget(self._heard)
        if self.current is not None:
            self._loop.on_readable(self.current, self.current.handle)
        self._heard = self.current


def start_recording(config: ServerConfig) -> Recording | None:
    """Return a running recorder for `config`, or None when it logs nothing; its sockets are bound when this returns."""
    if not config.logging.enabled:
        return None
    group = config.logging.nflog_group
    with ExitStack() as opened:
        sockets = [opened.enter_context(open_nflog(number)) for number in (group, group + 1)]
        handed = [Handed(Kind.NFLOG, each) for each in sockets]
        recording = Recording(handed, Path(config.logging.path), names(config, policy_digest(config)))
        opened.pop_all()
    recording.start()
    return recording
