"""How a bench says what it has measured."""

from __future__ import annotations

import json
import sys


def figure(bench: str, metric: str, ours: float, theirs: float | None, peer: str | None) -> None:
    """Print one figure: `ours` and `theirs` in the unit that `metric` names."""
    ratio = round(ours / theirs, 3) if theirs else None
    shown = {"bench": bench, "metric": metric, "ours": round(ours, 4)}
    shown |= {"theirs": round(theirs, 4) if theirs is not None else None, "peer": peer, "ratio": ratio}
    sys.stdout.write(json.dumps(shown) + "\n")
    sys.stdout.flush()
