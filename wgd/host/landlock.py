"""Landlock: this process opens nothing any more but the files of one directory (promise 10).

landlock(7) says what can be handled since which ABI; numbers and structures are those of linux/landlock.h and of the
system call table, where they are the same on every architecture that Debian has.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wgd.errors import HostError

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _MAKE_REG, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 8, 1 << 14
_TO_WRITE_A_LOG = _WRITE_FILE | _READ_FILE | _READ_DIR | _MAKE_REG | _TRUNCATE
_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many rights to files there are, by the ABI that brought the last of them."""
_NET_ABI, _ALL_NET = 4, 0b11
"""Binding and connecting TCP sockets."""
_SCOPE_ABI, _ALL_SCOPES = 6, 0b11
"""Abstract unix sockets and signals of processes outside."""
_NOT_THERE = frozenset({errno.ENOSYS, errno.EOPNOTSUPP})
"""Not built into this kernel, or switched off when it booted."""


class _RulesetAttributes(ctypes.Structure):
    _fields_ = [
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    ]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def restrict_to(directory: Path) -> bool:
    """Forbid this thread for good whatever Landlock knows, but listing, making and writing files below `directory`.

    A directory that cannot be opened is no exception to it: then no file can be. False, with nothing forbidden, where
    the kernel has no Landlock. Raise HostError when it has and refuses. no_new_privs must be set before.
    """
    try:
        abi = _call(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return False
        raise _refused(error) from error
    try:
        _restrict(abi, directory)
    except OSError as error:
        raise _refused(error) from error
    return True


def _restrict(abi: int, directory: Path) -> None:
    handled = (1 << max(count for since, count in _FS_RIGHTS.items() if since <= abi)) - 1
    attributes = _RulesetAttributes(
        handled, _ALL_NET if abi >= _NET_ABI else 0, _ALL_SCOPES if abi >= _SCOPE_ABI else 0
    )
    # A kernel that is older than the structure takes it as long as what it does not know is zero.
    ruleset = _call(_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    try:
        with _opened(directory) as descriptor:
            if descriptor is not None:
                beneath = _PathBeneath(_TO_WRITE_A_LOG & handled, descriptor)
                _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(beneath), 0)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


@contextmanager
def _opened(directory: Path) -> Iterator[int | None]:
    try:
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _refused(error: OSError) -> HostError:
    return HostError(
        "Landlock", f"cannot be set up: {error.strerror}; a SystemCallFilter of the service must let @sandbox through"
    )
