"""What a reader gets to see of a config: key paths and short values, never anything that could be a secret."""

from __future__ import annotations

import re
from collections.abc import Sequence

Path = Sequence[str | int]
"""A key path as values: `("policy", "rules", 0)`."""

HIDDEN = "(hidden)"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
# A WireGuard key is 43 of these and a `=`. Half of one must not show either; no address, port or word has such a run.
_SECRET = re.compile(r"[A-Za-z0-9+/=]{20}", re.ASCII)
_MAX_SHOWN = 60


def dotted(path: Path) -> str:
    """Return `path` as `peers[0].name`; a step that is not a plain name is hidden, it could be a pasted secret."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            plain = _NAME.fullmatch(step) and not _SECRET.search(step)
            text += ("." if text else "") + (step if plain else HIDDEN)
    return text


def shown(value: str) -> str:
    """Return a harmless value for a message: quoted, escaped and cut short, or `(hidden)` when it resembles a key."""
    if _SECRET.search(value):
        return HIDDEN
    escaped = value.encode("unicode_escape").decode("ascii")
    return f"'{escaped}'" if len(escaped) <= _MAX_SHOWN else f"'{escaped[:_MAX_SHOWN]}…'"
