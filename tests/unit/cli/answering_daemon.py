"""A daemon on a control socket that answers what a test wants."""

import json
import socket
import threading
from pathlib import Path
from typing import Any


class Daemon:
    """Answers one caller with given bytes, once it has called."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer: bytes | None = b""
        self.calls: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            received = b""
            while not received.endswith(b"\0"):
                received += connection.recv(4096)
            self.calls.append(json.loads(received[:-1]))
            if self.answer is None:
                self._over.wait()
            else:
                connection.sendall(self.answer)

    def close(self) -> None:
        self._over.set()
        if not self.calls:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
                last.connect(str(self.path))
                last.send(b"{}\0")
        self._thread.join()
        self._listener.close()
