"""The whole table `inet wgd` for a config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from wgd.errors import Problem
from wgd.model import Peer, ServerConfig
from wgd.policy.bounds import too_large
from wgd.policy.compile import Compiled, compile_policy
from wgd.policy.extra import compile_extra
from wgd.policy.limits import wide_sets
from wgd.policy.remembered import remembered
from wgd.policy.ruleset import LIMIT_SETS, LIMITED, LOGGED, NOTHING, RECORDED, Ruleset, digest
from wgd.policy.skeleton import Context, fixed_chains

POLICY_DIGEST_DIGITS = 8
Value = TypeVar("Value")


def policy_digest(config: ServerConfig) -> str:
    """Return 8 hexadecimal digits that name who the clients are and which rules they have.

    A logged packet carries them, so that an event is resolved against the policy that logged it.
    """
    parts = (_fingerprint(config.peers), *(rule.fingerprint for rule in config.policy.rules))
    return digest("\n".join(parts), POLICY_DIGEST_DIGITS)


@remembered
def _fingerprint(peers: tuple[Peer, ...]) -> str:
    return digest("\n".join(f"{peer.name} {peer.public_key} {' '.join(map(str, peer.allowed_ips))}" for peer in peers))


def desired_ruleset(config: ServerConfig, held: frozenset[int], like: Ruleset = NOTHING) -> Ruleset:
    """Return what the kernel must hold for `config`; `held` as in `Context`.

    A set or map that equals that of `like` is the very same object, so that it is compared in no time from then on.
    """
    policy, extra = _compiled(config)
    fixed = fixed_chains(config, Context(policy_digest(config), held))
    limits = wide_sets(config) if config.logging.enabled else {}
    return Ruleset(
        {**fixed, **policy.chains, **extra.chains},
        _as_in({**policy.sets, **extra.sets, **limits}, like.sets),
        _as_in({**policy.maps, **extra.maps}, like.maps),
        counters=frozenset((*LOGGED, RECORDED, LIMITED, *LIMIT_SETS)) if config.logging.enabled else frozenset(),
    )


def problems_of_size(config: ServerConfig) -> Iterator[Problem]:
    """Yield a problem where the kernel would not load `config`'s policy in any reasonable time."""
    policy, extra = _compiled(config)
    return too_large(config, {**policy.sets, **extra.sets})


@remembered
def _compiled(config: ServerConfig) -> tuple[Compiled, Compiled]:
    return compile_policy(config), compile_extra(config)


def _as_in(found: Mapping[str, Value], like: Mapping[str, Value]) -> dict[str, Value]:
    return {name: like[name] if name in like and like[name] == value else value for name, value in found.items()}
