"""The door to /proc/sys/net of our own network namespace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wgd.errors import HostError

ROOT = Path("/proc/sys/net")
INTERFACE_SETTINGS = {
    "ipv4": ("forwarding", "rp_filter", "src_valid_mark", "send_redirects"),
    "ipv6": ("forwarding", "accept_ra"),
}


def read_settings() -> dict[str, str]:
    """Return every sysctl that plan/forwarding.py looks at, by path below net/ (`ipv4/conf/eth0/rp_filter`).

    A host without IPv6 has none of that family.
    """
    found: dict[str, str] = {}
    for family, names in INTERFACE_SETTINGS.items():
        for path in sorted(ROOT.glob(f"{family}/conf/*")):
            for name in names:
                found |= _read(path / name)
    return found | _read(ROOT / "ipv4/ip_forward") | _read(ROOT / "ipv4/conf/all/accept_redirects")


def _read(path: Path) -> dict[str, str]:
    try:
        return {str(path.relative_to(ROOT)): path.read_text("ascii").strip()}
    except FileNotFoundError:
        # The interface went away between the listing and the read.
        return {}
    except OSError as error:
        raise HostError(str(path), f"cannot be read: {error.strerror}") from error


def write_settings(settings: Mapping[str, str], *, missing_ok: bool = False) -> None:
    """Write sysctls in the order given; `missing_ok` passes over those of interfaces that are gone."""
    for name, value in settings.items():
        path = ROOT / name
        if missing_ok and not path.exists():
            continue
        try:
            path.write_text(value, "ascii")
        except OSError as error:
            raise HostError(str(path), f"cannot be set to {value}: {error.strerror}") from error
