"""What peers must not share: a name, a key, an address; nor may one claim the gateway's own address."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from wgd.config.drafts import PeerDraft
from wgd.config.overlap import Claim, overlaps
from wgd.config.shown import shown
from wgd.errors import Problem
from wgd.model import AddressWithPrefix, Place

T = TypeVar("T", bound=Hashable)


def problem_at(place: Place, text: str) -> Problem:
    """Return a problem at a place."""
    return Problem(place.file, place.line, place.path, text)


def where(place: Place) -> str:
    """Return FILE:LINE for a message."""
    return f"{place.file}:{place.line}"


def check_peers(drafts: Sequence[PeerDraft], addresses: Iterable[AddressWithPrefix]) -> Iterator[Problem]:
    """Yield every problem that shows only when the peers of all files are seen together."""
    names = [(draft.name, draft.name_place) for draft in drafts if draft.name is not None]
    for name, place, first in repeated(names):
        yield problem_at(place, f"the name {shown(name)} is taken by the peer at {where(first)}: choose another")
    keys = [(draft.public_key, draft.key_place) for draft in drafts if draft.public_key is not None]
    for _key, place, first in repeated(keys):
        yield problem_at(place, f"is the same key as the one at {where(first)}: every peer needs a key of its own")
    claims = [
        Claim(network, owner, place) for owner, draft in enumerate(drafts) for network, place in draft.allowed_ips
    ]
    yield from _overlapping(drafts, claims)
    for address in addresses:
        for claim in claims:
            if claim.network.version == address.version and address.ip in claim.network:
                yield problem_at(
                    claim.place, f"{claim.network} covers the gateway's own address {address.ip}: narrow it"
                )


def repeated(values: Iterable[tuple[T, Place]]) -> Iterator[tuple[T, Place, Place]]:
    """Yield (value, place, first place) for every value that was there before."""
    first: dict[T, Place] = {}
    for value, place in values:
        if value in first:
            yield value, place, first[value]
        else:
            first[value] = place


def _overlapping(drafts: Sequence[PeerDraft], claims: Sequence[Claim]) -> Iterator[Problem]:
    """Yield one problem for every claim that is in another's way, at the one of the two that was written later."""
    order = {id(claim): index for index, claim in enumerate(claims)}
    told = set()
    for pair in overlaps(claims):
        earlier, later = sorted(pair, key=lambda claim: order[id(claim)])
        if later.place in told:
            continue
        told.add(later.place)
        owner = drafts[earlier.owner].name
        named = f"peer {shown(owner)}" if owner else "the peer"
        yield problem_at(
            later.place,
            f"{later.network} overlaps {earlier.network} of {named} at {where(earlier.place)}: it must have one owner",
        )
