"""The door to /proc/sys/net of our own network namespace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wgd.errors import HostError

ROOT = Path("/proc/sys/net")
INTERFACE_SETTINGS = {
    "ipv4": ("forwarding", "rp_filter", "accept_local", "src_valid_mark", "send_redirects"),
    "ipv6": ("forwarding", "accept_ra"),
}

FLOW_SETTINGS = tuple(f"netfilter/nf_conntrack_{name}" for name in ("acct", "events", "timestamp"))
OTHER_SETTINGS = ("ipv4/ip_forward", "ipv4/conf/all/accept_redirects")


def read_settings() -> dict[str, str]:
    """Return every sysctl that a plan looks at, by path below net/ (`ipv4/conf/eth0/rp_filter`).

    A host without IPv6 has none of that family, one that has not loaded conntrack yet none of netfilter.
    """
    found: dict[str, str] = {}
    for family, names in INTERFACE_SETTINGS.items():
        for path in sorted(ROOT.glob(f"{family}/conf/*")):
            for name in names:
                found |= _read(path / name)
    for setting in OTHER_SETTINGS:
        found |= _read(ROOT / setting)
    return found | read_flow_settings()


def read_flow_settings() -> dict[str, str]:
    """Return of these what plan/flow_accounting.py looks at."""
    found: dict[str, str] = {}
    for path in FLOW_SETTINGS:
        found |= _read(ROOT / path)
    return found


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
