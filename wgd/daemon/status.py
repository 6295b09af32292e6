"""What Status answers, as io.wgd.Server describes it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wgd.daemon.recording import Recording
from wgd.kernel.nft import Dropped
from wgd.model import ServerConfig
from wgd.plan.gateway import Difference
from wgd.plan.state import Device, DeviceAddress, DevicePeer, Link

LIVE_SECONDS = 180
"""A peer is live if its last handshake is younger: WireGuard rejects a session after that (whitepaper, 6.1)."""
DRIFTS_KEPT = 20


def is_live(last_handshake: float, now: float) -> bool:
    """Tell whether a peer's session can be in use; both are in seconds since the epoch."""
    return now - last_handshake < LIVE_SECONDS


class DriftSeen:
    """What others have changed since the start: how often it was put back or not, and the last of them."""

    def __init__(self) -> None:
        self.restored = 0
        self.failed = 0
        self._last: deque[dict[str, Any]] = deque(maxlen=DRIFTS_KEPT)

    def add(self, difference: Difference, action: str, count: int = 1) -> None:
        """Note a difference that was found `count` times; `action` is restored or failed."""
        if action == "restored":
            self.restored += count
        else:
            self.failed += count
        self._last.append(
            {"ts": time.time(), "object": difference.object, "action": action, "detail": difference.detail}
        )

    def fields(self) -> dict[str, Any]:
        """Return the fields of Status."""
        return {"drift_restored": self.restored, "drift_failed": self.failed, "drift": list(self._last)}


@dataclass(frozen=True)
class View:
    """What the kernel shows of a gateway at one moment; None and empty where the interface is gone."""

    link: Link | None
    device: Device | None
    addresses: tuple[DeviceAddress, ...]
    dropped: Dropped


def kernel_fields(config: ServerConfig, view: View) -> dict[str, Any]:
    """Return the fields of Status that say what is there of `config`."""
    return {
        "interface": interface_fields(config.interface.name, view.link, view.device, view.addresses),
        "authz_mode": config.authz_mode.value,
        "peers": _peers(config, view.device),
        "policy": {
            "rules": len(config.policy.rules),
            "allow": sum(len(rule.allow) for rule in config.policy.rules),
            "clients": len({client for rule in config.policy.rules for client in rule.clients}),
        },
        "dropped": {"denied": view.dropped.denied, "spoofed": view.dropped.spoofed},
    }


def interface_fields(
    name: str, link: Link | None, device: Device | None, addresses: tuple[DeviceAddress, ...]
) -> dict[str, Any]:
    """Return an Interface of Status."""
    return {
        "name": name,
        "addresses": [str(address.address) for address in addresses],
        "listen_port": device.listen_port if device is not None else None,
        "mtu": link.mtu if link is not None else None,
        "up": link is not None and link.up,
    }


def _peers(config: ServerConfig, device: Device | None) -> list[dict[str, Any]]:
    """Return the device's peers, those of the config by its names and in its order."""
    names = {peer.public_key.raw: (index, peer.name) for index, peer in enumerate(config.peers)}
    unknown = (len(names), "")
    peers = device.peers if device is not None else ()
    now = time.time()
    listed = sorted(peers, key=lambda peer: names.get(peer.public_key.raw, unknown)[0])
    return [{"name": names.get(peer.public_key.raw, unknown)[1], **peer_fields(peer, now)} for peer in listed]


def peer_fields(peer: DevicePeer, now: float) -> dict[str, Any]:
    """Return what Status says of a peer besides its name; `now` is in seconds since the epoch."""
    return {
        "public_key": str(peer.public_key),
        "allowed_ips": sorted(map(str, peer.allowed_ips)),
        "endpoint": str(peer.endpoint) if peer.endpoint is not None else None,
        "last_handshake": peer.last_handshake or None,
        "live": is_live(peer.last_handshake, now),
        "rx_bytes": peer.rx_bytes,
        "tx_bytes": peer.tx_bytes,
    }


def troubles_in_words(recording: Recording | None, drift: DriftSeen, in_the_way: int) -> Iterator[str]:
    """Yield what an operator should know of at a glance; nothing when all is well."""
    if recording is not None:
        lost = recording.counters().lost
        if lost:
            yield f"{lost} event{'' if lost == 1 else 's'} lost"
        if recording.refused is not None:
            yield f"not logging: {recording.refused}"
    if drift.restored:
        yield f"{drift.restored} change{'' if drift.restored == 1 else 's'} by others put back"
    if drift.failed:
        yield f"{drift.failed} not put back"
    if in_the_way:
        yield f"{in_the_way} in the way (wgd-server status)"


def event_log_fields(recording: Recording | None, config: ServerConfig) -> Mapping[str, Any] | None:
    """Return what Status says of the event log, None when there is none."""
    if recording is None:
        return None
    return {"path": config.logging.path, **recording.counters()._asdict(), "refused": recording.refused}
