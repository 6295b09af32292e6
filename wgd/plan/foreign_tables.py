"""The nftables of everybody else, as nft's JSON lists them (libnftables-json(5)): chains with their rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Rule = Mapping[str, Any]


@dataclass(frozen=True)
class Chain:
    """A chain. `table` has its family (`ip filter`); `hook`, `kind` and `policy` are empty for one that is jumped to.

    `rules` are objects of nft's JSON.
    """

    family: str
    table: str
    name: str
    kind: str
    hook: str
    priority: int
    policy: str
    rules: list[Rule] = field(compare=False)

    @property
    def where(self) -> str:
        """How a finding names it."""
        return f"table {self.table}, chain {self.name}"


@dataclass(frozen=True)
class Tables:
    """Every chain by table and name, and the flowtables as table, name and devices."""

    chains: Mapping[tuple[str, str], Chain]
    flowtables: tuple[tuple[str, str, tuple[str, ...]], ...]

    def has_chain(self, table: str, beginning: str) -> bool:
        """Tell whether a table has a chain whose name begins so."""
        return any(found == table and name.startswith(beginning) for found, name in self.chains)


def parse_tables(listing: Iterable[Mapping[str, Any]]) -> Tables:
    """Return what a listing has; what it has besides chains, rules and flowtables is left out."""
    chains: dict[tuple[str, str], Chain] = {}
    rules: list[Rule] = []
    flowtables = []
    for listed in listing:
        if "chain" in listed:
            chain = listed["chain"]
            table = f"{chain['family']} {chain['table']}"
            chains[table, chain["name"]] = Chain(
                chain["family"],
                table,
                chain["name"],
                chain.get("type", ""),
                chain.get("hook", ""),
                chain.get("prio", 0),
                chain.get("policy", ""),
                [],
            )
        elif "rule" in listed:
            rules.append(listed["rule"])
        elif "flowtable" in listed:
            flowtable = listed["flowtable"]
            devices = flowtable.get("dev", ())
            names = (devices,) if isinstance(devices, str) else tuple(devices)
            flowtables.append((f"{flowtable['family']} {flowtable['table']}", flowtable["name"], names))
    for rule in rules:
        chains[f"{rule['family']} {rule['table']}", rule["chain"]].rules.append(rule)
    return Tables(chains, tuple(flowtables))
