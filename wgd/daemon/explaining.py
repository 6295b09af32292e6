"""What Explain answers, as io.wgd.Server describes it."""

from __future__ import annotations

from typing import Any

from wgd.model import PROTOCOLS, Address, Peer, ServerConfig
from wgd.plan.explain import Answer, Question

PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


def find_client(config: ServerConfig, client: str) -> Peer | None:
    """Return the peer of that name or public key."""
    return next((peer for peer in config.peers if client in (peer.name, str(peer.public_key))), None)


def question(
    config: ServerConfig, client: str, to: Address, proto: int | None, port: int | None, *, incoming: bool = False
) -> Question | None:
    """Return the question about a client, None when there is no such client."""
    peer = find_client(config, client)
    return None if peer is None else Question(peer, to, proto, port, incoming)


def explanation(config: ServerConfig, asked: Question, by_config: Answer, by_kernel: Answer) -> dict[str, Any]:
    """Return the fields of Explanation."""
    return {
        "client": asked.client.name,
        "public_key": str(asked.client.public_key),
        "destination": str(asked.to),
        "protocol": None if asked.proto is None else PROTOCOL_NAMES.get(asked.proto, str(asked.proto)),
        "port": asked.port,
        "incoming": asked.incoming,
        "authz_mode": config.authz_mode.value,
        "config": _fields(by_config),
        "kernel": _fields(by_kernel),
        "agree": by_config.verdict is by_kernel.verdict,
    }


def _fields(answer: Answer) -> dict[str, Any]:
    return {"verdict": answer.verdict.value, "rule": answer.rule, "reasons": list(answer.reasons)}
