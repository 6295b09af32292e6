"""Varlink, the part of it that we speak (varlink.org, "Method Call"): JSON objects over a stream, each ended by a NUL.

A call is {"method", "parameters", "more", "oneway"}, an answer {"parameters"} or {"error", "parameters"}. Calls of one
connection are answered in their order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SERVICE = "org.varlink.service"


class ProtocolError(ValueError):
    """What came in is no varlink message, or is too long to be one of ours."""


class VarlinkError(Exception):
    """An answer that is an error: its qualified name and what comes with it."""

    def __init__(self, name: str, parameters: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.parameters = dict(parameters or {})
        super().__init__(name)


@dataclass(frozen=True)
class Call:
    """A method by its qualified name. `oneway`: the caller waits for no answer."""

    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    oneway: bool = False

    @property
    def interface(self) -> str:
        """The method's interface, '' where its name has none."""
        return self.method.rpartition(".")[0]


class Messages:
    """Cuts what arrives into messages of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._searched = 0

    def add(self, data: bytes) -> None:
        """Take what has arrived."""
        self._buffer += data

    def next(self) -> dict[str, Any] | None:
        """Return the next whole message, None until there is one; raise ProtocolError for what is none."""
        end = self._buffer.find(0, self._searched)
        if max(end, len(self._buffer) if end < 0 else 0) > self._limit:
            raise ProtocolError(f"a message is longer than {self._limit} bytes")
        if end < 0:
            self._searched = len(self._buffer)
            return None
        raw = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return _object(raw)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        message = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ProtocolError("a message is not JSON") from None
    if not isinstance(message, dict):
        raise ProtocolError("a message is not a JSON object")
    return message


def parse_call(message: Mapping[str, Any]) -> Call:
    """Return the call that a message is; raise ProtocolError when it is none."""
    method, parameters, oneway = message.get("method"), message.get("parameters"), message.get("oneway")
    if not isinstance(method, str) or not isinstance(parameters, dict | None) or not isinstance(oneway, bool | None):
        raise ProtocolError("a message is not a method call")
    return Call(method, parameters or {}, bool(oneway))


def parse_answer(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of an answer; raise VarlinkError for an error, ProtocolError when it is no answer."""
    parameters, error = message.get("parameters"), message.get("error")
    if not isinstance(parameters, dict | None) or not isinstance(error, str | None):
        raise ProtocolError("a message is not an answer")
    if error is not None:
        raise VarlinkError(error, parameters)
    return parameters or {}


def call_bytes(call: Call) -> bytes:
    """Return a call as it is sent."""
    oneway = {"oneway": True} if call.oneway else {}
    return _bytes({"method": call.method, "parameters": dict(call.parameters), **oneway})


def answer_bytes(parameters: Mapping[str, Any]) -> bytes:
    """Return an answer as it is sent."""
    return _bytes({"parameters": dict(parameters)})


def error_bytes(error: VarlinkError) -> bytes:
    """Return an error as it is sent."""
    return _bytes({"error": error.name, "parameters": error.parameters})


def _bytes(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\0"
