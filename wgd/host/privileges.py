"""Giving up every privilege for good, for the process that reads bytes from the wire (promise 10).

capabilities(7) says what the sets mean, prctl(2) and capset(2) how they are changed.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from wgd.errors import HostError

_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_SETPCAP = 8
_SUBJECT = "privileges"
_HELD = ("CapPrm", "CapEff", "CapAmb")
"""The sets that give something. The inheritable and the bounding set limit what an execve may gain, which under
no_new_privs is nothing."""


def keep_privileges_from_children() -> None:
    """Empty the ambient set of this thread: what it starts from now on, as another user than root, has no capability.

    Raise HostError when that is refused.
    """
    _call(ctypes.CDLL(None, use_errno=True).prctl, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def drop_privileges() -> None:
    """Set no_new_privs and empty every capability set of this thread; raise HostError when one is not empty after.

    The bounding set can be emptied only by who holds CAP_SETPCAP, and where no capability is held there is nothing to
    give up: there the unit's system call filter knows no capset. Without either, those two sets are left.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    may_empty_bounding_set = bool(_status()["CapEff"] >> _CAP_SETPCAP & 1)
    _call(libc.prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call(libc.prctl, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if may_empty_bounding_set:
        _empty_bounding_set(libc)
    holds_any = any(_status()[name] for name in _HELD)
    if holds_any:
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        _call(libc.capset, header, (ctypes.c_uint32 * 6)())
    emptied = {"CapInh": holds_any, "CapBnd": may_empty_bounding_set}
    _verify([*_HELD, *(name for name in emptied if emptied[name])])


def _empty_bounding_set(libc: ctypes.CDLL) -> None:
    capability = 0
    while libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
        _call(libc.prctl, _PR_CAPBSET_DROP, capability, 0, 0, 0)
        capability += 1
    if ctypes.get_errno() != errno.EINVAL:
        raise HostError(_SUBJECT, f"the bounding set cannot be read: {os.strerror(ctypes.get_errno())}")


def _verify(sets: Iterable[str]) -> None:
    status = _status()
    left = [name for name in sets if status[name]]
    if left or not status["NoNewPrivs"]:
        raise HostError(
            _SUBJECT, f"could not be given up: {', '.join(left) or 'NoNewPrivs'} in /proc/thread-self/status"
        )


def _status() -> dict[str, int]:
    """Return the capability sets and NoNewPrivs of this thread."""
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines)
    return {name: int(value, 16) for name, value in pairs if name.startswith("Cap") or name == "NoNewPrivs"}


def _call(function: ctypes._NamedFuncPointer, *arguments: object) -> None:
    if function(*arguments) != 0:
        raise HostError(_SUBJECT, f"could not be given up: {function.__name__}: {os.strerror(ctypes.get_errno())}")
