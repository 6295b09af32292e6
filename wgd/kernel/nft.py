"""The door to nftables: text through libnftables in this process, elements and lists through netlink.

Reading gives a `Ruleset` of our own table; nothing outside `inet wgd` is ever read into one or written.
"""

from __future__ import annotations

import errno
import hashlib
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import nftables

from wgd.errors import KernelError
from wgd.kernel import nft_listing as listing
from wgd.kernel.netlink import attributes, text, text_of
from wgd.kernel.nft_counters import COUNTERS, GET_OBJECT, OBJECT_NAME
from wgd.kernel.nft_listing import Rule, SetHead
from wgd.kernel.nft_messages import FAMILY_HEADER, LIST_SET, LIST_TABLE, NUMBER, SUBSYSTEM, batch
from wgd.kernel.nft_socket import GET_TABLE, TABLE_ATTRIBUTE, NftSocket, RefusedError
from wgd.plan.state import ElementChange, Transaction
from wgd.policy.ruleset import GENERATION_SET, LIMIT_SETS, NOTHING, TABLE_NAME, Chain, KeySet, Ruleset, VerdictMap

GET_CHAIN, GET_RULE, GET_SET, GET_ELEMENTS = (SUBSYSTEM << 8 | kind for kind in (4, 7, 10, 13))
"""NFT_MSG_GET…"""
FLAGS_OF_TABLE, RULE_TABLE, RULE_CHAIN, SET_TABLE = 2, 1, 2, 1
"""NFTA_…"""
DORMANT = 1
"""NFT_TABLE_F_DORMANT."""
_CARET = re.compile(r"^\s*\^*~*\s*$")


class Dropped(NamedTuple):
    """Packets dropped since the chains were loaded: no rule covers them; they forge a client's address."""

    denied: int
    spoofed: int


class Nft:
    """nftables of the network namespace in which this object is made."""

    def __init__(self) -> None:
        self._nft = nftables.Nftables()
        self._netlink = NftSocket()
        self._seen: dict[str, tuple[SetHead, bytes, KeySet | VerdictMap]] = {}

    def close(self) -> None:
        """Close the socket; the table stays as it is."""
        self._netlink.close()

    def number(self) -> int:
        """Return the number of the ruleset in force: see NftSocket."""
        return self._netlink.number()

    def apply(self, transactions: tuple[Transaction, ...], planned: float | None = None) -> None:
        """Apply each transaction in turn; raise KernelError with nft's or the kernel's words at the first refused.

        `planned` is when they were made, in POSIX seconds: what has passed since is taken off the timeouts. Before the
        last of a large table is sent, seconds have.
        """
        for transaction in transactions:
            if isinstance(transaction, str):
                self._apply_text(transaction)
            else:
                self._apply_elements(transaction if planned is None else _later(transaction, time.time() - planned))

    def _apply_text(self, commands: str) -> None:
        code, _, error = self._nft.cmd(commands)
        if code != 0:
            raise KernelError("nftables", _reason(error))

    def _apply_elements(self, changes: tuple[ElementChange, ...]) -> None:
        try:
            self._netlink.transact(batch(changes))
        except RefusedError as error:
            raise KernelError("nftables", f"elements of {changes[error.sequence - 1].name}: {error}") from error

    def read(self, like: Ruleset = NOTHING, unchanged: Ruleset = NOTHING) -> Ruleset | None:
        """Return our table as the kernel holds it, or None when there is none.

        What `unchanged` has is taken from there if the kernel has it too; its elements and rules are not asked for.
        What equals an object of `like` is given as that object, which costs no memory and is compared in no time.
        """
        dormant = self._dormant()
        if dormant is None:
            return None
        heads = {head.name: head for head in map(listing.set_head, self._dump(GET_SET, text(SET_TABLE, TABLE_NAME)))}
        # A dormant table's chains hook nowhere.
        hooks = {
            name: None if dormant else hook
            for table, name, hook in map(listing.chain, self._dump(GET_CHAIN))
            if table == TABLE_NAME
        }
        chains = self._chains(hooks, {} if dormant else unchanged.chains, heads)
        sets: dict[str, KeySet] = {}
        maps: dict[str, VerdictMap] = {}
        generation = 0
        for name, head in heads.items():
            if name == GENERATION_SET:
                generation = listing.generation_of(head, self._lists(name))
            elif name in LIMIT_SETS:
                continue
            elif head.is_map and not head.anonymous:
                maps[name] = unchanged.maps.get(name) or self._map(head, like.maps.get(name))
            elif not head.anonymous:
                sets[name] = unchanged.sets.get(name) or self._set(head, like.sets.get(name))
        self._seen = {name: seen for name, seen in self._seen.items() if name in heads}
        counters = frozenset((*self._counters(), *(heads.keys() & LIMIT_SETS)))
        return Ruleset(chains, sets, maps, generation, counters)

    def dropped(self) -> Dropped:
        """Return what our chains have counted; nothing where they are gone."""
        return Dropped(self._counted("deny"), self._counted("spoofed"))

    def _counted(self, chain: str) -> int:
        """Return how many packets met the counters of a chain."""
        return sum(rule.packets for rule in self._rules(chain))

    def delete(self) -> None:
        """Delete our table; nothing happens when there is none."""
        if self._dormant() is not None:
            self._apply_text(f"delete table inet {TABLE_NAME}")

    def _dormant(self) -> bool | None:
        """Tell whether our table is switched off; None when there is none."""
        for body in self._dump(GET_TABLE):
            found = dict(attributes(body))
            if text_of(found.get(TABLE_ATTRIBUTE)) == TABLE_NAME:
                return bool(NUMBER.unpack(found[FLAGS_OF_TABLE])[0] & DORMANT)
        return None

    def _chains(
        self, hooks: Mapping[str, str | None], unchanged: Mapping[str, Chain], heads: Mapping[str, SetHead]
    ) -> dict[str, Chain]:
        asked = [name for name in hooks if name not in unchanged]
        rules: dict[str, list[Rule]] = defaultdict(list)
        # One list of all rules, or of those of few chains.
        for name in asked if unchanged else ("",):
            for rule in self._rules(name):
                rules[rule.chain].append(rule)
        anonymous = {name: name.encode() + b"\0" for name, head in heads.items() if head.anonymous}

        def content(expressions: bytes) -> bytes:
            named = (name for name, word in anonymous.items() if word in expressions)
            return b"".join(part for name in named for part in self._lists(name))

        found = {name: listing.chain_of(hooks[name], rules[name], content) for name in asked}
        return {name: found[name] if name in found else unchanged[name] for name in hooks}

    def _counters(self) -> Iterator[str]:
        return (text_of(dict(attributes(body)).get(OBJECT_NAME)) for body in self._dump(GET_OBJECT, COUNTERS))

    def _rules(self, chain: str) -> list[Rule]:
        """Return the rules of one chain, or with '' of all."""
        where = text(RULE_TABLE, TABLE_NAME) + (text(RULE_CHAIN, chain) if chain else b"")
        return [listing.rule(body) for body in self._dump(GET_RULE, where)]

    def _set(self, head: SetHead, like: KeySet | None) -> KeySet:
        now = time.time()
        lists = self._lists(head.name)
        seen = self._as_seen(head, lists)
        if isinstance(seen, KeySet):
            return seen
        read = listing.key_set(head, lists, now)
        found = like if like is not None and like == read else read
        self._seen[head.name] = (head, _digest(lists), found)
        return found

    def _map(self, head: SetHead, like: VerdictMap | None) -> VerdictMap:
        lists = self._lists(head.name)
        seen = self._as_seen(head, lists)
        if isinstance(seen, VerdictMap):
            return seen
        read = listing.verdict_map(head, lists)
        found = like if like is not None and like == read else read
        self._seen[head.name] = (head, _digest(lists), found)
        return found

    def _as_seen(self, head: SetHead, lists: list[bytes]) -> KeySet | VerdictMap | None:
        """Return what these very bytes were last time: they are hashed in a small part of the time of reading them."""
        seen_head, seen_digest, seen = self._seen.get(head.name, (None, b"", None))
        return seen if seen_head == head and seen_digest == _digest(lists) else None

    def _lists(self, name: str) -> list[bytes]:
        return listing.lists(self._dump(GET_ELEMENTS, text(LIST_TABLE, TABLE_NAME) + text(LIST_SET, name)))

    def _dump(self, kind: int, body: bytes = b"") -> list[memoryview]:
        """Return a list of the kernel's, an empty one of what is not there."""
        try:
            return [found[FAMILY_HEADER.size :] for found in self._netlink.dump(kind, body)]
        except RefusedError as error:
            if error.code == errno.ENOENT:
                return []
            raise KernelError("nftables", f"cannot be read: {error}") from error


def _digest(lists: list[bytes]) -> bytes:
    content = hashlib.blake2b(digest_size=16)
    for each in lists:
        content.update(each)
    return content.digest()


def _later(changes: tuple[ElementChange, ...], seconds: float) -> tuple[ElementChange, ...]:
    """Return the changes as they are right some seconds later; what is over by then has the shortest timeout."""
    return tuple(
        change if change.timeout is None else replace(change, timeout=max(0.0, change.timeout - seconds))
        for change in changes
    )


def _reason(error: str) -> str:
    """Return the first message of nft's error output without its echo of the text and the carets under it."""
    lines = [line.strip() for line in error.splitlines() if line.strip() and not _CARET.match(line)]
    return lines[0] if lines else "nft failed without a message"
