"""The refusals of a WireGuard device, in words for the operator."""

from __future__ import annotations

import errno
import os

from wgd.errors import KernelError

_NAMES = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}  # which Linux gives the number of ENOTSUP too
_WORDS = {
    errno.EACCES: "permission denied; wgd must run as root or as user wgd with CAP_NET_ADMIN",
    errno.EPERM: "permission denied; wgd must run as root or as user wgd with CAP_NET_ADMIN",
    errno.ENODEV: "there is no such network interface",
    errno.EOPNOTSUPP: "the interface exists but is not a WireGuard device",
    errno.EADDRINUSE: "the listen port is in use by another program",
    errno.EAFNOSUPPORT: "the kernel has no support for the endpoint's address family",
    errno.EINVAL: "a value was not accepted",
}


def refusal(subject: str, code: int) -> KernelError:
    """Return the error for the errno `code` (positive) that the device of `subject`, or its peer, answered with."""
    name = _NAMES.get(code, f"errno {code}")
    return KernelError(subject, f"{name}: {_WORDS.get(code, os.strerror(code))}")
