"""What a rule of somebody else's table does to a packet of a client, as far as nft's listing tells.

A rule is an object of nft's JSON (libnftables-json(5)), with the rule as nft writes it under `text`: of what iptables
put there, the JSON of nft 1.0.6 has the name alone. What cannot be decided is None: it may match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import pairwise
from typing import Any

from wgd.model import Network

Rule = Mapping[str, Any]
UDP = 17
WORDS = {"udp": UDP}
TEXT_STATE = re.compile(r"\bct state (?P<unless>!=? )?(?P<states>[a-z,]+)")
TEXT_REJECT = re.compile(r"\breject\b")
NUMBER_BITS = 32
ALL_BITS = (1 << NUMBER_BITS) - 1


@dataclass(frozen=True)
class Packet:
    """A packet of a client that wgd allows, or one of the tunnel itself (`port`: it comes to our listen port).

    `incoming` and `outgoing` say whether it comes in or leaves by `interface`, ours; if not, it is by some other.
    `state` is conntrack's, `bit` our mark. `networks` are those of the clients of this version: the source of a packet
    that comes in by our interface, the destination of one that leaves by it.
    """

    what: str
    version: int
    interface: str
    state: str
    incoming: bool = False
    outgoing: bool = False
    networks: tuple[Network, ...] = ()
    bit: int = 0
    port: int | None = None


def matches(rule: Rule, packet: Packet) -> bool | None:
    """Tell whether a rule's conditions hold of a packet."""
    answers = [_holds(part, packet, rule.get("text", "")) for part in rule["expr"]]
    if False in answers:
        return False
    return None if None in answers else True


def _holds(part: Mapping[str, Any], packet: Packet, text: str) -> bool | None:
    if "match" in part:
        return condition(part["match"], packet)
    if "xt" in part:
        return _extension(part["xt"], packet, text)
    # Only a limit holds now and then; whatever else stands in a rule does something.
    return None if "limit" in part else True


def condition(match: Mapping[str, Any], packet: Packet) -> bool | None:
    """Tell whether `LEFT OP RIGHT` holds of a packet."""
    answer = _equals(match["left"], match["right"], packet)
    return not answer if match["op"] == "!=" and answer is not None else answer


def _equals(left: Any, right: Any, packet: Packet) -> bool | None:
    if not isinstance(left, Mapping):
        return None
    values = list(listed(right))
    if "meta" in left:
        return _meta_equals(left["meta"]["key"], values, packet)
    if "ct" in left and left["ct"].get("key") == "state":
        return packet.state in values
    if "payload" in left:
        return _field_equals(left["payload"], values, packet)
    if "&" in left and left["&"] == [{"meta": {"key": "mark"}}, packet.bit]:
        return values == [packet.bit]
    return None


def _meta_equals(key: str, values: list[Any], packet: Packet) -> bool | None:
    match key:
        case "iifname" | "iif":
            return _interface_is(values, packet.interface, ours=packet.incoming)
        case "oifname" | "oif":
            return _interface_is(values, packet.interface, ours=packet.outgoing)
        case "nfproto":
            return f"ipv{packet.version}" in values
        case "l4proto" if packet.port is not None:
            return UDP in [WORDS.get(value, value) for value in values]
    return None


def _interface_is(names: list[Any], interface: str, *, ours: bool) -> bool | None:
    fits = [name == interface or (name.endswith("*") and interface.startswith(name[:-1])) for name in map(str, names)]
    if ours:
        # What stands in a named set is not known here.
        return any(fits) or (None if any(str(name).startswith("@") for name in names) else False)
    return False if names == [interface] else None


def _field_equals(payload: Mapping[str, Any], values: list[Any], packet: Packet) -> bool | None:
    protocol, field = payload.get("protocol"), payload.get("field")
    if packet.port is not None:
        if protocol in ("tcp", "udp", "th") and field == "dport":
            return protocol != "tcp" and any(_covers(value, packet.port) for value in values)
        return (UDP in [WORDS.get(value, value) for value in values]) if field in ("protocol", "nexthdr") else None
    if protocol in ("ip", "ip6"):
        if protocol != ("ip" if packet.version == 4 else "ip6"):  # noqa: PLR2004 - the IP version
            return False
        if field == ("saddr" if packet.incoming else "daddr"):
            return _addresses_in(values, packet)
    return None


def _covers(value: Any, port: int) -> bool:
    if isinstance(value, Mapping) and "range" in value:
        first, last = value["range"]
        return bool(first <= port <= last)
    return bool(value == port)


def _addresses_in(values: list[Any], packet: Packet) -> bool | None:
    """Tell whether the clients' addresses are among those of a condition: all, none, or who knows."""
    networks = []
    for value in values:
        try:
            networks.append(ip_network(value if isinstance(value, str) else f"{_prefix(value)}"))
        except ValueError:
            return None
    found = [any(network.overlaps(client) for network in networks) for client in packet.networks]
    inside = [
        any(network.supernet_of(client) for network in networks)  # type: ignore[arg-type] # of one version
        for client in packet.networks
    ]
    return True if all(inside) else (None if any(found) else False)


def _prefix(value: Any) -> str:
    if isinstance(value, Mapping) and "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    raise ValueError


def _extension(extension: Mapping[str, Any], packet: Packet, text: str) -> bool | None:
    if extension.get("type") == "target":
        return True
    if extension.get("name") in ("conntrack", "state"):
        found = TEXT_STATE.search(text)
        if found is not None:
            return (packet.state in found["states"].split(",")) != bool(found["unless"])
    if extension.get("name") == "mark" and f"mark & 0x{packet.bit:08x} == 0x{packet.bit:08x}" in text:
        return True
    return None


def listed(right: Any) -> Iterator[Any]:
    """Yield the values on the right side of a condition."""
    if isinstance(right, Mapping) and "set" in right:
        right = right["set"]
    for value in right if isinstance(right, list) else (right,):
        yield value["elem"]["val"] if isinstance(value, Mapping) and "elem" in value else value


def verdicts(rule: Rule, packet: Packet) -> Iterator[tuple[str, str, bool | None]]:
    """Yield what a rule that matches decides: word (accept, drop, jump, goto, return), target, and whether it does."""
    for part in rule["expr"]:
        for word in ("accept", "drop", "reject", "return"):
            if word in part:
                yield ("drop" if word == "reject" else word), "", True
        for word in ("jump", "goto"):
            if word in part:
                yield word, part[word]["target"], True
        if part.get("xt", {}).get("name") == "REJECT" or ("xt" in part and TEXT_REJECT.search(rule.get("text", ""))):
            yield "drop", "", True
        if "vmap" in part and isinstance(part["vmap"]["data"], Mapping):
            for key, verdict in part["vmap"]["data"]["set"]:
                holds = _equals(part["vmap"]["key"], key, packet)
                for word in verdict if holds is not False else ():
                    yield word, (verdict[word] or {}).get("target", ""), holds


def mark_bit(rule: Rule, bit: int) -> str | None:
    """Return what a rule makes of a bit of the packet's mark: set, cleared, or unknown; None when it leaves it."""
    text = rule.get("text", "")
    values = [part["mangle"]["value"] for part in rule["expr"] if _sets(part, "meta", "mark")]
    if values:
        return _bit_of(values[-1], bit)
    names = [part["xt"].get("name") for part in rule["expr"] if "xt" in part]
    if "MARK" in names or ("CONNMARK" in names and "meta mark set" in text):
        return _bit_in_text(text.rpartition("mark set ")[2], bit)
    return "unknown" if "CONNMARK" in names and "ct mark set" not in text else None


def _sets(part: Mapping[str, Any], kind: str, key: str) -> bool:
    return "mangle" in part and part["mangle"]["key"].get(kind, {}).get("key") == key


def puts_into_zone(rule: Rule) -> bool:
    """Tell whether a rule puts packets into another conntrack zone."""
    return any(_sets(part, "ct", "zone") for part in rule["expr"])


def _bit_of(value: Any, bit: int) -> str | None:
    """Return what a bit is in the value of an expression; None: what it was in the packet's mark."""
    if isinstance(value, int):
        return "set" if value & bit else "cleared"
    if isinstance(value, Mapping):
        if value == {"meta": {"key": "mark"}}:
            return None
        for operator in ("&", "|", "^"):
            if operator in value and isinstance(value[operator][-1], int):
                rest = value[operator][0] if len(value[operator]) == 2 else {operator: value[operator][:-1]}  # noqa: PLR2004
                return _combined(_bit_of(rest, bit), operator, bool(value[operator][-1] & bit))
    return "unknown"


def _combined(before: str | None, operator: str, other: bool) -> str | None:  # noqa: FBT001 - the operand's bit
    if operator == "&":
        return before if other else "cleared"
    if operator == "|":
        return "set" if other else before
    if not other:
        return before
    return {"set": "cleared", "cleared": "set"}.get(before or "", "unknown")


def _bit_in_text(expression: str, bit: int) -> str | None:
    """Return the same for an expression as nft writes what iptables put there (`mark and 0xefffffff`)."""
    words = expression.split()
    if not words or words[0] in ("target", "xt"):
        return "unknown"
    first = {"mark": None, "meta": None}
    if words[0] in first:
        result: str | None = None
    elif words[0] == "ct":
        result = "unknown"
    else:
        number = _number(words[0])
        return "unknown" if number is None else ("set" if number & bit else "cleared")
    for operator, operand in pairwise(words):
        sign = {"and": "&", "&": "&", "or": "|", "|": "|", "xor": "^", "^": "^"}.get(operator)
        number = _number(operand)
        if sign is not None and number is not None:
            result = _combined(result, sign, bool(number & bit))
    return result


def _number(word: str) -> int | None:
    try:
        return int(word, 0) & ALL_BITS
    except ValueError:
        return None
