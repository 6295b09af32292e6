"""Name resolution that holds nobody up: the host's resolver runs in a thread, the answer wakes the loop."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable

from wgd.errors import HostError
from wgd.model import Endpoint

Answer = tuple[Endpoint, ...] | HostError


def resolve(endpoint: Endpoint) -> tuple[Endpoint, ...]:
    """Return the literal endpoints that a name stands for, in the resolver's order (RFC 6724).

    Raise HostError with the resolver's reason.
    """
    if endpoint.address is not None:
        return (endpoint,)
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_DGRAM)
    except socket.gaierror as error:
        raise HostError(endpoint.host, f"cannot be resolved: {error.strerror}") from error
    except UnicodeError as error:
        raise HostError(endpoint.host, f"cannot be resolved: it is no host name ({error})") from error
    return tuple(dict.fromkeys(Endpoint(str(address[0]), endpoint.port) for *_, address in found))


class Resolver:
    """Resolves a list of endpoints in the background; `fileno` becomes readable when `answer` has it.

    `asked` is what the answer, or the look-up that still runs, is about.
    """

    def __init__(self) -> None:
        self.asked: tuple[Endpoint, ...] = ()
        self._read, self._write = socket.socketpair()
        self._answer: Answer | None = None
        self._running = False

    def fileno(self) -> int:
        """Return the descriptor that becomes readable with an answer."""
        return self._read.fileno()

    def close(self) -> None:
        """Close the descriptors. A look-up that still runs ends by itself, unheard."""
        self._read.close()
        self._write.close()

    def ask(self, endpoints: Iterable[Endpoint]) -> None:
        """Begin to resolve `endpoints`, unless that is going on already."""
        if not self._running:
            self._running = True
            self.asked = tuple(endpoints)
            threading.Thread(target=self._work, args=(self.asked,), daemon=True).start()

    def answer(self) -> Answer:
        """Return every literal endpoint found, in order, or the error when there is none. Call it when readable."""
        self._read.recv(1)
        self._running = False
        return self._answer if self._answer is not None else ()

    def _work(self, endpoints: tuple[Endpoint, ...]) -> None:
        found: list[Endpoint] = []
        failure: HostError | None = None
        for endpoint in endpoints:
            try:
                found += resolve(endpoint)
            except HostError as error:
                failure = error
        self._answer = tuple(dict.fromkeys(found)) if found or failure is None else failure
        try:
            self._write.send(b"\0")
        except OSError:
            # Closed while we looked up: nobody waits any more.
            return
