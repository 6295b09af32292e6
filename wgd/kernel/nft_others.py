"""The door to the nftables of everybody else on the host: read, never written."""

from __future__ import annotations

import json
import re
from contextlib import closing
from typing import Any

import nftables

from wgd.kernel.nft_socket import NftSocket

OURS = ("inet", "wgd")
_HANDLE = re.compile(r"^\s*(?P<text>.*?) # handle (?P<handle>\d+)$")


def read_other_tables() -> list[dict[str, Any]]:
    """Return every table but ours as nft's JSON lists it (libnftables-json(5)), without the elements of sets.

    Each rule has a further key, `text`: itself as nft writes it. Of what iptables put there, JSON has the name alone.
    Raise KernelError when the tables cannot be listed; one that vanishes meanwhile is left out.
    """
    # Not by libnftables: to list the tables' names it reads the elements of all of them.
    with closing(NftSocket()) as netlink:
        others = [table for table in netlink.tables() if table != OURS]
    if not others:
        return []
    nft = nftables.Nftables()
    nft.set_terse_output(True)
    nft.set_handle_output(True)
    return [found for family, name in others for found in _read(nft, f"{family} {name}")]


def _read(nft: nftables.Nftables, table: str) -> list[dict[str, Any]]:
    """Return one table, nothing when it is gone."""
    nft.set_json_output(True)
    code, output, _ = nft.cmd(f"list table {table}")
    if code != 0:
        return []
    objects: list[dict[str, Any]] = json.loads(output)["nftables"]
    nft.set_json_output(False)
    _, text, _ = nft.cmd(f"list table {table}")
    texts = {int(line["handle"]): line["text"] for line in map(_HANDLE.match, text.splitlines()) if line is not None}
    for found in objects:
        if "rule" in found:
            found["rule"]["text"] = texts.get(found["rule"]["handle"], "")
    return objects
