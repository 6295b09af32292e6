"""The nftables table over its life: what was applied last, and the generation that its flows are marked with.

Every change of the ruleset gets a generation that no flow in the kernel carries. There are 63. Before 1 to 31 begin
anew, and before 32 to 63 do, that half is taken from all flows; none of it has been given out for 31 changes.
"""

from __future__ import annotations

import time
from dataclasses import replace

from wgd.kernel.conntrack import forget_generations
from wgd.kernel.nft import Dropped, Nft
from wgd.kernel.nft_number import ruleset_number
from wgd.plan.ruleset import DELETE_TABLE, next_generation, transactions
from wgd.plan.tampering import Known, distrust, known
from wgd.policy.ruleset import Ruleset

FIRST_OF_UPPER_HALF = 32
UNREAD = -1
"""The number of no ruleset: see `ruleset_number`."""


class Table:
    """The table `inet wgd` of the network namespace in which this object is made.

    `applied` is the ruleset set last, with its generation, which is 0 as long as there is none.
    """

    def __init__(self) -> None:
        self._nft = Nft()
        self.applied = Ruleset()
        self._known: Known | None = None
        self._read_at = self._trusted_at = UNREAD

    def read(self) -> Ruleset | None:
        """Return the table as the kernel holds it, or None when there is none.

        A chain whose rules are not those of the table that was trusted last is unlike any chain that is wanted.
        """
        self._read_at = ruleset_number()
        actual = self._nft.read()
        return actual if self._known is None else distrust(actual, self._known)

    def trust(self, actual: Ruleset | None) -> None:
        """Take what was read last for what was set: the rules in it are those that `read` expects from now on."""
        self._known = known(actual)
        self._trusted_at = self._read_at

    def is_as_trusted(self) -> bool:
        """Tell, without reading the table, whether nobody has changed any since the one that was trusted last.

        False where that is not known: sets with an end change by themselves.
        """
        ends = any(key_set.until is not None for key_set in self.applied.sets.values())
        return self._known is not None and not ends and ruleset_number() == self._trusted_at

    def dropped(self) -> Dropped:
        """Return what our chains have counted; nothing where they are gone."""
        return self._nft.dropped()

    def set(self, desired: Ruleset) -> None:
        """Lead the kernel to `desired`, which is `applied` from then on; raise KernelError when it is refused.

        A kernel that holds it already is not touched.
        """
        actual: Ruleset | None = self.applied if self.is_as_trusted() else self._found()
        if actual is not None and self.applied.generation in (0, actual.generation):
            kept = replace(desired, generation=actual.generation)
            if not transactions(kept, actual, time.time()):
                self.applied = kept
                return
        # Also when it is refused: how far the kernel came with this generation is not known then.
        self.applied = replace(desired, generation=self._next(actual))
        self._trusted_at = UNREAD
        self._nft.apply(transactions(self.applied, actual, time.time()))

    def _found(self) -> Ruleset | None:
        """Read the table that is to be changed."""
        actual = self._readable(self._nft.read())
        return actual if self._known is None else distrust(actual, self._known, any_generation=True)

    def delete(self) -> None:
        """Delete the table; nothing happens when there is none."""
        self._nft.delete()

    def _readable(self, actual: Ruleset | None) -> Ruleset | None:
        """Return `actual`, or None after deleting a table of which nobody knows what it marks flows with."""
        if actual is None or actual.generation or self.applied.generation:
            return actual
        self._nft.apply((DELETE_TABLE,))
        return None

    def _next(self, actual: Ruleset | None) -> int:
        """Return a generation that no flow is marked with."""
        current = self.applied.generation or (actual.generation if actual is not None else 0)
        following = next_generation(current)
        if not current or following == FIRST_OF_UPPER_HALF:
            forget_generations(upper=True)
        if following == 1:
            forget_generations(upper=False)
        return following
