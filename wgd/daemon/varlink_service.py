"""What the interfaces of both daemons share: dispatch, the service's own methods, and the errors for bad parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wgd import __version__
from wgd.daemon.control import Caller
from wgd.daemon.description import VARLINK_SERVICE
from wgd.errors import WgdError
from wgd.host.varlink import SERVICE, Call, VarlinkError

Method = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Takes a call's parameters and returns the answer's, or raises VarlinkError."""


class VarlinkService:
    """Answers the calls of one daemon's control socket.

    `methods` are those of `interface`, whose text is `description`; those named in `changing` need more than a
    connection.
    """

    def __init__(
        self, product: str, interface: str, description: str, methods: Mapping[str, Method], changing: frozenset[str]
    ) -> None:
        self._product = product
        self._descriptions = {SERVICE: VARLINK_SERVICE, interface: description}
        self._methods: dict[str, Method] = {
            f"{SERVICE}.GetInfo": self._get_info,
            f"{SERVICE}.GetInterfaceDescription": self._get_interface_description,
            **{f"{interface}.{name}": method for name, method in methods.items()},
        }
        self._changing = {f"{interface}.{name}" for name in changing}

    def answer(self, call: Call, caller: Caller) -> Mapping[str, Any]:
        """Return the answer's parameters; raise VarlinkError for an error."""
        method = self._methods.get(call.method)
        if call.method in self._changing and not caller.may_change:
            raise VarlinkError(f"{SERVICE}.PermissionDenied")
        if method is not None:
            return method(call.parameters)
        if call.interface not in self._descriptions:
            raise VarlinkError(f"{SERVICE}.InterfaceNotFound", {"interface": call.interface})
        raise VarlinkError(f"{SERVICE}.MethodNotFound", {"method": call.method})

    def _get_info(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        only(parameters)
        return {
            "vendor": "wgd",
            "product": self._product,
            "version": __version__,
            "url": "",
            "interfaces": list(self._descriptions),
        }

    def _get_interface_description(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        only(parameters, "interface")
        interface = parameters.get("interface")
        if not isinstance(interface, str):
            raise invalid("interface")
        if interface not in self._descriptions:
            raise VarlinkError(f"{SERVICE}.InterfaceNotFound", {"interface": interface})
        return {"description": self._descriptions[interface]}


def only(parameters: Mapping[str, Any], *known: str) -> None:
    """Raise VarlinkError for a parameter that is none of `known`."""
    for name in parameters:
        if name not in known:
            raise invalid(name)


def invalid(parameter: str) -> VarlinkError:
    """Return the error for a parameter that is missing or wrong."""
    return VarlinkError(f"{SERVICE}.InvalidParameter", {"parameter": parameter})


def refused(interface: str, error: WgdError) -> VarlinkError:
    """Return the error for a reload that is refused."""
    return VarlinkError(f"{interface}.Refused", {"reasons": str(error).splitlines()})


def failed(interface: str, error: WgdError) -> VarlinkError:
    """Return the error for a kernel that cannot be read."""
    return VarlinkError(f"{interface}.Failed", {"reason": str(error)})
