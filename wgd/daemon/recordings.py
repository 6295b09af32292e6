"""Which recording is in use: from the first config, over reloads that move it, to the end."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from wgd.daemon.event_log import recover
from wgd.daemon.loop import Loop
from wgd.daemon.recording import Recording
from wgd.daemon.sources import Handed, Kind
from wgd.daemon.tally import Tally, open_tally
from wgd.errors import KernelError, WgdError
from wgd.kernel.conntrack import end_recorded_flows, release_recorded_flows
from wgd.kernel.flow_ends import open_flow_ends
from wgd.kernel.nflog import open_nflog
from wgd.kernel.nft_counters import read_logged
from wgd.model import Logging, ServerConfig
from wgd.policy.names import names
from wgd.policy.table import policy_digest

log = logging.getLogger(__name__)

TALLY = Path("/run/wgd-server/tally")


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

        The recorder is one step ahead: it knows the new names, and the kernel keeps what the new groups are sent,
        before a packet is logged with them.
        """
        if before is None or not before.enabled or not config.logging.enabled:
            self._switch(config, reload)
        elif self.current is not None:
            with self._ahead(self.current, before, config):
                reload()
            if before.flows and not config.logging.flows:
                _close_flows(self.current)

    def end_flows(self) -> None:
        """End in the kernel every flow that is in the record, and wait until the log has its close.

        For a stop: a flow that goes on after the next start is a new one.
        """
        if self.current is not None:
            with _logged("the flows that are left cannot be ended"):
                end_recorded_flows()
            self.current.settle()

    @contextmanager
    def _ahead(self, recording: Recording, before: Logging, config: ServerConfig) -> Iterator[None]:
        new = config.logging
        recording.names(names(config, policy_digest(config)))
        handed = () if new.nflog_group == before.nflog_group else open_groups(config)
        try:
            if before.path != new.path:
                recording.move(Path(new.path))
            try:
                yield
            except WgdError:
                if before.path != new.path:
                    recording.move(Path(before.path))
                raise
        except WgdError:
            for each in handed:
                each.socket.close()
            raise
        if handed:
            recording.rebind(handed)

    def event(self, event: str, **fields: str | int) -> None:
        """Write a line of the gateway itself."""
        if self.current is not None:
            self.current.event(event, **fields)

    def reopen(self) -> None:
        """Open the log file anew, after a rotation."""
        if self.current is not None:
            self.current.reopen()

    def check(self) -> None:
        """Start a recorder if none is there, and compare what it has counted with the kernel's own counters.

        Raise HostError when no recorder can be started, KernelError when the counters cannot be read.
        """
        if self.current is not None:
            self.current.check()
            self.current.compare(read_logged)

    def stop(self) -> None:
        """Write what is queued and end."""
        if self.current is not None:
            self.current.stop()
        forget_counts()

    def _switch(self, config: ServerConfig, reload: Callable[[], None]) -> None:
        """Reload with the log switched on or off."""
        old, self.current = self.current, start_recording(config)
        try:
            reload()
            if old is not None:
                _close_flows(old)
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


def _close_flows(recording: Recording) -> None:
    """Close in the log the flows that are in the record, which live on without it."""
    with _logged("the flows that are left cannot be closed in the log"):
        recording.close_flows(release_recorded_flows())


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Log a refusal of the kernel that must not stop what is under way."""
    try:
        yield
    except KernelError as error:
        log.error("%s: %s", what, error)


def start_recording(config: ServerConfig) -> Recording | None:
    """Return a running recorder for `config`, or None when it logs nothing; its sockets are bound when this returns.

    What was logged since the recorder of a daemon before has ended is counted as lost.
    """
    if not config.logging.enabled:
        return None
    path = Path(config.logging.path)
    tally = open_tally(TALLY)
    try:
        recover(Tally(tally).recorded, path.parent)
        logged = read_logged()
        handed = open_sources(config)
    except WgdError:
        os.close(tally)
        forget_counts()
        raise
    recording = Recording(tally, handed, path, names(config, policy_digest(config)))
    lost = recording.accounting.begin(logged, anew=True)
    if lost:
        log.warning("%s events were logged while nobody read them: they are lost", lost)
    recording.start()
    return recording


def forget_counts() -> None:
    """Remove the tally, unless the kernel's table is there: they are compared with each other, and end together."""
    with suppress(KernelError):
        if TALLY.exists() and read_logged() is None:
            TALLY.unlink(missing_ok=True)


def open_sources(config: ServerConfig) -> tuple[Handed, ...]:
    """Return what a recorder for `config` shall read; raise WgdError when it cannot be had."""
    ends = open_flow_ends()
    try:
        return (*open_groups(config), Handed(Kind.FLOW_ENDS, ends))
    except WgdError:
        ends.close()
        raise


def open_groups(config: ServerConfig) -> tuple[Handed, ...]:
    """Return the sockets of the log groups that `config` names; raise WgdError when they cannot be had."""
    group = config.logging.nflog_group
    with ExitStack() as opened:
        sockets = [opened.enter_context(open_nflog(number)) for number in (group, group + 1)]
        opened.pop_all()
    return tuple(Handed(Kind.NFLOG, each) for each in sockets)
