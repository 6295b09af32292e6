"""What the daemon hands to the recorder: sockets, each of a kind.

The recorder's command line names them as `KIND:DESCRIPTOR`, in the order of `Recording`'s sockets. A further kind of
source takes four steps:

1. a member of `Kind`;
2. a decoder for its messages, pure and below `events/`: an object with `decode` as `Decodes` has it;
3. a line in `SOURCES`, which makes the source with that decoder: a `Source`, or one that reads in another way;
4. the socket itself, opened, bound and configured by the daemon in `recordings.start_recording`.

The recorder reads every source in turn, writes what its decoder gives, and counts it.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Protocol

from wgd.daemon.tally import Count, Tally, cell
from wgd.events.decoder import Batch, Decoder
from wgd.events.flow_decoder import FlowDecoder
from wgd.events.lines import lost_line, time_text
from wgd.events.names_book import NamesBook
from wgd.events.nflog_message import align
from wgd.kernel import flow_ends

LAST_SEQUENCE = (1 << 32) - 1
ENDS_BYTES = 1 << 17
"""After how much that was read of the ends of flows their lines are written."""
InterfaceName = Callable[[int], str | None]
"""Gives the name of an interface index, None for one that is gone."""


class Kind(StrEnum):
    """What a socket is."""

    NFLOG = "nflog"
    FLOW_ENDS = "flow-ends"


class Handed(NamedTuple):
    """A socket that the daemon hands over."""

    kind: Kind
    socket: socket.socket


class Decodes(Protocol):
    """Turns the messages of one source into lines. `next_sequence` is the number of the next event.

    It is kept in the tally for a successor; always 0 where events have none.
    """

    next_sequence: int

    def decode(self, buffer: bytearray, size: int, now: int) -> Batch:
        """Return the lines of the messages in the first `size` bytes; `now` is their reception, in ns of the epoch."""


class Source:
    """One socket that is read, with its place among the recorder's. `overran` counts how often its queue was full."""

    def __init__(self, read_socket: socket.socket, index: int, decoder: Decodes) -> None:
        self.socket = read_socket
        self.index = index
        self.decoder = decoder
        self.overran = 0
        read_socket.setblocking(False)  # noqa: FBT003 the socket's own interface

    def receive(self, buffer: bytearray) -> Batch | None:
        """Return the lines of the next datagram; None when there is no more."""
        while True:
            try:
                # With MSG_TRUNC the size is the datagram's own, even where the buffer is smaller.
                size = self.socket.recv_into(buffer, 0, socket.MSG_TRUNC)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # The queue was full. How many events are missing, the next one's number tells.
                self.overran += 1
            else:
                return self.decoder.decode(buffer, min(size, len(buffer)), time.time_ns())

    def pass_over(self, count: int) -> None:
        """Expect no numbers for the next `count` events: they are known to be lost."""
        self.decoder.next_sequence = (self.decoder.next_sequence + count) & LAST_SEQUENCE


class FlowEnds(Source):
    """What conntrack tells of the end of flows: a datagram each, of which several are read at once.

    The kernel does not number them. Every one that passed the socket's filter was taken from it, which the tally
    knows at once, or had no room in it, which the socket counts: what of their sum was not told is lost, in the socket
    or with a recorder that died. `next_sequence` of the decoder says what was told or is lost (accounted_ends).
    """

    def __init__(self, read_socket: socket.socket, index: int, decoder: Decodes, tally: Tally) -> None:
        super().__init__(read_socket, index, decoder)
        self._tally = tally
        self._reason = "restart"

    def receive(self, buffer: bytearray) -> Batch | None:
        """Return the lines of the next datagrams; None when there are no more."""
        size = self._take(buffer)
        now = time.time_ns()
        dropped_before, taken_before = accounted_ends(self.decoder.next_sequence)
        dropped, taken = flow_ends.dropped(self.socket), self._tally.taken & LAST_SEQUENCE
        self.decoder.next_sequence = dropped << 32 | taken
        batch = self.decoder.decode(buffer, size, now)
        missing = (dropped - dropped_before & LAST_SEQUENCE) + (taken - taken_before & LAST_SEQUENCE)
        missing -= batch.events + batch.undecoded
        reason, self._reason = self._reason, "overrun"
        if missing > 0:
            text = lost_line(time_text(now), missing, reason).encode() + batch.text
            batch = batch._replace(text=text, lost=missing)
        return batch if size or missing > 0 else None

    def _take(self, buffer: bytearray) -> int:
        """Read what is there, as far as it fits, and return how many bytes it takes."""
        size, last = 0, min(len(buffer) - flow_ends.RECEIVE_BYTES, ENDS_BYTES)
        taken, receive = self._tally.taken, self.socket.recv_into
        with memoryview(buffer) as view:
            while size <= last:
                try:
                    length = receive(view[size:])
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    self.overran += 1
                else:
                    taken += 1
                    self._tally.taken = taken
                    size += align(length)
        return size


def accounted_ends(next_sequence: int) -> tuple[int, int]:
    """Return how many ends a socket had no room for, and how many were taken, that are accounted for, modulo 2**32."""
    return next_sequence >> 32, next_sequence & LAST_SEQUENCE


def _log_group(handed: Handed, index: int, tally: Tally, book: NamesBook, interface_name: InterfaceName) -> Source:
    next_sequence = tally.recorded.numbers[cell(index, Count.NEXT_SEQUENCE)]
    # A number other than the first means that another recorder read this group before.
    reason = "restart" if next_sequence else "overrun"
    return Source(handed.socket, index, Decoder(book, interface_name, next_sequence, reason))


def _flow_ends(handed: Handed, index: int, tally: Tally, book: NamesBook, _: InterfaceName) -> Source:
    decoder = FlowDecoder(book, tally.recorded.numbers[cell(index, Count.NEXT_SEQUENCE)])
    return FlowEnds(handed.socket, index, decoder, tally)


SOURCES: dict[Kind, Callable[[Handed, int, Tally, NamesBook, InterfaceName], Source]] = {
    Kind.NFLOG: _log_group,
    Kind.FLOW_ENDS: _flow_ends,
}
"""How a source of each kind is made: from what is handed over, its place among them, the tally, and the names."""
