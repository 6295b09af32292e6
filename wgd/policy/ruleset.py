"""An nftables table as a value: what `inet wgd` shall hold, or holds.

Set elements are intervals of integers, one interval a field, because that is the form in which a wish and the
kernel's listing can be compared whatever way nft chooses to print them. Rules do not read back in a form one can
compare; a chain is known by the digest of its rules, which its first rule carries as a comment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

Interval = tuple[int, int]
"""First and last value, both included."""
Element = tuple[Interval, ...]
"""One interval for each field of a set's key."""

DIGEST_DIGITS = 12
GENERATION_MASK = 0x3E000000
"""The bits of the conntrack mark that hold a generation, 1 to 31; 0 in them is none. The lower 24 are the host's."""
GENERATION_SHIFT, LAST_GENERATION = 25, 31
ANSWERED = 0x01000000
"""The bit of the conntrack mark that a flow has which the network, no client, has answered in its generation."""
DECIDED_MASK = GENERATION_MASK | ANSWERED
RECORDED_MASK = 0xC0000000
"""The bits of the conntrack mark that are not 0 in a flow of which the event log has, or is to have, an `open`."""
RECORDED_FORWARDED, RECORDED_DELIVERED = 0x40000000, 0x80000000
"""What they say: forwarded, or delivered to the gateway itself. It stays when the generation changes."""
GENERATION_SET = "generation"
"""The set whose one element is the ct mark of the generation in force."""
TABLE_NAME = "wgd"
LOGGED = ("logged4", "logged6")
"""The counters of packets that were logged, by the log group: they live as long as the table does."""
RECORDED = "recorded"
"""The counter of flows that were marked with RECORDED_…: each has an end."""
LIMITED = "limited"
"""The counter of denials that were not logged because there were so many."""
LIMIT_SETS = tuple(f"limit_{direction}{family}" for direction in ("from", "to", "spoof") for family in (4, 6))
"""The sets by which the kernel knows how many are too many. It fills them itself, so they are no part of a Ruleset."""
GENERATION_WORD, IN_FORCE_WORD, ANSWERED_WORD = "$generation", "$in_force", "$answered"
"""What stands in a rule for the mark that an allowed flow gets, and for those that are accepted without asking: any
flow's, and an answered one's. The two are no flow's while a change is on its way. A chain has one digest for all
generations."""
NOBODYS_MARK = "0x00000001"
"""What no conntrack mark is equal to under DECIDED_MASK."""


def generation_mark(generation: int, more: int = 0) -> str:
    """Return the bits of the ct mark that say `generation`, and `more` of them, as nft writes them."""
    return f"0x{generation << GENERATION_SHIFT | more:08x}"


def digest(text: str, digits: int = DIGEST_DIGITS) -> str:
    """Return `digits` hexadecimal digits that name `text`; equal texts have equal names on every host."""
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


@dataclass(frozen=True)
class Chain:
    """A chain. `hook` is what makes it a base chain (`type filter hook … priority …`), None for a regular one.

    `mark` is what the comment of the first rule says, `rule_count` the number of rules. For a chain read from the
    kernel they are what is compared: `rules` is empty then, `content` is the digest of the rules as the kernel lists
    them, by which a chain is known again that nobody has changed since it was read, and `handles` are their numbers.
    """

    hook: str | None
    mark: str
    rule_count: int
    rules: tuple[str, ...] = field(default=(), compare=False)
    content: str = field(default="", compare=False)
    handles: tuple[int, ...] = field(default=(), compare=False)

    @staticmethod
    def of(*rules: str, hook: str | None = None) -> Chain:
        """Return the chain that holds `rules`, with its digest as mark."""
        return Chain(hook, digest("\n".join((hook or "", *rules))), len(rules), rules)


@dataclass(frozen=True)
class KeySet:
    """A set: `fields` are nft types (`ipv4_addr`, `inet_service`, …).

    `until` is when the kernel drops all elements, in POSIX seconds, None for never. As read back, it is when the last
    one goes, and 0 for a set whose elements may time out and that has none.
    """

    fields: tuple[str, ...]
    elements: frozenset[Element]
    until: int | None = None


@dataclass(frozen=True)
class VerdictMap:
    """A verdict map from an address interval to the chain that is jumped to."""

    fields: tuple[str, ...]
    elements: Mapping[Element, str]


@dataclass(frozen=True)
class Ruleset:
    """The whole table `inet wgd`, by name.

    `generation` is what the flows are marked with that this ruleset has allowed. 0 means, in a ruleset that is
    desired, whichever is in force; in one that was read, none that wgd would write. It takes no part in comparison:
    two rulesets are equal when they decide the same. Nor do `counters`, by name and with LIMIT_SETS: they stay when
    nothing counts.
    """

    chains: Mapping[str, Chain] = field(default_factory=dict)
    sets: Mapping[str, KeySet] = field(default_factory=dict)
    maps: Mapping[str, VerdictMap] = field(default_factory=dict)
    generation: int = field(default=0, compare=False)
    counters: frozenset[str] = field(default=frozenset(), compare=False)


NOTHING = Ruleset()
