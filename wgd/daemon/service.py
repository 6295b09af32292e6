"""The interface io.wgd.Server: which calls there are, who may make them, and what their parameters must be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, Protocol

from wgd import __version__
from wgd.daemon.control import Caller
from wgd.daemon.description import DESCRIPTIONS, INTERFACE
from wgd.errors import WgdError
from wgd.host.varlink import SERVICE, Call, VarlinkError
from wgd.model import ICMPV6, PORT_PROTOCOLS, PROTOCOLS, Address
from wgd.plan.preview import Change

MAX_CONFIRM_SECONDS = 86400
LAST_PORT, LAST_PROTOCOL, IPV6 = 65535, 255, 6
CHANGING = frozenset({f"{INTERFACE}.Reload", f"{INTERFACE}.Confirm"})
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

    def explain(self, client: str, to: Address, proto: int | None, port: int | None) -> dict[str, Any] | None:
        """Return what Explain answers, None when there is no such client; raise WgdError as `status` does."""


class Service:
    """Answers the calls of the control socket."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._methods: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
            f"{SERVICE}.GetInfo": self._get_info,
            f"{SERVICE}.GetInterfaceDescription": self._get_interface_description,
            f"{INTERFACE}.Status": self._status,
            f"{INTERFACE}.Plan": self._plan,
            f"{INTERFACE}.Reload": self._reload,
            f"{INTERFACE}.Confirm": self._confirm,
            f"{INTERFACE}.Explain": self._explain,
        }

    def answer(self, call: Call, caller: Caller) -> Mapping[str, Any]:
        """Return the answer's parameters; raise VarlinkError for an error."""
        method = self._methods.get(call.method)
        if call.method in CHANGING and not caller.may_change:
            raise VarlinkError(f"{SERVICE}.PermissionDenied")
        if method is not None:
            return method(call.parameters)
        if call.interface not in DESCRIPTIONS:
            raise VarlinkError(f"{SERVICE}.InterfaceNotFound", {"interface": call.interface})
        raise VarlinkError(f"{SERVICE}.MethodNotFound", {"method": call.method})

    def _get_info(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        _only(parameters)
        return {
            "vendor": "wgd",
            "product": "wgd-server",
            "version": __version__,
            "url": "",
            "interfaces": list(DESCRIPTIONS),
        }

    def _get_interface_description(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        _only(parameters, "interface")
        interface = parameters.get("interface")
        if not isinstance(interface, str):
            raise _invalid("interface")
        if interface not in DESCRIPTIONS:
            raise VarlinkError(f"{SERVICE}.InterfaceNotFound", {"interface": interface})
        return {"description": DESCRIPTIONS[interface]}

    def _status(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        _only(parameters)
        try:
            return {"status": self._operations.status()}
        except WgdError as error:
            raise VarlinkError(f"{INTERFACE}.Failed", {"reason": str(error)}) from error

    def _plan(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        _only(parameters)
        try:
            changes = self._operations.plan()
        except WgdError as error:
            raise _refused(error) from error
        return {"changes": [{"object": each.object, "action": each.action, "detail": each.detail} for each in changes]}

    def _reload(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        _only(parameters, "confirm")
        confirm = parameters.get("confirm")
        if confirm is not None and (type(confirm) is not int or not 1 <= confirm <= MAX_CONFIRM_SECONDS):
            raise _invalid("confirm")
        try:
            self._operations.reload(confirm)
        except WgdError as error:
            raise _refused(error) from error
        return {}

    def _confirm(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        _only(parameters)
        if not self._operations.confirm():
            raise VarlinkError(f"{INTERFACE}.NothingToConfirm")
        return {}

    def _explain(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        _only(parameters, "client", "destination", "protocol", "port")
        client, destination = parameters.get("client"), parameters.get("destination")
        if not isinstance(client, str):
            raise _invalid("client")
        to = _address(destination)
        proto = _protocol(parameters.get("protocol"), to.version)
        port = parameters.get("port")
        if port is not None and (type(port) is not int or not 1 <= port <= LAST_PORT or proto not in PORT_PROTOCOLS):
            raise _invalid("port")
        try:
            explanation = self._operations.explain(client, to, proto, port)
        except WgdError as error:
            raise VarlinkError(f"{INTERFACE}.Failed", {"reason": str(error)}) from error
        if explanation is None:
            raise VarlinkError(f"{INTERFACE}.UnknownClient", {"client": client})
        return {"explanation": explanation}


def _address(value: Any) -> Address:
    # ip_address takes numbers too, and an address with a zone is none that a packet carries.
    if not isinstance(value, str) or "%" in value:
        raise _invalid("destination")
    try:
        return ip_address(value)
    except ValueError:
        raise _invalid("destination") from None


def _protocol(value: Any, version: int) -> int | None:
    """Return the IANA number of a protocol's name or number; `icmp` is ICMPv6 for IPv6."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise _invalid("protocol")
    if re.fullmatch("[0-9]{1,3}", value) and int(value) <= LAST_PROTOCOL:
        return int(value)
    if value not in PROTOCOLS:
        raise _invalid("protocol")
    return ICMPV6 if value == "icmp" and version == IPV6 else PROTOCOLS[value]


def _only(parameters: Mapping[str, Any], *known: str) -> None:
    for name in parameters:
        if name not in known:
            raise _invalid(name)


def _invalid(parameter: str) -> VarlinkError:
    return VarlinkError(f"{SERVICE}.InvalidParameter", {"parameter": parameter})


def _refused(error: WgdError) -> VarlinkError:
    return VarlinkError(f"{INTERFACE}.Refused", {"reasons": str(error).splitlines()})
