"""The door to the kernel's own WireGuard: generic netlink family `wireguard`, version 1 (linux/wireguard.h).

pyroute2 finds the family, sends, receives and checks; the device's attributes are its to lay out, the peers' ours
(wireguard_messages): its own WireGuard class takes one peer a call and does not join a peer that a dump splits.
"""

from __future__ import annotations

import errno
from typing import Any

from pyroute2.netlink import NLA_F_NESTED, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from wgd.errors import KernelError, UnsupportedError
from wgd.kernel.wireguard_errors import refusal
from wgd.kernel.wireguard_messages import decode_peers, encode_peers
from wgd.model import SecretKey
from wgd.plan.state import Device, DeviceChange

_FAMILY, _VERSION = "wireguard", 1
_GET_DEVICE, _SET_DEVICE = 0, 1
_READ_ATTEMPTS = 10


class _Message(genlmsg):  # type: ignore[misc] # pyroute2 carries no types
    """A device's attributes, enum wgdevice_attribute in its order; the peers stay bytes."""

    nla_map = (
        ("WGDEVICE_A_UNSPEC", "none"),
        ("WGDEVICE_A_IFINDEX", "uint32"),
        ("WGDEVICE_A_IFNAME", "asciiz"),
        ("WGDEVICE_A_PRIVATE_KEY", "cdata"),
        ("WGDEVICE_A_PUBLIC_KEY", "cdata"),
        ("WGDEVICE_A_FLAGS", "uint32"),
        ("WGDEVICE_A_LISTEN_PORT", "uint16"),
        ("WGDEVICE_A_FWMARK", "uint32"),
        ("WGDEVICE_A_PEERS", "cdata", NLA_F_NESTED),
    )


class KernelWireGuard:
    """The WireGuard devices of the calling process's network namespace.

    Opening it loads the kernel's module where there is one; raises UnsupportedError where there is none.
    """

    def __init__(self) -> None:
        self._socket = GenericNetlinkSocket()
        self._socket.module_err_level = "debug"
        try:
            self._socket.bind(_FAMILY, _Message)
        except (NetlinkError, OSError) as error:
            self._socket.close()
            if getattr(error, "code", None) == errno.ENOENT:
                raise UnsupportedError(_FAMILY, "this kernel has no WireGuard module") from error
            raise refusal(_FAMILY, _code(error)) from error

    def read(self, name: str) -> Device:
        """Return the device `name` with all its peers; raise KernelError where there is none."""
        messages = self._dump(name)
        try:
            peers = decode_peers(message.get_attr("WGDEVICE_A_PEERS") or b"" for message in messages)
        except ValueError as error:
            raise KernelError(name, f"the kernel's WireGuard answer cannot be read: {error}") from error
        # Only the first message of a dump has the device's own attributes.
        first = messages[0]
        private_key = first.get_attr("WGDEVICE_A_PRIVATE_KEY")
        return Device(
            name=name,
            private_key=None if private_key is None else SecretKey(private_key),
            listen_port=first.get_attr("WGDEVICE_A_LISTEN_PORT"),
            peers=peers,
            fwmark=first.get_attr("WGDEVICE_A_FWMARK") or 0,
        )

    def apply(self, name: str, change: DeviceChange) -> None:
        """Set `change` on device `name`; an empty change sends nothing.

        Raises KernelError with the kernel's errno; what stands before the refused part of the change stays applied.
        """
        if not change:
            return
        attributes: list[tuple[str, Any]] = []
        if change.private_key is not None:
            attributes.append(("WGDEVICE_A_PRIVATE_KEY", change.private_key.raw))
        if change.listen_port is not None:
            attributes.append(("WGDEVICE_A_LISTEN_PORT", change.listen_port))
        payloads = list(encode_peers(change.peers)) or [b""]
        for payload in payloads:
            peers = [("WGDEVICE_A_PEERS", payload)] if payload else []
            self._request(name, _SET_DEVICE, NLM_F_REQUEST | NLM_F_ACK, attributes + peers)
            attributes = []

    def close(self) -> None:
        """Close the socket; the devices stay as they are."""
        self._socket.close()

    def _dump(self, name: str) -> tuple[Any, ...]:
        for _ in range(_READ_ATTEMPTS):
            try:
                return self._request(name, _GET_DEVICE, NLM_F_REQUEST | NLM_F_DUMP, [])
            except NetlinkDumpInterrupted:
                # The device changed while the kernel wrote it out: what came may miss peers.
                continue
        raise KernelError(
            name, "EINTR: its peers change faster than they can be read; is another program setting them?"
        )

    def _request(self, name: str, command: int, flags: int, attributes: list[tuple[str, Any]]) -> tuple[Any, ...]:
        message = _Message()
        message["cmd"], message["version"] = command, _VERSION
        message["attrs"] = [("WGDEVICE_A_IFNAME", name), *attributes]
        try:
            return tuple(self._socket.nlm_request(message, self._socket.prid, flags))
        except NetlinkDumpInterrupted:
            raise
        except (NetlinkError, OSError) as error:
            raise refusal(name, _code(error)) from error


def _code(error: Exception) -> int:
    """Return the errno of an OSError or of pyroute2's NetlinkError, which keeps it elsewhere."""
    return int(getattr(error, "code", None) or getattr(error, "errno", None) or 0)
