"""What a daemon tells the service manager: sd_notify(3) and sd_watchdog_enabled(3).

Without a manager (no $NOTIFY_SOCKET) nothing is sent. A message that cannot be delivered is logged, not
raised: the manager has its own time-outs for a daemon it no longer hears, and traffic shall not end for it.
"""

from __future__ import annotations

import logging
import os
import time

from systemd import daemon

from wgd.errors import HostError

_log = logging.getLogger(__name__)


def ready() -> None:
    """Say that start-up, or a reload, is complete."""
    _send("READY=1")


def reloading() -> None:
    """Say that a reload begins; `ready` ends it. The clock value is what Type=notify-reload asks for (systemd 253)."""
    _send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> None:
    """Say that the daemon is on its way out."""
    _send("STOPPING=1")


def status(text: str) -> None:
    """Set the one line that `systemctl status` shows; line breaks in `text` become blanks."""
    _send("STATUS=" + " ".join(text.splitlines()))


def watchdog() -> None:
    """Tell the watchdog that all is well."""
    _send("WATCHDOG=1")


def watchdog_interval() -> float | None:
    """Return the seconds between two calls of `watchdog`: half the manager's time-out (sd_watchdog_enabled(3)).

    None where the manager keeps no watchdog over this process. Raises HostError for a value that is no time.
    """
    microseconds = os.environ.get("WATCHDOG_USEC")
    if microseconds is None or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    if not microseconds.isascii() or not microseconds.isdigit() or int(microseconds) == 0:
        raise HostError("WATCHDOG_USEC", "is not a number of microseconds; the service manager sets it, nobody else")
    return int(microseconds) / 2 / 1_000_000


def keep_descriptor(name: str, descriptor: int) -> None:
    """Have the manager keep a descriptor under a name, for the daemon that it starts after this one.

    It keeps as many as FileDescriptorStoreMax= of the unit allows, and one that it has already is not kept twice.
    FDPOLL=0: it shall keep a socket also when that reports an error, as one does whose queue was full.
    """
    _send("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", descriptors=(descriptor,))


def let_go(name: str) -> None:
    """Have the manager close what it keeps under a name."""
    _send("FDSTOREREMOVE=1", f"FDNAME={name}")


def kept_descriptors() -> dict[str, int]:
    """Return the descriptors that the manager has kept, by name; they are the caller's, and told only once."""
    try:
        found = daemon.listen_fds_with_names()
    except OSError as error:
        _log.warning("what the service manager has kept cannot be taken: %s", error.strerror)
        return {}
    named: dict[str, int] = {}
    for descriptor, name in found.items():
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - the function's own interface
        if name in named:
            os.close(descriptor)
        else:
            named[name] = descriptor
    return named


def _send(*lines: str, descriptors: tuple[int, ...] = ()) -> None:
    try:
        daemon.notify("\n".join(lines), fds=list(descriptors))
    except OSError as error:
        _log.warning("the service manager cannot be told %s: %s", lines[0], error.strerror)
