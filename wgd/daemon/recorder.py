"""The process that reads what the kernel copied from the wire and writes the event log. It has no privilege.

The daemon starts it as `python3 -m wgd.daemon.recorder DIRECTORY CONTROL TALLY KIND:SOCKET…`: the log's directory,
outside of which it opens nothing, and numbers of descriptors that it inherits: the control socket (SOCK_SEQPACKET), the
tally, and what it reads (sources.py says which kinds there are and how another is added). Requests and answers are
JSON objects:

    {"id": 1, "do": "open", "path": P, "must": B}
                                          write to this file of the directory, opened anew; the first time it begins
                                          to read its sources, unless the file must open and does not
    {"id": 2, "do": "names", "since": T}  with a descriptor from which Names are read, in force from T (ns) on
    {"id": 3, "do": "write", "line": L}   append the daemon's own line; answered when it stands in the file
    {"id": 4, "do": "settle", "logged": [N…], "limited": N, "reason": R}
                                          answered when everything logged until now is in the file. The rest may be
                                          there: how many events of each source the kernel had logged before, and how
                                          many it had only counted; what is missing of them is lost for that reason
    {"id": 5, "do": "close"}              with a descriptor from which conntrack's messages about flows are read that
                                          are closed in the log, and of whose end the kernel will not tell
    {"id": 6, "do": "journal"}            with a socket: send it what goes into the file; without: no longer
    {"id": N, "error": null or text}      the answer
    {"refused": text or null}             unasked: the file takes no lines, or does again
    {"unrestricted": true}                unasked: there is no Landlock, so it could open whatever its user may

The end of the control socket is the end: what the kernel has queued is written first.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from wgd.daemon.event_log import Change, EventLog, recover
from wgd.daemon.journal_copy import JournalCopy
from wgd.daemon.sources import SOURCES, Handed, Kind, Source
from wgd.daemon.tally import FLOW_ENDS, Cell, Count, Tally, accounted, cell
from wgd.errors import HostError, WgdError
from wgd.events.flow_decoder import FlowDecoder
from wgd.events.names_book import NamesBook
from wgd.host.landlock import restrict_to
from wgd.host.privileges import drop_privileges
from wgd.kernel.nflog import FLUSH_SECONDS, RECEIVE_BYTES
from wgd.policy.names import Names

MAX_REQUEST_BYTES = 1 << 17
RECEIVES_IN_A_ROW = 32
"""How many datagrams of one source are read before the others have their turn."""
RETRY_SECONDS = 1.0
"""How often a file that takes no lines is tried again when nothing else happens."""
SETTLE_SECONDS = 1.5 * FLUSH_SECONDS
"""After what time everything that was logged has reached the socket."""
MAX_SETTLE_SECONDS = 1.0
"""For how long a settle request may keep the recorder from its other work under a flood."""
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""A terminal and the service manager send these to all processes of the daemon; it alone ends the recorder."""


class Settling(NamedTuple):
    """A settle request: its id, when everything logged before it has reached the sockets, and what was logged."""

    identity: int
    due: float
    logged: Sequence[int]
    limited: int
    reason: str


class Recorder:
    """Serves the control socket and reads the sources until the control socket ends."""

    def __init__(self, control: socket.socket, tally: Tally, handed: Sequence[Handed]) -> None:
        self._control = control
        self._tally = tally
        self._part = tally.recorded
        self._log = EventLog(self._part, lambda error: self._send({"refused": None if error is None else str(error)}))
        self._book = NamesBook()
        self._buffer = bytearray(RECEIVE_BYTES)
        self._interfaces = InterfaceNames()
        self._sources = [self._source(each, index) for index, each in enumerate(handed)]
        self._settling: list[Settling] = []
        self._own: deque[tuple[int, bytes]] = deque()
        self._selector = selectors.DefaultSelector()
        self._is_reading = False
        self._ended = False

    def run(self, *, restricted: bool = True) -> None:
        """Serve until the control socket ends, then write what is queued."""
        if not restricted:
            self._send({"unrestricted": True})
        with self._selector as selector:
            selector.register(self._control, selectors.EVENT_READ, self._handle_control)
            while not self._ended:
                self._turn(selector, self._timeout())
                self._settle()
                self._write_own()
                if self._log.is_behind:
                    self._log.write(b"", Change())
            selector.unregister(self._control)
            end = time.monotonic() + SETTLE_SECONDS
            while (left := end - time.monotonic()) > 0:
                self._turn(selector, left)
        for request in self._settling:
            self._compare(request)
        self._write_own()
        self._log.write(b"", Change())
        self._log.close()

    def _turn(self, selector: selectors.BaseSelector, timeout: float | None) -> None:
        for key, _ in selector.select(timeout):
            key.data()

    def _source(self, handed: Handed, index: int) -> Source:
        return SOURCES[handed.kind](handed, index, self._tally, self._book, self._interfaces.name)

    def _timeout(self) -> float | None:
        times = [request.due - time.monotonic() for request in self._settling]
        if self._log.is_behind or self._own:
            times.append(RETRY_SECONDS)
        return max(0.0, min(times)) if times else None

    def _read(self, source: Source) -> bool:
        """Write the lines of what a source has queued, some datagrams at most; False when there is no more."""
        for _ in range(RECEIVES_IN_A_ROW):
            batch = source.receive(self._buffer)
            if source.overran:
                self._part.numbers[Cell.OVERRUNS] += source.overran
                source.overran = 0
            if batch is None:
                return False
            counts = batch.events, batch.lost, batch.undecoded, batch.unresolved
            self._log.write(batch.text, Change(source.index, *counts, source.decoder.next_sequence))
        return True

    def _settle(self) -> None:
        """Answer the settle requests whose time has come, when all that is queued has been written."""
        due = [request for request in self._settling if request.due <= time.monotonic()]
        if not due:
            return
        end = time.monotonic() + MAX_SETTLE_SECONDS
        drained = all(self._drain(source, end) for source in self._sources)
        for request in due:
            if drained:
                self._compare(request)
            self._settling.remove(request)
            self._send({"id": request.identity, "error": None})

    def _drain(self, source: Source, end: float) -> bool:
        """Read all that a source has queued; False when there is still more at `end`."""
        while self._read(source):
            if time.monotonic() > end:
                return False
        return True

    def _compare(self, request: Settling) -> None:
        """Count as lost what the kernel has logged before a settle request and nobody has seen."""
        numbers = self._part.numbers
        for source, logged in zip(self._sources, request.logged, strict=False):
            missing = logged - accounted(numbers, source.index)
            if missing > 0:
                numbers[cell(source.index, Count.LOST)] += missing
                # Where they had numbers, the next event's shall not have them counted again.
                source.pass_over(missing)
                numbers[cell(source.index, Count.NEXT_SEQUENCE)] = source.decoder.next_sequence
                self._log.lose(request.reason, missing)
        limited = request.limited - numbers[Cell.RATE_LIMITED]
        if limited > 0:
            numbers[Cell.RATE_LIMITED] += limited
            self._log.lose("rate_limit", limited)
        self._part.commit()

    def _handle_control(self) -> None:
        try:
            message, descriptors, _, _ = socket.recv_fds(self._control, MAX_REQUEST_BYTES, 1)
        except ConnectionResetError:
            # The daemon has closed its end before it took all that was said to it.
            message = b""
        if not message:
            self._ended = True
            return
        request = json.loads(message)
        if request["do"] == "settle":
            expected = request.get("logged", ()), request.get("limited", 0), request.get("reason", "")
            self._settling.append(Settling(request["id"], time.monotonic() + SETTLE_SECONDS, *expected))
            return
        if request["do"] == "write":
            self._own.append((request["id"], request["line"].encode()))
            self._write_own()
            return
        error = None
        try:
            self._do(request, descriptors)
        except WgdError as refusal:
            error = str(refusal)
        self._send({"id": request["id"], "error": error})

    def _write_own(self) -> None:
        """Write the daemon's own lines, those that the file has refused before first."""
        while self._own:
            identity, line = self._own[0]
            # A recorder before this one may have written it and not come to answer.
            if identity > self._part.numbers[Cell.REQUEST] and not self._log.write(line, Change(request=identity)):
                return
            self._own.popleft()
            self._send({"id": identity, "error": None})

    def _start_reading(self) -> None:
        """Read the sources from now on: the file is known, and so are the names that were sent before it."""
        if not self._is_reading:
            self._is_reading = True
            for source in self._sources:
                self._selector.register(source.socket, selectors.EVENT_READ, partial(self._read, source))

    def _do(self, request: dict[str, Any], descriptors: list[int]) -> None:
        if request["do"] == "open":
            try:
                self._log.open(Path(request["path"]))
            except HostError:
                if not request["must"]:
                    self._start_reading()
                raise
            self._start_reading()
        elif request["do"] == "names":
            self._book.add(Names.from_json(read_all(descriptors[0])), request["since"])
        elif request["do"] == "journal":
            self._log.copy_to(JournalCopy(socket.socket(fileno=descriptors[0])) if descriptors else None)
        else:
            self._close_flows(read_all(descriptors[0]))

    def _close_flows(self, flows: bytes) -> None:
        batch = FlowDecoder(self._book).decode(flows, len(flows), time.time_ns())
        counts = batch.events, batch.lost, batch.undecoded, batch.unresolved
        place = cell(FLOW_ENDS, Count.NEXT_SEQUENCE)
        self._log.write(batch.text, Change(FLOW_ENDS, *counts, self._part.numbers[place]))

    def _send(self, message: dict[str, Any]) -> None:
        # The daemon may be busy or gone; its counters are in the tally anyway.
        with suppress(OSError):
            self._control.send(json.dumps(message).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def read_all(descriptor: int) -> bytes:
    """Return what a descriptor holds from its beginning, and close it."""
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return file.read()


class InterfaceNames:
    """Names of interface indexes; an interface that is gone keeps its last name, which queued events may still have."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def name(self, index: int) -> str | None:
        """Return the name of an index, None when it is gone and was never asked for."""
        try:
            self._names[index] = socket.if_indextoname(index)
        except (OSError, OverflowError):
            return self._names.get(index)
        return self._names[index]


def main(arguments: list[str]) -> None:
    """Run on the descriptors that the arguments number."""
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    directory, (control, tally) = Path(arguments[0]), map(int, arguments[1:3])
    handed = [(Kind(kind), int(number)) for kind, _, number in (word.partition(":") for word in arguments[3:])]
    try:
        drop_privileges()
        restricted = restrict_to(directory)
        counted = Tally(tally)
        recover(counted.recorded, directory)
        recorder = Recorder(
            socket.socket(fileno=control),
            counted,
            [Handed(kind, socket.socket(fileno=number)) for kind, number in handed],
        )
        recorder.run(restricted=restricted)
    except HostError as error:
        sys.exit(f"the recorder ends: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
