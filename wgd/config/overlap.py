"""Which networks of different owners overlap. Two networks overlap only when one holds the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wgd.model import Network, Place


@dataclass(frozen=True)
class Claim:
    """A network that `owner` (a number, in the order of writing) claims."""

    network: Network
    owner: int
    place: Place


def overlaps(claims: Iterable[Claim]) -> Iterator[tuple[Claim, Claim]]:
    """Yield (inner, outer) for every claim that lies in a claim of another owner; one outer each, the narrowest.

    One sweep over the sorted claims. `enclosing` are the claims that hold the current address, widest first.
    """
    enclosing: list[tuple[int, Claim]] = []
    family = 0
    for version, first, length, _order, claim in sorted(
        (claim.network.version, int(claim.network.network_address), claim.network.prefixlen, order, claim)
        for order, claim in enumerate(claims)
    ):
        if version != family:
            family = version
            enclosing.clear()
        while enclosing and enclosing[-1][0] < first:
            enclosing.pop()
        outer = next((held for _last, held in reversed(enclosing) if held.owner != claim.owner), None)
        if outer is not None:
            yield claim, outer
        # Two owners of one network are enough: whoever comes next differs from one of them.
        same = [held.owner for _last, held in enclosing[-2:] if held.network == claim.network]
        if len(same) < 2 and claim.owner not in same:  # noqa: PLR2004  # the two of the comment
            enclosing.append((first + (1 << (claim.network.max_prefixlen - length)) - 1, claim))
