"""The nftables table over its life: what was applied last, and the generation that its flows are marked with.

The kernel counts the changes of nftables, whoever makes them. As long as that number is what our own transactions have
made it, all that they did not touch is as it was read back; only what they did touch is read again.

Every change of the ruleset gets a generation that no flow in the kernel carries. There are 31. Before 1 to 15 begin
anew, and before 16 to 31 do, that half is taken from all flows; none of it has been given out for 15 changes.
"""

from __future__ import annotations

import time
from dataclasses import replace

from wgd.kernel.conntrack import forget_generations
from wgd.kernel.nft import Dropped, Nft
from wgd.plan.ruleset import next_generation, touched, transactions
from wgd.plan.ruleset_text import DELETE_TABLE
from wgd.plan.tampering import Known, distrust, known
from wgd.policy.ruleset import Ruleset

FIRST_OF_UPPER_HALF = 16
UNREAD = -1
"""The number of no ruleset: see `Nft.number`."""


class Table:
    """The table `inet wgd` of the network namespace in which this object is made.

    `applied` is the ruleset set last, with its generation, which is 0 as long as there is none.
    """

    def __init__(self) -> None:
        self._nft = Nft()
        self.applied = Ruleset()
        self._known: Known | None = None
        self._trusted_at = UNREAD
        self._held = Ruleset()
        self._held_at = UNREAD

    def close(self) -> None:
        """Let go of the kernel's socket; the table stays."""
        self._nft.close()

    def read(self) -> Ruleset | None:
        """Return the table as the kernel holds it, or None when there is none.

        A chain whose rules are not those of the table that was trusted last is unlike any chain that is wanted.
        """
        actual = self._read()
        return actual if self._known is None else distrust(actual, self._known)

    def _read(self) -> Ruleset | None:
        """Read what the ruleset's number does not vouch for."""
        number = self._nft.number()
        actual = self._nft.read(self.applied, self._held if number == self._held_at else Ruleset())
        self._held, self._held_at = _lasting(actual or Ruleset()), number
        return actual

    def trust(self, actual: Ruleset | None) -> None:
        """Take what was read last for what was set: the rules in it are those that `read` expects from now on."""
        self._known = known(actual)
        self._trusted_at = self._held_at

    def is_as_trusted(self) -> bool:
        """Tell, without reading the table, whether nobody has changed any since the one that was trusted last.

        False where that is not known: sets with an end change by themselves.
        """
        return self._known is not None and not _ends(self.applied) and self._nft.number() == self._trusted_at

    def dropped(self) -> Dropped:
        """Return what our chains have counted; nothing where they are gone."""
        return self._nft.dropped()

    def set(self, desired: Ruleset) -> None:
        """Lead the kernel to `desired`, which is `applied` from then on; raise KernelError when it is refused.

        A kernel that holds it already is not touched.
        """
        actual = replace(self.applied, chains=self._held.chains) if self.is_as_trusted() else self._found()
        now = time.time()
        if actual is not None and self.applied.generation in (0, actual.generation):
            kept = replace(desired, generation=actual.generation)
            if not transactions(kept, actual, now):
                self.applied = kept
                return
        # Also when it is refused: how far the kernel came with this generation is not known then.
        self.applied = replace(desired, generation=self._next(actual))
        steps, changed = transactions(self.applied, actual, now), touched(self.applied, actual, now)
        # Until it is known that the kernel has taken them all.
        number, self._held_at, self._trusted_at = self._held_at, UNREAD, UNREAD
        self._nft.apply(steps, now)
        self._held, self._held_at = _without(self._held, changed), number + len(steps)

    def _found(self) -> Ruleset | None:
        """Read the table that is to be changed; of one that an earlier run left, every chain is written anew.

        Nobody was there to see whether somebody changed one and left the mark standing by which it is known.
        """
        return distrust(self._readable(self._read()), self._known or Known(), any_generation=True)

    def delete(self) -> None:
        """Delete the table; nothing happens when there is none."""
        self._nft.delete()

    def _readable(self, actual: Ruleset | None) -> Ruleset | None:
        """Return `actual`, or what is left after deleting a table of which nobody knows what it marks flows with."""
        if actual is None or actual.generation or self.applied.generation:
            return actual
        self._nft.apply((DELETE_TABLE,))
        return self._read()

    def _next(self, actual: Ruleset | None) -> int:
        """Return a generation that no flow is marked with."""
        current = self.applied.generation or (actual.generation if actual is not None else 0)
        following = next_generation(current)
        if not current or following == FIRST_OF_UPPER_HALF:
            forget_generations(upper=True)
        if following == 1:
            forget_generations(upper=False)
        return following


def _ends(ruleset: Ruleset) -> bool:
    """Tell whether the kernel changes something of it by itself."""
    return any(key_set.until is not None for key_set in ruleset.sets.values())


def _lasting(ruleset: Ruleset) -> Ruleset:
    """Return what only transactions change."""
    return replace(ruleset, sets={name: found for name, found in ruleset.sets.items() if found.until is None})


def _without(ruleset: Ruleset, names: frozenset[str]) -> Ruleset:
    return replace(
        ruleset,
        chains={name: found for name, found in ruleset.chains.items() if name not in names},
        sets={name: found for name, found in ruleset.sets.items() if name not in names},
        maps={name: found for name, found in ruleset.maps.items() if name not in names},
    )
