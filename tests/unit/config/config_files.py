"""Configs for the tests: the smallest valid ones, and what a loader says about a text."""

from __future__ import annotations

import base64

from wgd.config.client import load_client
from wgd.config.server import SourceFile, load_server
from wgd.errors import ConfigError
from wgd.model import ClientConfig, PublicKey, ServerConfig

INTERFACE = "interface: {name: wgd0, address: 10.80.0.1/24, listen_port: 51820}\n"
SERVER = INTERFACE + "authz_mode: enforce\n"


def key(number: int) -> PublicKey:
    return PublicKey(bytes([number]) * 32)


def key_text(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


def peer(number: int, *, name: str | None = None, allowed_ips: str | None = None) -> str:
    """Return a peer of three lines, to be put below `peers:`."""
    return (
        f"  - name: {name or f'peer{number}'}\n"
        f'    public_key: "{key_text(number)}"\n'
        f"    allowed_ips: {allowed_ips or f'10.80.0.{number}'}\n"
    )


def server(*texts: str) -> ServerConfig:
    """Load texts as server.yaml and server.d/1.yaml, server.d/2.yaml …"""
    names = ["server.yaml", *(f"server.d/{number}.yaml" for number in range(1, len(texts)))]
    return load_server([SourceFile(name, name, text.encode()) for name, text in zip(names, texts, strict=True)])


def server_problems(*texts: str) -> list[str]:
    """Return what the loader says about texts that it must refuse."""
    return _problems(lambda: server(*texts))


def client(text: str, name: str = "office") -> ClientConfig:
    return load_client(name, SourceFile(f"{name}.yaml", f"{name}.yaml", text.encode()))


def client_problems(text: str, name: str = "office") -> list[str]:
    return _problems(lambda: client(text, name))


def _problems(load: object) -> list[str]:
    assert callable(load)
    try:
        load()
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []
