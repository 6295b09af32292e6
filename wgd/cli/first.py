"""What the package wgd-server does at its first installation: a private key and a config that is valid and safe.

    python3 -m wgd.cli.first TEMPLATE FOLDER

writes FOLDER/server.key and FOLDER/server.yaml where they are missing, and says what it wrote. Nobody is a peer yet.
"""

from __future__ import annotations

import base64
import errno
import grp
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from wgd.cli.common import Exit, say
from wgd.errors import HostError, WgdError
from wgd.kernel.links import Links
from wgd.plan import first
from wgd.plan.state import Route

GROUP = "wgd"
MODE = 0o640
IPV6_OFF = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")


def new_key() -> str:
    """Return a private key as `wg genkey` writes it: random bytes, clamped (RFC 7748, section 5)."""
    raw = bytearray(secrets.token_bytes(32))
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    return base64.b64encode(raw).decode() + "\n"


def write(path: Path, text: str) -> bool:
    """Write a file for root and the daemons' group alone; False, and nothing written, when there already is one."""
    try:
        group = grp.getgrnam(GROUP).gr_gid
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}", encoding="utf-8") as file:
            os.fchown(file.fileno(), -1, group)
            os.fchmod(file.fileno(), MODE)
            file.write(text)
            file.flush()
            # Unlike a rename it never takes the place of another.
            os.link(file.name, path)
    except FileExistsError:
        return False
    except (OSError, KeyError) as error:
        raise HostError(str(path), f"cannot be written: {error}") from error
    return True


def taken_ports() -> Iterator[int]:
    """Yield those of the ports in question that somebody has already."""
    for number in first.PORTS:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", number))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    yield number


def has_ipv6() -> bool:
    """Tell whether a new interface of this host can have an IPv6 address."""
    return IPV6_OFF.exists() and IPV6_OFF.read_text().strip() == "0"


def write_config(path: Path, template: str, routes: tuple[Route, ...]) -> None:
    """Write a config with networks that are free, and say which, and why not others."""
    addresses = []
    for candidates in first.TUNNELS if has_ipv6() else first.TUNNELS[:1]:
        address, why = first.tunnel(candidates, routes)
        if address is not None:
            addresses.append(address)
        if why:
            told = f"so the tunnel gets {address.network}" if address is not None else "and so do all other choices"
            sys.stdout.write(f"{why}, {told}.\n")
    if not addresses:
        sys.stdout.write(f"No network is free for the tunnel: write {path} yourself.\n")
        return
    if write(path, first.config(template, addresses, first.port(tuple(taken_ports())))):
        networks = " and ".join(str(address.network) for address in addresses)
        sys.stdout.write(f"Wrote {path}: tunnel network {networks}, no peers yet, everything denied.\n")


def main(arguments: list[str]) -> int:
    """Write what is missing; return 0, or 1 with the reason on stderr."""
    template, folder = map(Path, arguments)
    key, config = folder / "server.key", folder / "server.yaml"
    try:
        if write(key, new_key()):
            sys.stdout.write(f"Made the gateway's private key: {key}\n")
        if not config.exists():
            with closing(Links()) as links:
                routes = links.routes()
            write_config(config, template.read_text(encoding="utf-8"), routes)
    except WgdError as error:
        say(error)
        return Exit.NO
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
