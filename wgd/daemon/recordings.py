"""Which recording is in use: from the first config, over reloads that move it, to the end."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from wgd.daemon.accounting import NO_FLOWS, Alive
from wgd.daemon.event_log import recover
from wgd.daemon.loop import Loop
from wgd.daemon.recording import Recording
from wgd.daemon.sources import Handed, Kind
from wgd.daemon.store import Store
from wgd.daemon.tally import FLOW_ENDS, Tally, close_tally, open_tally
from wgd.errors import HostError, KernelError, WgdError
from wgd.kernel.conntrack import end_recorded_flows, recorded_flows, release_recorded_flows
from wgd.kernel.flow_ends import open_flow_ends
from wgd.kernel.nflog import adopt_netfilter, open_nflog
from wgd.kernel.nft_counters import read_logged
from wgd.model import Logging, ServerConfig
from wgd.policy.names import names
from wgd.policy.table import policy_digest

log = logging.getLogger(__name__)

Opener = tuple[Kind, Callable[[], socket.socket]]
FLOW_ENDS_NAME = "flow-ends"
GROUPS = 2
"""How many log groups there are: one for each family."""
TALLY = Path("/run/wgd-server/tally")


class Recordings:
    """Holds the event log that the config in force asks for; `current` is None while it asks for none."""

    def __init__(self) -> None:
        self.current: Recording | None = None
        self._store = Store()
        self._loop: Loop | None = None
        self._heard: Recording | None = None

    def start(self, config: ServerConfig) -> None:
        """Begin with what `config` asks for; raise WgdError when it cannot be had.

        The log sockets of the daemon before are gone on with, if the service manager has kept them.
        """
        self.current = start_recording(config, self._store)
        self._store.remove_rest()

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
            self._switch(before, config, reload)
        elif self.current is not None:
            with _names_ahead(self.current, config), self._ahead(self.current, before, config):
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
        handed, _ = ((), ()) if new.nflog_group == before.nflog_group else open_sources(group_openers(new), self._store)
        try:
            if new.journal:
                recording.copy_to_journal(wanted=True)
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
            recording.copy_to_journal(wanted=before.journal)
            raise
        recording.copy_to_journal(wanted=new.journal)
        if handed:
            recording.rebind(handed)
            self._store.remove(group_openers(before))

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
        """Write what is queued and end. While the ruleset stands, the log sockets are kept for the next daemon."""
        if self.current is not None:
            self.current.stop()
        if forget_counts():
            self._store.remove_all()

    def _switch(self, before: Logging | None, config: ServerConfig, reload: Callable[[], None]) -> None:
        """Reload with the log switched on or off."""
        old, self.current = self.current, start_recording(config, self._store)
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
        if self.current is None and before is not None:
            self._store.remove_all()

    def _hear(self) -> None:
        """Have the loop hear the recorder in use, and no longer the one before."""
        if self._loop is None or self._heard is self.current:
            return
        if self._heard is not None:
            self._loop.forget(self._heard)
        if self.current is not None:
            self._loop.on_readable(self.current, self.current.handle)
        self._heard = self.current


@contextmanager
def _names_ahead(recording: Recording, config: ServerConfig) -> Iterator[None]:
    before = recording.newest
    recording.names(names(config, policy_digest(config)))
    try:
        yield
    except WgdError:
        recording.names_again(before)
        raise


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


def start_recording(config: ServerConfig, store: Store) -> Recording | None:
    """Return a running recorder for `config`, or None when it logs nothing; its sockets are bound when this returns.

    What was logged since the recorder of a daemon before has ended is counted as lost.
    """
    if not config.logging.enabled:
        return None
    path = Path(config.logging.path)
    tally = open_tally(TALLY)
    try:
        recover(Tally(tally).recorded, path.parent)
        before = recorded_flows()
        logged = read_logged()
        handed, anew = open_sources(source_openers(config.logging), store)
        # A flow that has begun or ended meanwhile must not be missing.
        alive = Alive(len(before), len(before | recorded_flows())) if FLOW_ENDS in anew else NO_FLOWS
    except WgdError:
        close_tally(tally)
        forget_counts()
        raise
    recording = Recording(tally, handed, path, names(config, policy_digest(config)), store)
    try:
        recording.copy_to_journal(wanted=config.logging.journal)
    except HostError:
        recording.stop()
        raise
    lost = recording.accounting.begin(logged, anew, alive)
    if lost:
        log.warning("%s events were logged while nobody read them: they are lost", lost)
    recording.start()
    return recording


def forget_counts() -> bool:
    """Remove the tally when the kernel has no table, and tell whether: they are compared, and end together."""
    with suppress(KernelError):
        if read_logged() is None:
            TALLY.unlink(missing_ok=True)
            return True
    return False


def group_openers(logging: Logging) -> dict[str, Opener]:
    """Return how the log groups are opened, in the recorder's order, by the names under which they are kept."""
    numbers = range(logging.nflog_group, logging.nflog_group + GROUPS)
    return {f"nflog-{number}": (Kind.NFLOG, partial(open_nflog, number)) for number in numbers}


def source_openers(logging: Logging) -> dict[str, Opener]:
    """Return how everything is opened that a recorder reads."""
    return {**group_openers(logging), FLOW_ENDS_NAME: (Kind.FLOW_ENDS, open_flow_ends)}


def open_sources(openers: dict[str, Opener], store: Store) -> tuple[tuple[Handed, ...], tuple[int, ...]]:
    """Return what a recorder shall read, kept or new, and the places of the new ones.

    Raise WgdError when it cannot be had.
    """
    handed, anew = [], []
    with ExitStack() as opened:
        for place, (name, (kind, open_anew)) in enumerate(openers.items()):
            descriptor = store.take(name)
            found = adopt_netfilter(descriptor) if descriptor is not None else None
            if found is None:
                found = open_anew()
                anew.append(place)
            handed.append(Handed(kind, opened.enter_context(found)))
            store.put(name, found.fileno())
        opened.pop_all()
    return tuple(handed), tuple(anew)
