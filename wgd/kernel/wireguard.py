"""WireGuard devices, whichever program drives them: what both doors can do, and the choice between them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from wgd.errors import ConflictError, KernelError, UnsupportedError
from wgd.kernel.wireguard_netlink import KernelWireGuard
from wgd.kernel.wireguard_uapi import DIRECTORY, UserspaceWireGuard
from wgd.model import Backend
from wgd.plan.state import Device, DeviceChange, Link

_KERNEL_KIND = "wireguard"
_USERSPACE_KIND = "tun"


class WireGuard(Protocol):
    """The door to a WireGuard device."""

    def read(self, name: str) -> Device:
        """Return the device with all its peers; raise KernelError when there is none."""

    def apply(self, name: str, change: DeviceChange) -> None:
        """Set the change; an empty one sends nothing. Raises KernelError."""

    def close(self) -> None:
        """Let go of the door; the device stays as it is."""


def open_wireguard(name: str, backend: Backend, link: Link | None, directory: Path = DIRECTORY) -> WireGuard:
    """Return the door for interface `name`, of which `link` is what the kernel has by that name today.

    Without a link the kernel's own WireGuard is taken, and the caller creates the link; with `Backend.USERSPACE` a
    wireguard-go that already runs, its socket in `directory`. Raises ConflictError where the link is something else,
    UnsupportedError where the kernel has no WireGuard, KernelError where no userspace WireGuard answers.
    """
    userspace = UserspaceWireGuard(directory)
    if backend is Backend.USERSPACE:
        _refuse_other(name, link, _USERSPACE_KIND, "a userspace WireGuard")
        userspace.probe(name)
        return userspace
    if backend is Backend.AUTO and link is not None and link.kind == _USERSPACE_KIND:
        _probe_foreign(name, userspace)
        return userspace
    _refuse_other(name, link, _KERNEL_KIND, "the kernel's WireGuard")
    try:
        return KernelWireGuard()
    except UnsupportedError as error:
        raise no_kernel_wireguard(name) from error


def no_kernel_wireguard(name: str) -> UnsupportedError:
    """Return the error that tells the operator what to do where the kernel has no WireGuard."""
    return UnsupportedError(
        name,
        "this kernel has no WireGuard; start a userspace one before wgd"
        f" (systemctl enable --now wgd-userspace@{name}.service, or wireguard-go {name})",
    )


def _refuse_other(name: str, link: Link | None, kind: str, wanted: str) -> None:
    if link is not None and link.kind != kind:
        raise ConflictError(
            name,
            f"a network interface of this name exists and is {_described(link.kind)}, not {wanted}; "
            "choose another name in the config or remove it",
        )


def _described(kind: str) -> str:
    return f"of kind {kind}" if kind else "a physical device"


def _probe_foreign(name: str, userspace: UserspaceWireGuard) -> None:
    """Raise ConflictError unless the tun device belongs to a userspace WireGuard that runs."""
    try:
        userspace.probe(name)
    except KernelError as error:
        raise ConflictError(
            name,
            f"a network interface of this name exists, of kind {_USERSPACE_KIND}, and no userspace WireGuard "
            f"answers for it ({error.reason})",
        ) from error
