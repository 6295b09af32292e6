"""The interface io.wgd.Client: which calls there are, and what they answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from wgd.daemon.description import CLIENT, CLIENT_INTERFACE
from wgd.daemon.varlink_service import VarlinkService, failed, only, refused
from wgd.errors import WgdError


class Operations(Protocol):
    """What the daemon does when it is asked."""

    def status(self) -> dict[str, Any]:
        """Return what Status answers; raise WgdError when the kernel cannot be read."""

    def reload(self) -> None:
        """Reload; raise WgdError when it is refused."""


class ClientService(VarlinkService):
    """Answers the calls of a connection's control socket."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        methods = {"Status": self._status, "Reload": self._reload}
        super().__init__("wgd-client", CLIENT_INTERFACE, CLIENT, methods, frozenset({"Reload"}))

    def _status(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        only(parameters)
        try:
            return {"status": self._operations.status()}
        except WgdError as error:
            raise failed(CLIENT_INTERFACE, error) from error

    def _reload(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        only(parameters)
        try:
            self._operations.reload()
        except WgdError as error:
            raise refused(CLIENT_INTERFACE, error) from error
        return {}
