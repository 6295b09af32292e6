"""The door to a WireGuard that runs in user space: its UAPI socket, https://www.wireguard.com/xplatform/.

A request is `get=1` or `set=1`, lines `key=value`, and an empty line; the answer ends with `errno=N` and an
empty line. Keys are in hex. Where the text leaves something open, wireguard-go 0.0.20220316 is the measure.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from wgd.errors import KernelError
from wgd.kernel.wireguard_errors import refusal
from wgd.kernel.wireguard_text import decode_device, encode_peer
from wgd.model import SecretKey
from wgd.plan.state import Device, DeviceChange

DIRECTORY = Path("/run/wireguard")
TIMEOUT = 5.0
PEERS_PER_REQUEST = 1000
_CHUNK = 1 << 16
_END = b"\n\n"


class UserspaceWireGuard:
    """WireGuard devices of wireguard-go daemons; `directory` holds their sockets, one `NAME.sock` each.

    Every wait for a daemon ends after `timeout` seconds with a KernelError.
    """

    def __init__(self, directory: Path = DIRECTORY, timeout: float = TIMEOUT) -> None:
        self._directory = directory
        self._timeout = timeout

    def read(self, name: str) -> Device:
        """Return the device `name` with all its peers; raise KernelError when no daemon answers for it."""
        return decode_device(name, self._request(name, b"get=1\n\n"))

    def apply(self, name: str, change: DeviceChange) -> None:
        """Set `change` on device `name`; an empty change sends nothing.

        Raises KernelError with the daemon's errno; requests before the one that failed stay applied, and a daemon may
        have taken the beginning of that one too.
        """
        for lines in _requests(change):
            self._request(name, "\n".join(("set=1", *lines, "\n")).encode("ascii"))

    def close(self) -> None:
        """Nothing is held open between requests."""

    def probe(self, name: str) -> None:
        """Return when a daemon listens on the socket of device `name`, else raise KernelError that says why not."""
        self._connect(name).close()

    def _connect(self, name: str) -> socket.socket:
        path = self._directory / f"{name}.sock"
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._timeout)
        try:
            connection.connect(os.fspath(path))
        except OSError as error:
            connection.close()
            raise _unreachable(name, path, error) from error
        return connection

    def _request(self, name: str, request: bytes) -> str:
        """Send one request and return the answer's lines before its `errno=0`."""
        with self._connect(name) as connection:
            try:
                connection.sendall(request)
                answer = _receive(connection)
            except TimeoutError as error:
                reason = f"the userspace WireGuard did not answer within {self._timeout:g} seconds; restart it"
                raise KernelError(name, reason) from error
            except OSError as error:
                raise refusal(name, error.errno or 0) from error
        body, _, code = answer.removesuffix(_END).decode("ascii", "replace").rpartition("errno=")
        if not answer.endswith(_END) or not code.removeprefix("-").isdigit():
            raise KernelError(name, "the userspace WireGuard broke off its answer; look at its log")
        if int(code) != 0:
            raise refusal(name, abs(int(code)))
        return body


def _unreachable(name: str, path: Path, error: OSError) -> KernelError:
    advice = f"start wireguard-go for it, e.g. by wgd-userspace@{name}.service"
    match error:
        case FileNotFoundError():
            return KernelError(name, f"no userspace WireGuard runs for it: there is no {path}; {advice}")
        case ConnectionRefusedError():
            return KernelError(name, f"nobody listens on {path}, its userspace WireGuard has died; {advice}")
        case TimeoutError() | BlockingIOError():
            return KernelError(name, f"the userspace WireGuard does not accept connections on {path}; restart it")
        case PermissionError():
            return KernelError(name, f"{path} may not be opened; run wireguard-go as the user that wgd runs as")
        case _:
            return KernelError(name, f"{path} cannot be reached: {error.strerror or error}")


def _receive(connection: socket.socket) -> bytes:
    """Return what arrives up to and including the empty line, or up to the end of the connection."""
    answer = bytearray()
    while not answer.endswith(_END):
        chunk = connection.recv(_CHUNK)
        if not chunk:
            break
        answer += chunk
    return bytes(answer)


def _requests(change: DeviceChange) -> Iterator[list[str]]:
    """Give the lines of every `set`; the first one carries the device's own fields."""
    lines = list(_device_lines(change.private_key, change.listen_port))
    peers = iter(change.peers)
    while (batch := list(islice(peers, PEERS_PER_REQUEST))) or lines:
        yield lines + [line for peer in batch for line in encode_peer(peer)]
        lines = []


def _device_lines(private_key: SecretKey | None, listen_port: int | None) -> Iterable[str]:
    if private_key is not None:
        yield f"private_key={private_key.raw.hex()}"
    if listen_port is not None:
        yield f"listen_port={listen_port}"
