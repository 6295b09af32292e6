"""A client's config: /etc/wgd/client/NAME.yaml, one file without drop-ins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import voluptuous

from wgd.config.addresses import endpoint, host_address, network
from wgd.config.interface import INTERFACE_FIELDS, check_addresses, read_interface
from wgd.config.schema import Reader, RefusedError, Section, mapping, some, unsupported
from wgd.config.text import SourceFile, read
from wgd.config.tree import Tree
from wgd.config.values import (
    client_table,
    false_only,
    file_path,
    integer,
    only,
    persistent_keepalive,
    public_key,
)
from wgd.config.values import (
    name as plain_name,
)
from wgd.errors import ConfigError, Problem
from wgd.model import ClientConfig, Network, Place, Routes, ServerPeer

__all__ = ["SourceFile", "load_client"]

T = TypeVar("T")

_LONGEST_INTERFACE_NAME = 15


def _allowed_network(value: Tree) -> Network:
    found = network(value)
    if found.prefixlen == 0:
        raise RefusedError(f"{found} (a full tunnel) is not supported yet: name the networks behind the gateway")
    return found


_TOP = Section(
    {
        "interface": mapping,
        "server": mapping,
        "routes": mapping,
        "kill_switch": false_only,
        "dns": unsupported,
    },
    required=("interface", "server"),
)
_INTERFACE = Section(INTERFACE_FIELDS, required=("address",))
_SERVER = Section(
    {
        "public_key": public_key,
        "preshared_key_file": file_path,
        "endpoint": some,
        "allowed_ips": some,
        "persistent_keepalive": persistent_keepalive,
    },
    required=("public_key", "endpoint", "allowed_ips"),
)
_ROUTES = Section(
    {
        "table": client_table,
        "metric": integer(0, 2**32 - 1),
        "on_conflict": only("refuse", "prefer_tunnel", "prefer_local"),
    }
)


def load_client(name: str, file: SourceFile) -> ClientConfig:
    """Return the config of the client `name` (NAME in wgd-client@NAME); raise ConfigError with every problem."""
    try:
        plain_name(name)
    except voluptuous.Invalid as error:
        raise ConfigError([Problem(file.path, 1, "", f"the client's name {error.msg}")]) from None
    document = read(file.path, file.text)
    if not document.complete:
        raise ConfigError(document.problems)
    reader = Reader(document)
    top = reader.section(_TOP, document.tree, ())
    interface = _section(reader, _INTERFACE, top, "interface")
    server = _section(reader, _SERVER, top, "server")
    routes = _section(reader, _ROUTES, top, "routes")
    addresses = _items(reader, host_address, interface, ("interface", "address"))
    endpoints = _items(reader, endpoint, server, ("server", "endpoint"))
    allowed_ips = _items(reader, _allowed_network, server, ("server", "allowed_ips"))
    reader.problems += check_addresses(addresses, interface.get("mtu"), reader.place(("interface", "mtu")))
    if reader.problems:
        raise ConfigError(reader.problems)
    default_name = f"wgd-{name}"[:_LONGEST_INTERFACE_NAME]
    return ClientConfig(
        name=name,
        interface=read_interface({"name": default_name, **interface}, addresses, reader.place(("interface",))),
        server=ServerPeer(
            public_key=server["public_key"],
            endpoints=tuple(found for found, _place in endpoints),
            allowed_ips=tuple(dict.fromkeys(found for found, _place in allowed_ips)),
            preshared_key_file=server.get("preshared_key_file"),
            persistent_keepalive=server.get("persistent_keepalive"),
            place=reader.place(("server",)),
        ),
        routes=Routes(**{key: value for key, value in routes.items() if key != "on_conflict"}),
    )


def _section(reader: Reader, section: Section, top: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the values of a section; of one that is missing or no mapping at all, nothing: that is noted already."""
    return reader.section(section, top[key], (key,)) if key in top else {}


def _items(
    reader: Reader, validator: Callable[[Tree], T], values: dict[str, Any], path: tuple[str, str]
) -> list[tuple[T, Place]]:
    """Return the values of a key that takes one or several, each with its place; none when the key is not there."""
    return reader.items(validator, values[path[1]], path) if path[1] in values else []
