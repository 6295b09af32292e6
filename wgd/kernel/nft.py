"""The door to nftables: libnftables in this process, through python3-nftables.

Reading gives a `Ruleset` of our own table; nothing outside `inet wgd` is ever read into one or written.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from ipaddress import ip_network
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any, NamedTuple

import nftables

from wgd.errors import KernelError
from wgd.policy.ruleset import (
    GENERATION_MASK,
    GENERATION_SET,
    Chain,
    Element,
    Interval,
    KeySet,
    Ruleset,
    VerdictMap,
    digest,
)

FAMILY, TABLE = "inet", "wgd"
_ABSENT = "No such file or directory"
_CARET = re.compile(r"^\s*\^*~*\s*$")


class Dropped(NamedTuple):
    """Packets dropped since the chains were loaded: no rule covers them; they forge a client's address."""

    denied: int
    spoofed: int


class Nft:
    """nftables of the network namespace in which this object is made."""

    def __init__(self) -> None:
        self._nft = nftables.Nftables()
        self._nft.set_numeric_proto_output(True)
        self._nft.set_service_output(False)
        self._nft.set_reversedns_output(False)

    def apply(self, transactions: tuple[str, ...]) -> None:
        """Apply each transaction in turn; raise KernelError with nft's own words at the first that is refused."""
        self._nft.set_json_output(False)
        for text in transactions:
            code, _, error = self._nft.cmd(text)
            if code != 0:
                raise KernelError("nftables", _reason(error))

    def read(self) -> Ruleset | None:
        """Return our table as the kernel holds it, or None when there is none."""
        self._nft.set_json_output(True)
        code, output, error = self._nft.cmd(f"list table {FAMILY} {TABLE}")
        if code != 0:
            if _ABSENT in error:
                return None
            raise KernelError("nftables", _reason(error))
        return parse_listing(json.loads(output)["nftables"], time.time())

    def dropped(self) -> Dropped:
        """Return what our chains have counted; nothing where they are gone."""
        return Dropped(self._counted("deny"), self._counted("spoofed"))

    def _counted(self, chain: str) -> int:
        """Return how many packets met the counters of a chain."""
        self._nft.set_json_output(True)
        code, output, error = self._nft.cmd(f"list chain {FAMILY} {TABLE} {chain}")
        if code != 0:
            if _ABSENT in error:
                return 0
            raise KernelError("nftables", _reason(error))
        rules = (found["rule"] for found in json.loads(output)["nftables"] if "rule" in found)
        return sum(part["counter"]["packets"] for rule in rules for part in rule["expr"] if "counter" in part)

    def delete(self) -> None:
        """Delete our table; nothing happens when there is none."""
        if self.read() is not None:
            self.apply((f"delete table {FAMILY} {TABLE}",))


def parse_listing(objects: list[dict[str, Any]], now: float = 0.0) -> Ruleset:
    """Return the ruleset that `nft -j list table` describes (libnftables-json(5)), as listed at `now`."""
    chains: dict[str, Chain] = {}
    sets: dict[str, KeySet] = {}
    maps: dict[str, VerdictMap] = {}
    generation = 0
    dormant = False
    for found in objects:
        if "table" in found:
            # The one flag a table of ours can be given. nft 1.0.6 prints the table's name for it.
            dormant = "flags" in found["table"]
        elif "chain" in found:
            chain = found["chain"]
            # A dormant table's chains hook nowhere.
            chains[chain["name"]] = Chain(None if dormant else _hook(chain), "", 0)
        elif "rule" in found:
            rule = found["rule"]
            chain = chains[rule["chain"]]
            mark = rule.get("comment", "") if chain.rule_count == 0 else chain.mark
            content = digest(chain.content + json.dumps(_without_counts(rule["expr"])))
            chains[rule["chain"]] = Chain(chain.hook, mark, chain.rule_count + 1, content=content)
        elif "set" in found and found["set"]["name"] == GENERATION_SET:
            generation = _generation(found["set"])
        elif "set" in found:
            key_set = found["set"]
            sets[key_set["name"]] = KeySet(_fields(key_set), frozenset(_elements(key_set)), _until(key_set, now))
        elif "map" in found:
            verdicts = found["map"]
            targets = {_element(key): _target(verdict) for key, verdict in _listed(verdicts)}
            maps[verdicts["name"]] = VerdictMap(_fields(verdicts), targets)
    return Ruleset(chains, sets, maps, generation)


def _without_counts(value: Any) -> Any:
    """Return a part of a rule without what its counters have counted, which is no part of what somebody wrote."""
    if isinstance(value, dict):
        return {key: None if key == "counter" else _without_counts(inner) for key, inner in value.items()}
    return [_without_counts(inner) for inner in value] if isinstance(value, list) else value


def _generation(typed: dict[str, Any]) -> int:
    """Return the generation in force, 0 when the set does not hold exactly one."""
    elements = typed.get("elem", ())
    generations = [mark >> 24 for mark in elements if isinstance(mark, int) and mark & ~GENERATION_MASK == 0]
    return generations[0] if len(generations) == len(elements) == 1 and _fields(typed) == ("mark",) else 0


_PRIORITIES = {0: "filter"}
_OUR_TYPES = frozenset({"ipv4_addr", "ipv6_addr", "inet_service", "inet_proto"})
"""Somebody may put sets of any type into our table; a listing that has them must still be read, to be put right."""


def _hook(chain: dict[str, Any]) -> str | None:
    if "hook" not in chain:
        return None
    priority = _PRIORITIES.get(chain["prio"], chain["prio"])
    return f"type {chain['type']} hook {chain['hook']} priority {priority}; policy {chain['policy']};"


def _fields(typed: dict[str, Any]) -> tuple[str, ...]:
    return (typed["type"],) if isinstance(typed["type"], str) else tuple(typed["type"])


def _until(key_set: dict[str, Any], now: float) -> int | None:
    """Return when the last element of a set is dropped; `expires` says in how many seconds."""
    if "timeout" not in key_set.get("flags", ()):
        return None
    listed = (value["elem"].get("expires") for value in _listed(key_set) if isinstance(value, dict) and "elem" in value)
    left = [seconds for seconds in listed if seconds is not None]
    return round(now + max(left)) if left else 0


def _elements(typed: dict[str, Any]) -> Iterator[Element]:
    return map(_element, _listed(typed))


def _listed(typed: dict[str, Any]) -> Any:
    """Return the listed elements; none of a type that no set of ours has: its fields tell it from any wish."""
    return typed.get("elem", ()) if _OUR_TYPES.issuperset(_fields(typed)) else ()


def _element(value: Any) -> Element:
    if isinstance(value, dict) and "elem" in value:
        return _element(value["elem"]["val"])
    if isinstance(value, dict) and "concat" in value:
        return tuple(map(_interval, value["concat"]))
    return (_interval(value),)


def _interval(value: Any) -> Interval:
    """Return the interval that one field of a listed element stands for."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, str):
        number = _number(value)
        return number, number
    if "prefix" in value:
        network = ip_network((value["prefix"]["addr"], value["prefix"]["len"]))
        return int(network.network_address), int(network.broadcast_address)
    first, last = value["range"]
    return _number(first), _number(last)


def _number(value: int | str) -> int:
    if isinstance(value, int):
        return value
    if value.isdigit():
        return int(value)
    # ipaddress takes five times as long, for the tens of thousands of addresses of a large table.
    return int.from_bytes(inet_pton(AF_INET6 if ":" in value else AF_INET, value), "big")


def _target(verdict: Any) -> str:
    """Return the chain that a verdict jumps to; what is not one of our jumps never equals a wish."""
    is_jump = isinstance(verdict, dict) and "jump" in verdict
    return str(verdict["jump"]["target"]) if is_jump else json.dumps(verdict)


def _reason(error: str) -> str:
    """Return the first message of nft's error output without its echo of the text and the carets under it."""
    lines = [line.strip() for line in error.splitlines() if line.strip() and not _CARET.match(line)]
    return lines[0] if lines else "nft failed without a message"
