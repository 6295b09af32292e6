"""The whole table `inet wgd` for a config."""

from __future__ import annotations

from wgd.model import ServerConfig
from wgd.policy.compile import compile_policy
from wgd.policy.extra import compile_extra
from wgd.policy.ruleset import Ruleset, digest
from wgd.policy.skeleton import Context, fixed_chains

POLICY_DIGEST_DIGITS = 8


def policy_digest(config: ServerConfig) -> str:
    """Return 8 hexadecimal digits that name who the clients are and which rules they have.

    A logged packet carries them, so that an event is resolved against the policy that logged it.
    """
    lines = [f"{peer.name} {peer.public_key} {' '.join(map(str, peer.allowed_ips))}" for peer in config.peers]
    for rule in config.policy.rules:
        lines.append(f"{' '.join(map(str, rule.clients))} {rule.until}")
        labelled = [(rule.label(index), entry) for index, entry in enumerate(rule.allow)]
        labelled += [(rule.label_from(index), entry) for index, entry in enumerate(rule.allow_from)]
        lines += [f"{label} {entry.to} {entry.proto} {','.join(map(str, entry.ports))}" for label, entry in labelled]
    return digest("\n".join(lines), POLICY_DIGEST_DIGITS)


def desired_ruleset(config: ServerConfig, held: frozenset[int]) -> Ruleset:
    """Return what the kernel must hold for `config`; `held` as in `Context`."""
    policy, extra = compile_policy(config), compile_extra(config)
    fixed = fixed_chains(config, Context(policy_digest(config), held))
    return Ruleset(
        {**fixed, **policy.chains, **extra.chains}, {**policy.sets, **extra.sets}, {**policy.maps, **extra.maps}
    )
