"""The one loop of a daemon: signals, readable descriptors and timers, one callback at a time."""

from __future__ import annotations

import heapq
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable
from itertools import count
from types import TracebackType
from typing import Any, Self

Callback = Callable[[], None]


class Loop:
    """Runs callbacks until `stop`. A context manager: on exit the signals are as they were before."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._signals: dict[int, Callback] = {}
        self._handlers: dict[int, Any] = {}
        self._timers: list[tuple[float, int, float | None, Callback]] = []
        self._order = count()
        self._running = False
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)  # noqa: FBT003 - the socket's own interface
        self._wakeup_before = signal.set_wakeup_fd(self._wake_write.fileno())
        self.on_readable(self._wake_read, self._signalled)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def on_signal(self, numbers: Iterable[signal.Signals], callback: Callback) -> None:
        """Run `callback` in the loop when one of the signals arrives."""
        for number in numbers:
            self._signals[number] = callback
            # The handler does nothing: the number arrives over the wake-up descriptor.
            self._handlers.setdefault(number, signal.signal(number, lambda *_: None))

    def on_readable(self, source: Any, callback: Callback) -> None:
        """Run `callback` whenever `source`, a descriptor or an object with fileno(), can be read."""
        self._selector.register(source, selectors.EVENT_READ, callback)

    def forget(self, source: Any) -> None:
        """Take a source out that `on_readable` put in."""
        self._selector.unregister(source)

    def every(self, seconds: float, callback: Callback) -> None:
        """Run `callback` again and again, `seconds` after its last run has begun."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), seconds, callback))

    def after(self, seconds: float, callback: Callback) -> None:
        """Run `callback` once, in `seconds`."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), None, callback))

    def stop(self) -> None:
        """Leave `run` when the current callback has ended."""
        self._running = False

    def run(self) -> None:
        """Run until `stop`; an exception of a callback ends the loop and is passed on."""
        self._running = True
        while self._running:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, _ in self._selector.select(timeout):
                # A callback before it in the same round may have forgotten it.
                if key in self._selector.get_map().values():
                    self._call(key.data)
            self._run_timers()

    def _call(self, callback: Callback) -> None:
        """Run a callback, unless one before it in the same round has stopped the loop."""
        if self._running:
            callback()

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, order, seconds, callback = heapq.heappop(self._timers)
            if seconds is not None:
                heapq.heappush(self._timers, (now + seconds, order, seconds, callback))
            self._call(callback)

    def _signalled(self) -> None:
        for number in self._wake_read.recv(512):
            callback = self._signals.get(number)
            if callback is not None:
                self._call(callback)
