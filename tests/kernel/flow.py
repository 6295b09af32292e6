"""Flows between nodes, held by the test itself: a socket stays in the namespace in which it was made."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Iterator

from pyroute2 import netns
from world import Node

PATIENCE = 1.0
_numbers = itertools.count(1)


def made_in(node: Node, family: socket.AddressFamily, kind: socket.SocketKind, protocol: int = 0) -> socket.socket:
    """Return a socket of a node's network namespace."""
    netns.pushns(node.namespace)
    try:
        made = socket.socket(family, kind, protocol)
    finally:
        netns.popns()
    made.settimeout(PATIENCE)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


class Flow:
    """An open flow: `near` is the end that began it, `far` the other."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far

    def passes(self, *, back: bool = False) -> bool:
        """Tell whether new bytes get through, from near to far or `back`."""
        sender, receiver = (self.far, self.near) if back else (self.near, self.far)
        token = f"token {next(_numbers)};".encode()
        try:
            sender.send(token)
            received = b""
            # A retransmission may bring what was sent while the flow was held up, too.
            while token not in received:
                piece = receiver.recv(4096)
                if not piece:
                    return False
                received += piece
        except OSError:
            return False
        return True

    def close(self) -> None:
        self.near.close()
        self.far.close()


@contextlib.contextmanager
def tcp(near: Node, far: Node, to: str, port: int, source: str | None = None) -> Iterator[Flow | None]:
    """A TCP connection from one node to another, None when it is not made in time."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with made_in(far, family, socket.SOCK_STREAM) as listener, made_in(near, family, socket.SOCK_STREAM) as client:
        listener.bind((to, port))
        listener.listen()
        if source is not None:
            client.bind((source, 0))
        try:
            client.connect((to, port))
            accepted, _ = listener.accept()
        except OSError:
            yield None
            return
        accepted.settimeout(PATIENCE)
        flow = Flow(client, accepted)
        try:
            yield flow
        finally:
            flow.close()


@contextlib.contextmanager
def udp(near: Node, far: Node, to: str, port: int, source: str | None = None) -> Iterator[Flow | None]:
    """A UDP flow of which the first datagram has arrived, None when it has not."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with made_in(far, family, socket.SOCK_DGRAM) as server, made_in(near, family, socket.SOCK_DGRAM) as client:
        server.bind((to, port))
        if source is not None:
            client.bind((source, 0))
        client.connect((to, port))
        client.send(b"first")
        try:
            _, sender = server.recvfrom(64)
        except OSError:
            yield None
            return
        server.connect(sender)
        yield Flow(client, server)


def reaches(near: Node, far: Node, to: str, port: int, source: str | None = None) -> bool:
    """Tell whether a TCP connection is made and carries bytes both ways."""
    with tcp(near, far, to, port, source) as flow:
        return flow is not None and flow.passes() and flow.passes(back=True)
