"""The WireGuard doors against a real device, with `wg` as the independent reader.

    gateway (namespace)                 client (namespace)
    wgd0  10.80.0.1/24                  wgd0  10.80.0.2/24
    outer 192.0.2.1/24  ----- veth ---- outer 192.0.2.2/24

The devices are wireguard-go's, or the kernel's own with WGD_TEST_BACKEND=kernel, as the vm lane sets it.
"""

import base64
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from pyroute2 import netns

from wgd.errors import KernelError
from wgd.kernel.wireguard import WireGuard
from wgd.kernel.wireguard_netlink import KernelWireGuard
from wgd.kernel.wireguard_uapi import UserspaceWireGuard
from wgd.model import Endpoint, Network, PublicKey, SecretKey
from wgd.plan.peers import change
from wgd.plan.state import Device, DeviceChange, DevicePeer

KERNEL = os.environ.get("WGD_TEST_BACKEND") == "kernel"
NAME = "wgd0"
PEERS = 10_000 if KERNEL else 1_000
DEADLINE = 20.0


def run(*command: str, text: str | None = None) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, input=text, timeout=60).stdout


@dataclass(frozen=True)
class Node:
    """A network namespace with a WireGuard device; `enter` is the command prefix that runs a program beside it."""

    namespace: str
    door: WireGuard
    enter: tuple[str, ...]

    def run(self, *command: str) -> str:
        return run(*self.enter, *command)

    def dump(self) -> dict[str, list[str]]:
        """Give the fields of every peer, by public key, as `wg` prints them; the device's own are under `NAME`."""
        lines = [line.split("\t") for line in self.run("wg", "show", NAME, "dump").splitlines()]
        return {NAME: lines[0], **{fields[0]: fields[1:] for fields in lines[1:]}}

    def reach(self, desired: Device) -> DeviceChange:
        """Read, diff and apply once; give what was applied."""
        todo = change(desired, self.door.read(NAME))
        self.door.apply(NAME, todo)
        return todo

    def socket(self) -> socket.socket:
        netns.pushns(self.namespace)
        try:
            return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        finally:
            netns.popns()


@contextmanager
def namespace(role: str) -> Iterator[str]:
    name = f"wgdt{os.getpid()}{role}"
    run("ip", "netns", "add", name)
    try:
        yield name
    finally:
        run("ip", "netns", "delete", name)


@contextmanager
def userspace_node(name: str) -> Iterator[Node]:
    own_run = "mount -t tmpfs tmpfs /run && mkdir /run/wireguard && exec wireguard-go -f wgd0"
    with subprocess.Popen(["ip", "netns", "exec", name, "unshare", "--mount", "sh", "-c", own_run]) as daemon:
        try:
            door = UserspaceWireGuard(Path(f"/proc/{daemon.pid}/root/run/wireguard"))
            wait_for(door, daemon)
            yield Node(name, door, ("nsenter", "-t", str(daemon.pid), "-m", "-n"))
        finally:
            daemon.terminate()


def wait_for(door: UserspaceWireGuard, daemon: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + DEADLINE
    while daemon.poll() is None and time.monotonic() < end:
        try:
            return door.probe(NAME)
        except KernelError:
            time.sleep(0.01)
    raise AssertionError("wireguard-go did not start")


@contextmanager
def kernel_node(name: str) -> Iterator[Node]:
    enter = ("ip", "netns", "exec", name)
    run(*enter, "ip", "link", "add", NAME, "type", "wireguard")
    netns.pushns(name)
    try:
        door = KernelWireGuard()
    finally:
        netns.popns()
    try:
        yield Node(name, door, enter)
    finally:
        door.close()


@contextmanager
def new_node(role: str) -> Iterator[Node]:
    make = kernel_node if KERNEL else userspace_node
    with namespace(role) as name, make(name) as node:
        yield node


@pytest.fixture
def gateway() -> Iterator[Node]:
    with new_node("gw") as node:
        yield node


@pytest.fixture
def client(gateway: Node) -> Iterator[Node]:
    with new_node("cl") as node:
        run(
            "ip",
            "link",
            "add",
            "outer",
            "netns",
            gateway.namespace,
            "type",
            "veth",
            "peer",
            "outer",
            "netns",
            node.namespace,
        )
        for number, side in enumerate((gateway, node), 1):
            side.run("ip", "address", "add", f"192.0.2.{number}/24", "dev", "outer")
            side.run("ip", "address", "add", f"10.80.0.{number}/24", "dev", NAME)
            side.run("ip", "link", "set", "outer", "up")
        yield node


def key(number: int) -> PublicKey:
    return PublicKey(b"\x01" + number.to_bytes(31, "big"))


def nets(*texts: str) -> frozenset[Network]:
    return frozenset(map(ip_network, texts))


def private_key() -> tuple[SecretKey, PublicKey]:
    secret = run("wg", "genkey")
    public = run("wg", "pubkey", text=secret)
    return SecretKey(base64.b64decode(secret)), PublicKey(base64.b64decode(public))


def everything() -> Device:
    return Device(
        NAME,
        private_key()[0],
        51820,
        (
            DevicePeer(
                key(1), nets("10.80.0.2/32", "fd80::2/128"), SecretKey(b"p" * 32), Endpoint("192.0.2.7", 4711), 25
            ),
            DevicePeer(key(2), nets("10.80.0.3/32"), endpoint=Endpoint("2001:db8::7", 4712)),
            DevicePeer(key(3), nets()),
        ),
    )


def same(device: Device, other: Device) -> bool:
    return replace(device, peers=()) == replace(other, peers=()) and set(device.peers) == set(other.peers)


def test_a_fresh_device_has_nothing(gateway: Node) -> None:
    device = gateway.door.read(NAME)
    assert (device.private_key, device.peers, device.fwmark) == (None, (), 0)


def test_wg_shows_what_was_applied_and_the_door_reads_the_same(gateway: Node) -> None:
    desired = everything()
    gateway.reach(desired)
    dump = gateway.dump()
    assert dump[NAME][0] == base64.b64encode(desired.private_key.raw).decode()
    assert dump[NAME][2:] == ["51820", "off"]
    psk = base64.b64encode(b"p" * 32).decode()
    first, second, third = (dump[str(key(number))] for number in (1, 2, 3))
    assert (first[:2], set(first[2].split(",")), first[-1]) == (
        [psk, "192.0.2.7:4711"],
        {"10.80.0.2/32", "fd80::2/128"},
        "25",
    )
    assert (second[:3], second[-1]) == (["(none)", "[2001:db8::7]:4712", "10.80.0.3/32"], "off")
    assert third[:3] == ["(none)", "(none)", "(none)"]
    assert same(gateway.door.read(NAME), desired)


def test_a_second_apply_has_nothing_to_send(gateway: Node) -> None:
    desired = everything()
    assert gateway.reach(desired)
    assert not gateway.reach(desired)


def test_a_private_key_that_is_not_clamped_is_set_once(gateway: Node) -> None:
    desired = replace(everything(), private_key=SecretKey(b"\xff" * 32))
    gateway.reach(desired)
    assert not gateway.reach(desired)


def test_every_field_of_a_peer_can_change(gateway: Node) -> None:
    desired = everything()
    gateway.reach(desired)
    peers = (
        DevicePeer(key(1), nets("10.80.0.9/32", "fd80::2/128"), None, Endpoint("192.0.2.8", 1), 0),
        DevicePeer(key(2), nets("10.80.0.2/32"), SecretKey(b"q" * 32), Endpoint("2001:db8::7", 4712), 7),
        DevicePeer(key(4), nets("10.80.0.3/32")),
    )
    gateway.reach(replace(desired, private_key=private_key()[0], listen_port=51821, peers=peers))
    dump = gateway.dump()
    assert dump[NAME][2] == "51821"
    assert str(key(3)) not in dump
    first, second, fourth = (dump[str(key(number))] for number in (1, 2, 4))
    assert (first[:2], set(first[2].split(",")), first[-1]) == (
        ["(none)", "192.0.2.8:1"],
        {"10.80.0.9/32", "fd80::2/128"},
        "off",
    )
    assert (second[0], second[2], second[-1]) == (base64.b64encode(b"q" * 32).decode(), "10.80.0.2/32", "7")
    assert fourth[2] == "10.80.0.3/32"


def test_a_swap_of_allowed_ips_is_made_by_wireguard_as_the_plan_believes(gateway: Node) -> None:
    first, second = DevicePeer(key(1), nets("10.0.0.1/32")), DevicePeer(key(2), nets("10.0.0.2/32"))
    before = replace(everything(), peers=(first, second))
    after = replace(
        before,
        peers=(replace(first, allowed_ips=nets("10.0.0.2/32")), replace(second, allowed_ips=nets("10.0.0.1/32"))),
    )
    gateway.reach(before)
    gateway.reach(after)
    dump = gateway.dump()
    assert [dump[str(key(number))][2] for number in (1, 2)] == ["10.0.0.2/32", "10.0.0.1/32"]
    assert same(gateway.door.read(NAME), after)


def test_a_change_of_a_peer_that_has_gone_does_not_bring_it_back(gateway: Node) -> None:
    desired = everything()
    gateway.reach(desired)
    stale = change(replace(desired, peers=(replace(desired.peers[2], allowed_ips=nets("10.0.0.1/32")),)), desired)
    gateway.run("wg", "set", NAME, "peer", str(key(3)), "remove")
    gateway.door.apply(NAME, stale)
    assert str(key(3)) not in gateway.dump()


def session(gateway: Node, client: Node) -> tuple[Device, PublicKey]:
    """Bring both devices up and make a handshake; give the gateway's device and the client's key."""
    (gateway_secret, gateway_key), (client_secret, client_key) = private_key(), private_key()
    peers = (DevicePeer(client_key, nets("10.80.0.2/32")), DevicePeer(key(1), nets("10.80.0.9/32")))
    desired = Device(NAME, gateway_secret, 51820, peers)
    server = DevicePeer(gateway_key, nets("10.80.0.0/24"), endpoint=Endpoint("192.0.2.1", 51820))
    gateway.reach(desired)
    client.reach(Device(NAME, client_secret, None, (server,)))
    for side in (gateway, client):
        side.run("ip", "link", "set", NAME, "up")
    client.run("ping", "-c", "1", "-W", "10", "10.80.0.1")
    return desired, client_key


def test_a_changed_peer_leaves_the_session_of_the_others_alone(gateway: Node, client: Node) -> None:
    desired, client_key = session(gateway, client)
    before = gateway.dump()[str(client_key)]
    changed = replace(desired.peers[1], allowed_ips=nets("10.80.0.10/32"), preshared_key=SecretKey(b"p" * 32))
    new = DevicePeer(key(2), nets("10.80.0.9/32"))
    assert gateway.reach(replace(desired, peers=(desired.peers[0], changed, new)))
    after = gateway.dump()[str(client_key)]
    assert int(after[3]) > 0
    assert after == before
    client.run("ping", "-c", "1", "-W", "10", "10.80.0.1")
    assert gateway.dump()[str(client_key)][3] == before[3]


def test_a_peer_that_gains_an_allowed_ip_keeps_its_own_session(gateway: Node, client: Node) -> None:
    desired, client_key = session(gateway, client)
    before = gateway.dump()[str(client_key)]
    more = replace(desired.peers[0], allowed_ips=nets("10.80.0.2/32", "10.80.0.3/32"))
    gateway.reach(replace(desired, peers=(more, desired.peers[1])))
    after = gateway.dump()[str(client_key)]
    assert after[3:] == before[3:]
    assert set(after[2].split(",")) == {"10.80.0.2/32", "10.80.0.3/32"}


def test_handshake_and_traffic_are_read_as_wg_reads_them(gateway: Node, client: Node) -> None:
    _, client_key = session(gateway, client)
    fields = gateway.dump()[str(client_key)]
    (peer,) = (peer for peer in gateway.door.read(NAME).peers if peer.public_key == client_key)
    assert [int(peer.last_handshake), peer.rx_bytes, peer.tx_bytes] == [int(text) for text in fields[3:6]]
    assert peer.endpoint is not None
    assert str(peer.endpoint) == fields[1]


def test_thousands_of_peers_are_set_and_read_whole(gateway: Node) -> None:
    peers = tuple(
        DevicePeer(key(number), frozenset({ip_network(0x0A000000 + number), ip_network((0xFD << 120) + number)}))
        for number in range(PEERS)
    )
    desired = replace(everything(), peers=peers)
    assert gateway.reach(desired)
    dump = gateway.dump()
    assert len(dump) == PEERS + 1
    assert dump[str(key(PEERS - 1))][2].split(",")[0] in {str(net) for net in peers[-1].allowed_ips}
    assert not gateway.reach(desired)


def test_a_peer_with_thousands_of_allowed_ips_is_set_and_read_whole(gateway: Node) -> None:
    many = frozenset(ip_network(0x0A000000 + number) for number in range(5_000))
    peers = (DevicePeer(key(1), nets("fd80::1/128")), DevicePeer(key(2), many), DevicePeer(key(3), nets("fd80::3/128")))
    desired = replace(everything(), peers=peers)
    gateway.reach(desired)
    assert set(gateway.dump()[str(key(2))][2].split(",")) == {str(net) for net in many}
    assert same(gateway.door.read(NAME), desired)
    fewer = frozenset(sorted(many)[:4_000])
    gateway.reach(replace(desired, peers=(peers[0], replace(peers[1], allowed_ips=fewer), peers[2])))
    assert set(gateway.dump()[str(key(2))][2].split(",")) == {str(net) for net in fewer}


def test_a_listen_port_in_use_is_refused_in_words(gateway: Node) -> None:
    gateway.reach(everything())
    gateway.run("ip", "link", "set", NAME, "up")
    with gateway.socket() as other:
        other.bind(("", 51999))
        with pytest.raises(KernelError, match=f"{NAME}: EADDRINUSE: .*in use by another program"):
            gateway.door.apply(NAME, DeviceChange(listen_port=51999))


def test_a_device_that_does_not_exist_is_an_error_with_its_name(gateway: Node) -> None:
    with pytest.raises(KernelError, match=r"^wgd9: "):
        gateway.door.read("wgd9")
