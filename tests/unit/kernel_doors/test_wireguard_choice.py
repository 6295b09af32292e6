import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgd.errors import ConflictError, KernelError, UnsupportedError
from wgd.kernel import wireguard
from wgd.kernel.wireguard import open_wireguard
from wgd.kernel.wireguard_uapi import UserspaceWireGuard
from wgd.model import Backend
from wgd.plan.state import Link


class KernelDoor:
    """Stands where the netlink door would open."""


@pytest.fixture(autouse=True)
def _kernel_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wireguard, "KernelWireGuard", KernelDoor)


@pytest.fixture
def _daemon(tmp_path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "wgd0.sock"))
        listener.listen()
        yield


def link(kind: str) -> Link:
    return Link(7, "wgd0", kind, 1420, up=True)


@pytest.mark.parametrize("backend", [Backend.AUTO, Backend.KERNEL])
@pytest.mark.parametrize("there", [None, link("wireguard")])
def test_the_kernels_wireguard_is_taken_where_nothing_else_is(
    tmp_path: Path, backend: Backend, there: Link | None
) -> None:
    assert isinstance(open_wireguard("wgd0", backend, there, tmp_path), KernelDoor)


@pytest.mark.usefixtures("_daemon")
def test_auto_takes_a_userspace_wireguard_that_runs(tmp_path: Path) -> None:
    assert isinstance(open_wireguard("wgd0", Backend.AUTO, link("tun"), tmp_path), UserspaceWireGuard)


@pytest.mark.usefixtures("_daemon")
def test_userspace_takes_a_userspace_wireguard_that_runs(tmp_path: Path) -> None:
    assert isinstance(open_wireguard("wgd0", Backend.USERSPACE, link("tun"), tmp_path), UserspaceWireGuard)


def test_userspace_without_a_daemon_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"wgd-userspace@wgd0\.service"):
        open_wireguard("wgd0", Backend.USERSPACE, None, tmp_path)


def test_a_tun_device_of_another_program_is_a_conflict(tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match=r"wgd0: .*of kind tun"):
        open_wireguard("wgd0", Backend.AUTO, link("tun"), tmp_path)


@pytest.mark.usefixtures("_daemon")
@pytest.mark.parametrize(
    ("backend", "kind", "named"),
    [
        (Backend.AUTO, "veth", "of kind veth"),
        (Backend.AUTO, "", "a physical device"),
        (Backend.KERNEL, "tun", "of kind tun"),
        (Backend.USERSPACE, "wireguard", "of kind wireguard"),
    ],
)
def test_a_link_that_is_something_else_is_a_conflict_that_names_its_kind(
    tmp_path: Path, backend: Backend, kind: str, named: str
) -> None:
    with pytest.raises(ConflictError, match=f"wgd0: .*{named}"):
        open_wireguard("wgd0", backend, link(kind), tmp_path)


def test_a_kernel_without_wireguard_tells_the_operator_what_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise UnsupportedError("wireguard", "no module")

    monkeypatch.setattr(wireguard, "KernelWireGuard", missing)
    with pytest.raises(UnsupportedError, match=r"wgd0: .*wgd-userspace@wgd0\.service"):
        open_wireguard("wgd0", Backend.AUTO, None, tmp_path)
