"""What the daemon hands to the recorder: sockets, each of a kind.

The recorder's command line names them as `KIND:DESCRIPTOR`, in the order of `Recording`'s sockets. A further kind of
source takes four steps:

1. a member of `Kind`;
2. a decoder for its messages, pure and below `events/`: an object with `decode` as `Decodes` has it;
3. a line in `SOURCES`, which makes that decoder;
4. the socket itself, opened, bound and configured by the daemon in `recordings.start_recording`.

The recorder reads every source in turn, writes what its decoder gives, and counts it. What the recorder should write
to instead of read (a journal) is handed over in the same way and taken in `recorder.main` by its kind.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Protocol

from wgd.events.decoder import Batch, Decoder
from wgd.events.names_book import NamesBook

LAST_SEQUENCE = (1 << 32) - 1
InterfaceName = Callable[[int], str | None]
"""Gives the name of an interface index, None for one that is gone."""


class Kind(StrEnum):
    """What a socket is."""

    NFLOG = "nflog"


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


def _nflog(book: NamesBook, interface_name: InterfaceName, next_sequence: int) -> Decodes:
    # A number other than the first means that another recorder read this group before.
    return Decoder(book, interface_name, next_sequence, "restart" if next_sequence else "overrun")


SOURCES: dict[Kind, Callable[[NamesBook, InterfaceName, int], Decodes]] = {Kind.NFLOG: _nflog}
"""How the decoder of each kind is made: from the names, the interfaces' names and the number of the next event."""
