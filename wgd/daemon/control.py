"""The control socket: many callers, none of whom can hold up the daemon or another caller.

Whoever connects is bounded in everything: a call's length, the time without a call, the time to take an answer, the
number of connections of one user and of all. Nothing here waits; a round answers at most one call, so that the daemon's
other work comes between any two. Those who may only read get a tenth of the daemon's time at most, all together.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wgd.daemon.listening import listen
from wgd.host.varlink import Call, Messages, ProtocolError, VarlinkError, answer_bytes, error_bytes, parse_call

log = logging.getLogger(__name__)

MAX_CALL_BYTES = 64 << 10
MAX_QUEUED_BYTES = 64 << 20
"""How much of all answers may wait for their callers."""
MAX_CONNECTIONS = 128
MAX_OF_ONE_USER = 32
ACCEPTS_AT_ONCE = 64
EVENTS_A_ROUND = 64
SILENCE_SECONDS = 30.0
"""How long a connection may be without a call, or take for an answer."""
CHUNK_BYTES = 64 << 10
SHORT_SECONDS = 0.02
"""A call that takes no longer is one that readers may make at once again."""
REST = 9
"""How many times as long as a longer one took no reader is answered."""
UCRED = struct.Struct("3i")
"""pid, uid, gid (unix(7), SO_PEERCRED)."""


@dataclass(frozen=True)
class Caller:
    """Who calls: a user id, and whether that user may change things or only read."""

    uid: int
    may_change: bool


Answer = Callable[[Call, Caller], Mapping[str, Any]]
"""Answers a call with the parameters of its answer, or raises VarlinkError."""


class Connection:
    """One caller. `since` is when it was last given its time: at its beginning, with each call and each answer."""

    def __init__(self, connected: socket.socket, now: float) -> None:
        self.socket = connected
        self.caller = caller_of(connected)
        self.messages = Messages(MAX_CALL_BYTES)
        self.output = bytearray()
        self.since = now


def caller_of(connected: socket.socket) -> Caller:
    """Return who is at the other end: the kernel tells what holds since the connection was made."""
    _, uid, _ = UCRED.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return Caller(uid, may_change=uid in (0, os.geteuid()))


class ControlSocket:
    """Listens at `path` and lets `answer` answer. Raise ConflictError or HostError as `listen` does."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self._path = path
        self._answer = answer
        self._listener = listen(path)
        self._inode = path.lstat().st_ino
        self._connections: dict[int, Connection] = {}
        self._waiting: set[int] = set()
        self._readers_from = 0.0
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)

    def fileno(self) -> int:
        """Return a descriptor that can be read when `handle` has something to do."""
        return self._epoll.fileno()

    def close(self) -> None:
        """End every connection, and remove the socket from its path unless somebody has put another there."""
        for connection in tuple(self._connections.values()):
            self._drop(connection)
        self._epoll.close()
        self._listener.close()
        try:
            if self._path.lstat().st_ino == self._inode:
                self._path.unlink()
        except OSError as error:
            log.warning("%s: cannot be removed: %s", self._path, error.strerror)

    def handle(self) -> None:
        """Take new connections, read, write, and answer at most one call."""
        for _ in range(EVENTS_A_ROUND):
            # One at a time: the kernel puts what it has reported at the end of its queue, and so everybody has a turn.
            events = self._epoll.poll(0, 1)
            if not events or self._is_answered(*events[0]):
                return

    def _is_answered(self, descriptor: int, event: int) -> bool:
        """Do what an event asks for; tell whether that was to answer a call."""
        if descriptor == self._listener.fileno():
            self._accept()
            return False
        connection = self._connections[descriptor]
        try:
            if event & select.EPOLLHUP and descriptor in self._waiting:
                # Nobody is there any more for whom to wait.
                raise ConnectionResetError
            if event & select.EPOLLIN:
                self._read(connection)
            elif connection.output:
                self._write(connection)
            return self._answer_next(connection)
        except (OSError, ProtocolError):
            self._drop(connection)
            return False

    def expire(self) -> None:
        """End the connections whose time is over, and give another try to what has had to wait.

        Call this about every second.
        """
        oldest = time.monotonic() - SILENCE_SECONDS
        for connection in tuple(self._connections.values()):
            if connection.since < oldest:
                self._drop(connection)
        if time.monotonic() >= self._readers_from:
            for descriptor in self._waiting:
                self._epoll.modify(descriptor, select.EPOLLOUT)
            self._waiting.clear()
        # Should the descriptors have run out.
        self._epoll.modify(self._listener, select.EPOLLIN)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                connected, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                log.error("%s: takes no connection for the moment: %s", self._path, error.strerror)
                self._epoll.modify(self._listener, 0)
                return
            connected.setblocking(False)  # noqa: FBT003 - the socket's own interface
            connection = Connection(connected, time.monotonic())
            if not self._make_room(connection):
                connected.close()
                continue
            self._connections[connected.fileno()] = connection
            self._epoll.register(connected, select.EPOLLIN)

    def _make_room(self, connection: Connection) -> bool:
        """Make room for a newcomer: its own user's longest silent goes, and for one who may change things, a reader."""
        same = [other for other in self._connections.values() if other.caller.uid == connection.caller.uid]
        readers = [other for other in self._connections.values() if not other.caller.may_change]
        if len(same) >= MAX_OF_ONE_USER:
            self._drop(min(same, key=lambda other: other.since))
        elif len(self._connections) >= MAX_CONNECTIONS:
            if not connection.caller.may_change or not readers:
                return False
            self._drop(min(readers, key=lambda other: other.since))
        return True

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionResetError
        connection.messages.add(data)

    def _answer_next(self, connection: Connection) -> bool:
        """Answer the next call, unless an answer before it is still on its way; tell whether there was one."""
        if connection.output:
            return False
        if not connection.caller.may_change and time.monotonic() < self._readers_from:
            self._waiting.add(connection.socket.fileno())
            self._epoll.modify(connection.socket, 0)
            return False
        message = connection.messages.next()
        if message is None:
            self._epoll.modify(connection.socket, select.EPOLLIN)
            return False
        call, begun = parse_call(message), time.monotonic()
        try:
            answer = answer_bytes(self._answer(call, connection.caller))
        except VarlinkError as error:
            answer = error_bytes(error)
        connection.since = time.monotonic()
        took = connection.since - begun
        if not connection.caller.may_change and took > SHORT_SECONDS:
            self._readers_from = connection.since + REST * took
        if not call.oneway:
            self._queue(connection, answer)
        # Until the buffer has no whole call left, being writable brings the connection's next turn.
        self._epoll.modify(connection.socket, select.EPOLLOUT)
        return True

    def _queue(self, connection: Connection, answer: bytes) -> None:
        """Send as much of an answer as the caller takes now, and let the slowest go when too much waits in all."""
        connection.output += answer
        self._write(connection)
        slow = [other for other in self._connections.values() if other.output and other is not connection]
        if slow and sum(len(other.output) for other in (*slow, connection)) > MAX_QUEUED_BYTES:
            self._drop(min(slow, key=lambda other: other.since))

    def _write(self, connection: Connection) -> None:
        try:
            sent = connection.socket.send(connection.output)
        except BlockingIOError:
            return
        del connection.output[:sent]

    def _drop(self, connection: Connection) -> None:
        del self._connections[connection.socket.fileno()]
        self._waiting.discard(connection.socket.fileno())
        self._epoll.unregister(connection.socket)
        connection.socket.close()
