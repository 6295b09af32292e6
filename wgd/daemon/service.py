"""The interface io.wgd.Server: which calls there are, who may make them, and what their parameters must be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Protocol

from wgd.daemon.description import INTERFACE, SERVER
from wgd.daemon.varlink_service import VarlinkService, failed, invalid, only, refused
from wgd.errors import WgdError
from wgd.host.varlink import VarlinkError
from wgd.model import ICMPV6, PORT_PROTOCOLS, PROTOCOLS, Address
from wgd.plan.preview import Change

MAX_CONFIRM_SECONDS = 86400
LAST_PORT, LAST_PROTOCOL, IPV6 = 65535, 255, 6
CHANGING = frozenset({"Reload", "Confirm"})
"""The methods that need more than a connection."""


class Operations(Protocol):
    """What the daemon does when it is asked."""

    def status(self) -> dict[str, Any]:
        """Return what Status answers; raise WgdError when the kernel cannot be read."""

    def plan(self) -> tuple[Change, ...]:
        """Return what a reload would change; raise WgdError when it would be refused."""

    def reload(self, confirm: int | None) -> None:
        """Reload; raise WgdError when it is refused. `confirm` is in how many seconds to go back."""

    def confirm(self) -> bool:
        """Keep the config that was to be confirmed; False when there is none."""

    def explain(
        self, client: str, to: Address, proto: int | None, port: int | None, *, incoming: bool
    ) -> dict[str, Any] | None:
        """Return what Explain answers, None when there is no such client; raise WgdError as `status` does."""


class Service(VarlinkService):
    """Answers the calls of the gateway's control socket."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        methods = {
            "Status": self._status,
            "Plan": self._plan,
            "Reload": self._reload,
            "Confirm": self._confirm,
            "Explain": self._explain,
        }
        super().__init__("wgd-server", INTERFACE, SERVER, methods, CHANGING)

    def _status(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        only(parameters)
        try:
            return {"status": self._operations.status()}
        except WgdError as error:
            raise failed(INTERFACE, error) from error

    def _plan(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        only(parameters)
        try:
            changes = self._operations.plan()
        except WgdError as error:
            raise refused(INTERFACE, error) from error
        return {"changes": [{"object": each.object, "action": each.action, "detail": each.detail} for each in changes]}

    def _reload(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        only(parameters, "confirm")
        confirm = parameters.get("confirm")
        if confirm is not None and (type(confirm) is not int or not 1 <= confirm <= MAX_CONFIRM_SECONDS):
            raise invalid("confirm")
        try:
            self._operations.reload(confirm)
        except WgdError as error:
            raise refused(INTERFACE, error) from error
        return {}

    def _confirm(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        only(parameters)
        if not self._operations.confirm():
            raise VarlinkError(f"{INTERFACE}.NothingToConfirm")
        return {}

    def _explain(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        only(parameters, "client", "destination", "protocol", "port", "incoming")
        client, destination = parameters.get("client"), parameters.get("destination")
        if not isinstance(client, str):
            raise invalid("client")
        to = _address(destination)
        proto = _protocol(parameters.get("protocol"), to.version)
        port = parameters.get("port")
        if port is not None and (type(port) is not int or not 1 <= port <= LAST_PORT or proto not in PORT_PROTOCOLS):
            raise invalid("port")
        incoming = parameters.get("incoming")
        if incoming is not None and type(incoming) is not bool:
            raise invalid("incoming")
        try:
            explanation = self._operations.explain(client, to, proto, port, incoming=bool(incoming))
        except WgdError as error:
            raise failed(INTERFACE, error) from error
        if explanation is None:
            raise VarlinkError(f"{INTERFACE}.UnknownClient", {"client": client})
        return {"explanation": explanation}


def _address(value: Any) -> Address:
    # ip_address takes numbers too, and an address with a zone is none that a packet carries.
    if not isinstance(value, str) or "%" in value:
        raise invalid("destination")
    try:
        return ip_address(value)
    except ValueError:
        raise invalid("destination") from None


def _protocol(value: Any, version: int) -> int | None:
    """Return the IANA number of a protocol's name or number; `icmp` is ICMPv6 for IPv6."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise invalid("protocol")
    if re.fullmatch("[0-9]{1,3}", value) and int(value) <= LAST_PROTOCOL:
        return int(value)
    if value not in PROTOCOLS:
        raise invalid("protocol")
    return ICMPV6 if value == "icmp" and version == IPV6 else PROTOCOLS[value]
