"""The control socket from the side of those who ask."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wgd.errors import HostError
from wgd.host.varlink import Call, Messages, ProtocolError, call_bytes, parse_answer

CONTROL_SOCKET = Path("/run/wgd-server/control")
CLIENT_CONTROL_SOCKETS = Path("/run/wgd-client")
CLIENT_SUFFIX = ".control"
MAX_ANSWER_BYTES = 256 << 20
CHUNK_BYTES = 1 << 18


def client_control_socket(name: str) -> Path:
    """Return where the daemon of the connection `name` listens."""
    return CLIENT_CONTROL_SOCKETS / f"{name}{CLIENT_SUFFIX}"


def running_clients() -> tuple[str, ...]:
    """Return the names of the connections that have a control socket; raise HostError when that cannot be seen."""
    try:
        found = [path.name for path in CLIENT_CONTROL_SOCKETS.iterdir()]
    except FileNotFoundError:
        return ()
    except PermissionError:
        raise HostError(str(CLIENT_CONTROL_SOCKETS), "only root and the folder's group may look: try sudo") from None
    names = (name.removesuffix(CLIENT_SUFFIX) for name in found if name.endswith(CLIENT_SUFFIX) and name[0] != ".")
    return tuple(sorted(names))


def ask(path: Path, unit: str, method: str, parameters: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Call a method of the daemon of `unit`, which listens at `path`, and return what it answers.

    Raise HostError when nobody answers within `seconds`, VarlinkError when the answer is an error.
    """
    deadline = time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(seconds)
            connection.connect(str(path))
            connection.sendall(call_bytes(Call(method, parameters)))
            return parse_answer(_answer(connection, deadline, path, unit))
        except (FileNotFoundError, ConnectionRefusedError):
            raise HostError(str(path), f"no {unit} runs here: systemctl start {unit}") from None
        except PermissionError:
            raise HostError(str(path), "only root and the socket's group may ask: try it with sudo") from None
        except TimeoutError:
            raise HostError(str(path), f"{unit} has not answered within {seconds:g} seconds") from None
        except ProtocolError as error:
            raise HostError(str(path), f"what answers there is no {unit}: {error}") from None
        except OSError as error:
            raise HostError(str(path), f"cannot be asked: {error.strerror}") from error


def _answer(connection: socket.socket, deadline: float, path: Path, unit: str) -> dict[str, Any]:
    messages = Messages(MAX_ANSWER_BYTES)
    while (message := messages.next()) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        data = connection.recv(CHUNK_BYTES)
        if not data:
            raise HostError(str(path), f"{unit} has closed the connection without an answer")
        messages.add(data)
    return message
