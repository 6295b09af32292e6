"""The daemon's side of the event log: starts the recorder, feeds it, and starts another when it dies.

Enforcement never waits for it: every wait here is bounded, and a recorder that does not answer is replaced by another
on the same sockets, in which the kernel has gone on queueing.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from wgd.daemon.accounting import Accounting
from wgd.daemon.kept_names import KeptNames, in_memory
from wgd.daemon.recorder_process import NoAnswerError, RecorderProcess
from wgd.daemon.sources import Handed, Kind
from wgd.daemon.store import Store
from wgd.daemon.tally import Counters, Tally, close_tally
from wgd.errors import HostError
from wgd.events.lines import gateway_line
from wgd.host.journal import JournalSocket
from wgd.kernel.nft_counters import Logged
from wgd.policy.names import Names

log = logging.getLogger(__name__)

START_SECONDS = 10.0
ANSWER_SECONDS = 3.0
"""How long a recorder may take for an answer before it is replaced. A settle takes 0.15 s."""
STOP_SECONDS = 5.0
RESTART_SECONDS = 1.0
"""A recorder that ends sooner after its start is followed by another only at the next `check`."""
MAX_UNANSWERED = 256
"""How many of the daemon's own lines are kept for a next recorder while none takes them."""


class Recording:
    """The event log of one gateway. `tally`, of `open_tally`, and what is `handed` to the recorder belong to it.

    `store` may hold names of the daemon before. `refused` says why the file takes no lines at the moment, None when it
    does.
    """

    def __init__(
        self, tally: int, handed: Sequence[Handed], path: Path, names: Names, store: Store | None = None
    ) -> None:
        self.refused: str | None = None
        self._handed = tuple(handed)
        self._path = path
        self._tally_descriptor = tally
        self._tally = Tally(tally)
        self.accounting = Accounting(self._tally)
        self._names = KeptNames(store or Store())
        self._names.keep(names)
        self._epoll = select.epoll()
        self._process: RecorderProcess | None = None
        self._started = 0.0
        self._ids = count(1)
        self._unanswered: dict[int, str] = {}
        self._unrestricted = False
        self._reason = "restart"
        self._journal: JournalSocket | None = None

    def start(self) -> None:
        """Start the recorder and wait until its file is open; raise HostError, with nothing left behind, if not."""
        try:
            error = self._answer(self._begin(must=True), START_SECONDS)
        except (NoAnswerError, OSError) as failure:
            self.stop()
            raise HostError("event log", f"the recorder does not start: {failure}") from failure
        if error is not None:
            self.stop()
            raise HostError("logging.path", error)

    def names(self, names: Names) -> None:
        """Make these the newest names; the recorder knows them when this returns, so that the ruleset may use them."""
        descriptor, since = self._names.keep(names)
        self._tell("names", descriptor, since=since)

    @property
    def newest(self) -> str:
        """The digest of the newest names."""
        return self._names.newest

    def names_again(self, digest: str) -> None:
        """Make names that were the newest ones before the newest again: their policy has stayed in force."""
        again = self._names.again(digest)
        if again is not None:
            descriptor, since = again
            self._tell("names", descriptor, since=since)

    def close_flows(self, flows: Sequence[bytes]) -> None:
        """Write the close lines of flows of whose end the kernel will not tell: conntrack's messages about them."""
        descriptor = in_memory("wgd-flows", b"".join(flows))
        self._tell("close", descriptor)
        os.close(descriptor)

    def event(self, event: str, **fields: Any) -> None:
        """Write a line of the gateway itself, with its `object`, `action`, `detail` and `count` as far as given."""
        line = gateway_line(time.time_ns(), event, object_=fields.pop("object", None), **fields)
        if len(self._unanswered) >= MAX_UNANSWERED:
            del self._unanswered[next(iter(self._unanswered))]
        identity = next(self._ids)
        self._unanswered[identity] = line
        if self._process is not None:
            try:
                self._process.send({"id": identity, "do": "write", "line": line})
            except NoAnswerError as failure:
                self._replace(str(failure))

    def reopen(self) -> None:
        """Open the log file anew, after a rotation; what is refused is logged and tried again."""
        self._tell("open", path=str(self._path), must=False)

    def move(self, path: Path) -> None:
        """Write to another file from now on; raise HostError, and go on with the one before, when it does not open."""
        error = self._ask("open", path=str(path), must=False) if path.parent == self._path.parent else self._go_to(path)
        if error is not None:
            self.reopen()
            raise HostError("logging.path", error)
        self._path = path

    def copy_to_journal(self, *, wanted: bool) -> None:
        """Have the recorder send what goes into the file to the journal too, or no longer; raise HostError."""
        if wanted and self._journal is None:
            self._journal = JournalSocket()
            self._tell("journal", self._journal.fileno())
        elif not wanted and self._journal is not None:
            self._journal.close()
            self._journal = None
            self._tell("journal")

    def settle(self) -> Counters:
        """Wait until everything that the kernel has logged is in the file, and return the counts."""
        self._tell("settle")
        return self.counters()

    def compare(self, read: Callable[[], Logged | None]) -> None:
        """Have the recorder compare what is accounted for with what `read` says that the kernel has logged.

        What is missing is counted as lost, and told, when everything that was logged until now is in the file.
        """
        before = self._tally.recorded.read()
        logged = read()
        if logged is None or self._process is None:
            return
        expected = self.accounting.expected(before, logged)
        reason, self._reason = self._reason, "overrun"
        request = {"id": next(self._ids), "do": "settle", **expected._asdict(), "reason": reason}
        try:
            self._process.send(request)
        except NoAnswerError as failure:
            self._replace(str(failure))

    def rebind(self, groups: Sequence[Handed]) -> None:
        """Write what is queued and go on with other log groups, whose events the kernel counts from 0."""
        self._end()
        kept = tuple(each for each in self._handed if each.kind is not Kind.NFLOG)
        for each in self._handed:
            if each not in kept:
                each.socket.close()
        self._handed = (*groups, *kept)
        self.accounting.bound_anew()
        self._start_another()

    def counters(self) -> Counters:
        """Return the counts as they stand, over all recorders since the table was made."""
        return self._tally.counters()

    def fileno(self) -> int:
        """Return a descriptor, the same over restarts, that can be read when `handle` has something to do."""
        return self._epoll.fileno()

    def handle(self) -> None:
        """Take the recorder's messages; start another when it has ended."""
        if self._process is not None:
            try:
                for message in self._process.receive():
                    self._take(message)
            except NoAnswerError as failure:
                self._replace(str(failure))

    def check(self) -> None:
        """Do what `handle` does, and start a recorder if none is there; raise HostError when none can be."""
        self.handle()
        if self._process is not None and self._process.is_shut_out():
            log.warning("event log: %s is another directory now; starting another recorder", self._path.parent)
            self._go_to(self._path)
        if self._journal is not None and self._journal.is_stale():
            self._connect_to_journal_anew()
        if self._process is None:
            self._replace("it has ended")
        if self._process is None:
            raise HostError(
                "event log", "the recorder cannot be started; events are lost when the kernel's queue is full"
            )

    @property
    def pid(self) -> int | None:
        """The recorder's process id."""
        return self._process.pid if self._process is not None else None

    def stop(self) -> None:
        """End the recorder, which writes what is queued first, and close the sockets; a second call does nothing."""
        if self._epoll.closed:
            return
        self._end()
        self._epoll.close()
        if self._journal is not None:
            self._journal.close()
        for handed in self._handed:
            handed.socket.close()
        close_tally(self._tally_descriptor)
        self._names.close()

    def _begin(self, *, must: bool = False) -> int:
        """Start a recorder and tell it everything it needs; return the id of the request that opens the file.

        Names go before the file, since a recorder reads its sources only from then on. One that `must` open it reads
        nothing when it cannot, any other counts what comes.
        """
        self._started = time.monotonic()
        self._reason = "restart"
        self.refused = None
        self._process = RecorderProcess(self._path.parent, self._tally_descriptor, self._handed)
        self._epoll.register(self._process, select.EPOLLIN)
        for descriptor, since in self._names.all():
            self._process.send({"id": next(self._ids), "do": "names", "since": since}, descriptor)
        if self._journal is not None:
            self._process.send({"id": next(self._ids), "do": "journal"}, self._journal.fileno())
        opening = next(self._ids)
        self._process.send({"id": opening, "do": "open", "path": str(self._path), "must": must})
        for identity, line in self._unanswered.items():
            self._process.send({"id": identity, "do": "write", "line": line})
        return opening

    def _replace(self, reason: str) -> None:
        """End what is there of the recorder and start another, unless that one has only just begun."""
        if self._process is not None:
            self._discard()
            if time.monotonic() - self._started < RESTART_SECONDS:
                log.error("the recorder has failed again: %s", reason)
                return
            log.error("the recorder has failed: %s; starting another", reason)
        self._start_another()

    def _start_another(self) -> None:
        try:
            self._begin()
        except (NoAnswerError, OSError) as failure:
            log.error("the recorder cannot be started: %s", failure)
            self._discard()

    def _go_to(self, path: Path) -> str | None:
        """Have another recorder write to `path`, whose directory the one before cannot open; return what is refused.

        When something is refused, the one before, or a successor to it, goes on with its own file.
        """
        before, self._path = self._path, path
        self._end()
        try:
            error = self._answer(self._begin(must=path != before), START_SECONDS)
        except (NoAnswerError, OSError) as failure:
            error = f"the recorder does not start: {failure}"
        if error is not None and path != before:
            self._path = before
            self._discard()
            self._start_another()
        return error

    def _end(self) -> None:
        """Have the recorder write what is queued, and end."""
        if self._process is not None and not self._process.end(STOP_SECONDS):
            log.error("the recorder did not end by itself: the last events may be missing")
        self._process = None

    def _connect_to_journal_anew(self) -> None:
        try:
            journal = JournalSocket()
        except HostError as error:
            # Its socket is just being made; the next check tries again.
            log.info("%s", error)
            return
        if self._journal is not None:
            self._journal.close()
        self._journal = journal
        self._tell("journal", journal.fileno())

    def _discard(self) -> None:
        if self._process is not None:
            self._process.end(0)
            self._process = None

    def _tell(self, what: str, descriptor: int | None = None, **fields: Any) -> None:
        """Send a request and wait for the answer; a refusal is logged."""
        error = self._ask(what, descriptor, **fields)
        if error is not None:
            log.error("event log: %s", error)

    def _ask(self, what: str, descriptor: int | None = None, **fields: Any) -> str | None:
        """Send a request, wait for the answer and return the error in it; a recorder that is silent is replaced."""
        if self._process is None:
            return None
        identity = next(self._ids)
        try:
            self._process.send({"id": identity, "do": what, **fields}, descriptor)
            return self._answer(identity, ANSWER_SECONDS)
        except NoAnswerError as failure:
            self._replace(str(failure))
            return None

    def _answer(self, identity: int, seconds: float) -> str | None:
        """Wait for an answer and return the error in it."""
        if self._process is not None:
            for message in self._process.receive(time.monotonic() + seconds):
                if message.get("id") == identity:
                    error: str | None = message["error"]
                    return error
                self._take(message)
        raise NoAnswerError(f"it has not answered for {seconds:.0f} seconds")

    def _take(self, message: dict[str, Any]) -> None:
        """Note what a message of the recorder says."""
        if "id" in message:
            self._unanswered.pop(message["id"], None)
            if message["error"] is not None:
                log.error("event log: %s", message["error"])
            return
        if "unrestricted" in message:
            if not self._unrestricted:
                log.warning(
                    "this kernel has no Landlock: the recorder holds no capability, but can open what its user may"
                )
            self._unrestricted = True
            return
        self.refused = message["refused"]
        if self.refused is not None:
            log.error("event log: %s; events are counted until it takes lines again", self.refused)
        else:
            log.warning("the event log takes lines again")
