"""What only the kernel's own WireGuard can show; runs in the vm lane's guest, which has the module."""

import subprocess
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from wgd.errors import ConflictError, KernelError
from wgd.kernel.wireguard import open_wireguard
from wgd.kernel.wireguard_netlink import KernelWireGuard
from wgd.model import Backend, PublicKey
from wgd.plan.state import DeviceChange, Link, PeerChange


@pytest.fixture
def _link() -> Iterator[None]:
    subprocess.run(["ip", "link", "add", "wgd0", "type", "wireguard"], check=True)
    yield
    subprocess.run(["ip", "link", "delete", "wgd0"], check=True)


@pytest.fixture
def door() -> Iterator[KernelWireGuard]:
    opened = KernelWireGuard()
    yield opened
    opened.close()


def test_the_module_is_loaded_by_opening_the_door() -> None:
    subprocess.run(["modprobe", "-r", "wireguard"], check=True)
    assert not Path("/sys/module/wireguard").exists()
    KernelWireGuard().close()
    assert Path("/sys/module/wireguard").exists()


@pytest.mark.usefixtures("_link")
def test_auto_takes_the_kernels_device(tmp_path: Path) -> None:
    door = open_wireguard("wgd0", Backend.AUTO, Link(2, "wgd0", "wireguard", 1420, up=False), tmp_path)
    assert door.read("wgd0").peers == ()
    door.close()


def test_a_link_of_another_kind_is_a_conflict(tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="of kind dummy"):
        open_wireguard("lo", Backend.AUTO, Link(1, "lo", "dummy", 1500, up=True), tmp_path)


def test_reading_a_link_that_is_no_wireguard_device_says_so(door: KernelWireGuard) -> None:
    with pytest.raises(KernelError, match=r"lo: EOPNOTSUPP: .*not a WireGuard device"):
        door.read("lo")


def test_a_missing_link_says_so(door: KernelWireGuard) -> None:
    with pytest.raises(KernelError, match="wgd9: ENODEV: there is no such network interface"):
        door.read("wgd9")


@pytest.mark.usefixtures("_link")
def test_the_kernel_splits_a_large_peer_over_messages_and_the_door_joins_them(door: KernelWireGuard) -> None:
    many = tuple(ip_network(0x0A000000 + number) for number in range(5_000))
    key = PublicKey(b"\x01" * 32)
    door.apply("wgd0", DeviceChange(peers=(PeerChange(key, create=True, allowed_ips=many),)))
    pieces = [message.get_attr("WGDEVICE_A_PEERS") for message in door._dump("wgd0")]
    assert len([piece for piece in pieces if piece and key.raw in piece]) > 1
    (peer,) = door.read("wgd0").peers
    assert peer.allowed_ips == frozenset(many)


@pytest.mark.usefixtures("_link")
def test_a_batch_is_one_message_of_several_hundred_peers(
    door: KernelWireGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    request = door._request
    monkeypatch.setattr(door, "_request", lambda *arguments: sent.append(arguments) or request(*arguments))
    peers = tuple(PeerChange(PublicKey(b"\x01" + n.to_bytes(31, "big")), create=True) for n in range(1_000))
    door.apply("wgd0", DeviceChange(listen_port=1, peers=peers))
    assert len(sent) == 2
    assert len(door.read("wgd0").peers) == 1_000
    sent.clear()
    door.apply("wgd0", DeviceChange())
    assert sent == []
