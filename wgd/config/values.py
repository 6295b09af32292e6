"""Validators of single values: text in, a typed value out, or RefusedError with a sentence that says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

from wgd.config.schema import RefusedError
from wgd.config.shown import shown
from wgd.config.tree import Tree
from wgd.model import PROTOCOLS, PortRange, PublicKey, key_bytes

T = TypeVar("T")

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,8}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_KEY_LIKE = re.compile(r"[A-Za-z0-9+/=]{40,}", re.ASCII)
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_INTERFACE_NAME = re.compile(r"[!-~]{1,15}", re.ASCII)
_NAMED_TABLES = {"main": 254, "default": 253}
_LOCAL_TABLE = 255
_KERNEL_TABLES = (253, 254, 255)
"""default, main and local."""
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII)
_MAX_PORT = 65535
_MAX_PROTOCOL = 255
_MAX_RULE_NAME = 100


def leaf(validator: Callable[[str], T]) -> Callable[[Tree], T]:
    """Make a validator of text one that refuses lists, mappings and emptiness."""

    def validate(value: Tree) -> T:
        if not isinstance(value, str):
            kind = "list" if isinstance(value, list) else "mapping"
            raise RefusedError(f"must be a single value, not a {kind}")
        if not value:
            raise RefusedError("is empty: give a value or remove the key")
        return validator(value)

    return validate


def one_of(enumeration: type[Enum]) -> Callable[[Tree], Any]:
    """Return a validator of an enumeration's values."""

    def choose(text: str) -> Enum:
        try:
            return enumeration(text)
        except ValueError:
            words = " or ".join(str(member.value) for member in enumeration)
            raise RefusedError(f"must be {words}, not {shown(text)}") from None

    return leaf(choose)


def only(supported: str, *known: str) -> Callable[[Tree], str]:
    """Return a validator that takes one word of a setting whose other known words are not supported yet."""

    def choose(text: str) -> str:
        if text == supported:
            return text
        if text in known:
            raise RefusedError(f"{text} is not supported yet: write {supported} or remove the key")
        raise RefusedError(f"must be {supported}, not {shown(text)}")

    return leaf(choose)


def integer(lowest: int, highest: int) -> Callable[[Tree], int]:
    """Return a validator of a whole number in decimal, or in hexadecimal with 0x."""

    def number(text: str) -> int:
        if _DECIMAL.fullmatch(text):
            value = int(text)
        elif _HEXADECIMAL.fullmatch(text):
            value = int(text, 16)
        else:
            raise RefusedError(f"must be a whole number from {lowest} to {highest}, not {shown(text)}")
        if not lowest <= value <= highest:
            raise RefusedError(f"must be from {lowest} to {highest}, not {shown(text)}")
        return value

    return leaf(number)


@leaf
def boolean(text: str) -> bool:
    """Return true or false; yes, no, on and off are taken too, as YAML 1.1 does."""
    try:
        return _WORDS[text.lower()]
    except KeyError:
        raise RefusedError(f"must be true or false, not {shown(text)}") from None


def false_only(value: Tree) -> bool:
    """Take false; true is a thing that is not supported yet."""
    if boolean(value):
        raise RefusedError("is not supported yet: remove it or set it to false")
    return False


@leaf
def persistent_keepalive(text: str) -> int | None:
    """Return seconds, 1 to 65535; None for off and 0, as `wg` reads it."""
    if text in ("off", "0"):
        return None
    if _DECIMAL.fullmatch(text) and int(text) <= _MAX_PORT:
        return int(text)
    raise RefusedError(f"must be seconds from 1 to {_MAX_PORT}, or off, not {shown(text)}")


@leaf
def public_key(text: str) -> PublicKey:
    """Return a public key. The text is never quoted: it may be a private key in the wrong place."""
    try:
        return PublicKey(key_bytes(text))
    except ValueError as error:
        raise RefusedError(f"{error}: paste the public key as 'wg pubkey' prints it") from None


@leaf
def name(text: str) -> str:
    """Return the name of a peer or group: safe in file names and log lines, and not to be taken for a key."""
    if _KEY_LIKE.fullmatch(text):
        raise RefusedError("looks like a key: give a short name, the key goes into public_key")
    if not _NAME.fullmatch(text):
        raise RefusedError(
            f"must be 1 to 63 of letters, digits, '.', '_' and '-', beginning with a letter or digit, not {shown(text)}"
        )
    return text


@leaf
def reference(text: str) -> PublicKey | str:
    """Return whom a rule means: a public key, a peer's name, or `group:NAME`."""
    if text.startswith("group:"):
        return "group:" + name(text.removeprefix("group:"))
    return public_key(text) if _KEY_LIKE.fullmatch(text) else name(text)


@leaf
def rule_name(text: str) -> str:
    """Return a rule's name: printable, and not ending like the `[1]` that events put behind it."""
    if len(text) > _MAX_RULE_NAME or not text.isprintable() or text != text.strip():
        raise RefusedError(f"must be at most {_MAX_RULE_NAME} printable characters without spaces at the ends")
    if text.endswith(("[", "]")):
        raise RefusedError("must not end in [ or ]: events put the entry's number in brackets behind the name")
    return text


@leaf
def interface_name(text: str) -> str:
    """Return a network interface's name by the kernel's rules (dev_valid_name in net/core/dev.c), and a little tighter.

    The kernel takes '%' as a pattern and nftables '*' and quotes; 'all' and 'default' are taken by sysctl.
    """
    if not _INTERFACE_NAME.fullmatch(text) or text in (".", ".."):
        raise RefusedError(f"must be 1 to 15 characters without spaces, as in wgd0, not {shown(text)}")
    if any(character in '/:%*"\\' for character in text):
        raise RefusedError(f'must not hold any of / : % * " \\, as in wgd0, not {shown(text)}')
    if text in ("all", "default", "lo"):
        raise RefusedError(f"cannot be {text}, which Linux uses itself: choose a name such as wgd0")
    return text


@leaf
def file_path(text: str) -> str:
    """Return an absolute path. It is never quoted: it may be a key that belongs into a file."""
    if not text.startswith("/") or text.endswith("/") or not text.isprintable():
        raise RefusedError("must be the absolute path of a file, as in /etc/wgd/server.key")
    return text


port = integer(1, _MAX_PORT)
_first_table = integer(1, 2**32 - 2)
_any_table = integer(1, 2**32 - 1)
_any_mark = integer(1, 2**32 - 1)


@leaf
def ports(text: str) -> PortRange:
    """Return one port (`443`) or a range (`8000-8999`)."""
    first_text, dash, last_text = text.partition("-")
    if not _DECIMAL.fullmatch(first_text) or (dash and not _DECIMAL.fullmatch(last_text)):
        raise RefusedError(f"must be a port or a range such as 8000-8999, not {shown(text)}")
    first = int(first_text)
    last = int(last_text) if dash else first
    if not (1 <= first <= _MAX_PORT and 1 <= last <= _MAX_PORT):
        raise RefusedError(f"must be from 1 to {_MAX_PORT}, not {shown(text)}")
    if first > last:
        raise RefusedError(f"is reversed: write {last}-{first}")
    return PortRange(first, last)


@leaf
def routing_mark(text: str) -> int:
    """Return a packet mark of exactly one bit."""
    mark: int = _any_mark(text)
    if mark.bit_count() != 1:
        raise RefusedError("must be exactly one bit, as in 0x10000000: the other bits of the mark belong to others")
    return mark


@leaf
def routing_table(text: str) -> int:
    """Return a table that, like the one after it, is none of the kernel's own (rtnetlink(7): RT_TABLE_*)."""
    table: int = _first_table(text)
    for number in (table, table + 1):
        if number in _KERNEL_TABLES:
            raise RefusedError(f"must not be {table}: {number} is the kernel's table, and wgd uses two in a row")
    return table


@leaf
def client_table(text: str) -> int:
    """Return the table of a client's routes: main, default, or a number that is not the kernel's local table."""
    if text in _NAMED_TABLES:
        return _NAMED_TABLES[text]
    if not _DECIMAL.fullmatch(text):
        raise RefusedError(f"must be main, default or a number, not {shown(text)}")
    table: int = _any_table(text)
    if table == _LOCAL_TABLE:
        raise RefusedError("must not be 255: that is the kernel's table of its own addresses")
    return table


@leaf
def protocol(text: str) -> int:
    """Return a protocol's IANA number from its name or number; `icmp` is 1 whatever the family."""
    number = PROTOCOLS.get(text.lower())
    if number is not None:
        return number
    if _DECIMAL.fullmatch(text):
        if int(text) <= _MAX_PROTOCOL:
            return int(text)
        raise RefusedError(f"must be from 0 to {_MAX_PROTOCOL}, not {shown(text)}")
    raise RefusedError(
        f"is no protocol that wgd knows: write one of {', '.join(PROTOCOLS)} or a number, not {shown(text)}"
    )


@leaf
def time(text: str) -> int:
    """Return POSIX seconds of a time as RFC 3339 writes it, without fractions."""
    try:
        if _TIME.fullmatch(text):
            return int(datetime.fromisoformat(text.upper()).timestamp())
    except (ValueError, OverflowError):
        pass
    raise RefusedError(f"must be a time with its zone, such as 2027-01-01T00:00:00Z, not {shown(text)}")


@leaf
def verdict(text: str) -> bool:
    """Return True for allow, False for deny."""
    if text not in ("allow", "deny"):
        raise RefusedError(f"must be allow or deny, not {shown(text)}")
    return text == "allow"
