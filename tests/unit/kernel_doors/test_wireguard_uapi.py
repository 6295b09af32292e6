import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest

from wgd.errors import KernelError
from wgd.kernel.wireguard_text import decode_device
from wgd.kernel.wireguard_uapi import PEERS_PER_REQUEST, UserspaceWireGuard
from wgd.model import Endpoint, PublicKey, SecretKey
from wgd.plan.state import Device, DeviceChange, DevicePeer, PeerChange

PRIVATE, PRESHARED = SecretKey(b"\x11" * 32), SecretKey(b"\x22" * 32)
ONE, TWO = PublicKey(b"\x01" * 32), PublicKey(b"\x02" * 32)
ANSWER = f"""private_key={PRIVATE.raw.hex()}
listen_port=51820
fwmark=51
public_key={ONE.raw.hex()}
preshared_key={PRESHARED.raw.hex()}
protocol_version=1
endpoint=[fe80::1%eth0]:4711
last_handshake_time_sec=1700000000
last_handshake_time_nsec=500000000
tx_bytes=7
rx_bytes=8
persistent_keepalive_interval=25
allowed_ip=10.0.0.1/32
allowed_ip=fd00::/64
public_key={TWO.raw.hex()}
preshared_key={bytes(32).hex()}
protocol_version=1
last_handshake_time_sec=0
last_handshake_time_nsec=0
tx_bytes=0
rx_bytes=0
persistent_keepalive_interval=0
"""


@contextmanager
def daemon(directory: Path, answer: Callable[[bytes], bytes]) -> Iterator[list[bytes]]:
    """Stand in for wireguard-go: give the requests that arrive, answer each on its own connection."""
    requests: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(directory / "wgd0.sock"))
    listener.listen()

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                request = b""
                while not request.endswith(b"\n\n"):
                    chunk = connection.recv(1 << 16)
                    if not chunk:
                        return
                    request += chunk
                requests.append(request)
                connection.sendall(answer(request))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield requests
    finally:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as last:
            last.connect(str(directory / "wgd0.sock"))
        thread.join()
        listener.close()


def fine(_request: bytes) -> bytes:
    return b"errno=0\n\n"


def test_a_device_is_read_with_all_its_fields(tmp_path: Path) -> None:
    with daemon(tmp_path, lambda _: ANSWER.encode() + b"errno=0\n\n") as requests:
        read = UserspaceWireGuard(tmp_path).read("wgd0")
    assert requests == [b"get=1\n\n"]
    one = DevicePeer(
        ONE, frozenset(map(ip_network, ("10.0.0.1/32", "fd00::/64"))), PRESHARED, Endpoint("fe80::1%eth0", 4711), 25
    )
    assert read == Device("wgd0", PRIVATE, 51820, (one, DevicePeer(TWO, frozenset())), fwmark=51)
    assert (read.peers[0].last_handshake, read.peers[0].rx_bytes, read.peers[0].tx_bytes) == (1700000000.5, 8, 7)


def test_a_fresh_device_has_no_key_and_no_peers() -> None:
    assert decode_device("wgd0", "listen_port=0\n") == Device("wgd0", None, 0)


def test_keys_of_a_newer_protocol_are_passed_over() -> None:
    assert decode_device("wgd0", "colour=blue\nlisten_port=7\n").listen_port == 7


@pytest.mark.parametrize(
    "line", ["private_key=deadbeef", "listen_port=deadbeef", "public_key=deadbeef", "public_key=" + "deadbeefxx" * 7]
)
def test_a_value_that_cannot_be_read_is_an_error_that_does_not_quote_it(line: str) -> None:
    with pytest.raises(KernelError) as caught:
        decode_device("wgd0", line + "\n")
    assert "deadbeef" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_every_field_of_a_change_is_one_line(tmp_path: Path) -> None:
    networks = (ip_network("10.0.0.1/32"), ip_network("fd00::/64"))
    changed = PeerChange(
        ONE,
        create=True,
        preshared_key=PRESHARED,
        endpoint=Endpoint("fe80::1%eth0", 4711),
        persistent_keepalive=0,
        replace_allowed_ips=True,
        allowed_ips=networks,
    )
    peers = (PeerChange(TWO, remove=True), changed, PeerChange(TWO, clear_preshared_key=True))
    with daemon(tmp_path, fine) as requests:
        UserspaceWireGuard(tmp_path).apply("wgd0", DeviceChange(PRIVATE, 0, peers))
    assert requests == [
        f"""set=1
private_key={PRIVATE.raw.hex()}
listen_port=0
public_key={TWO.raw.hex()}
update_only=true
remove=true
public_key={ONE.raw.hex()}
preshared_key={PRESHARED.raw.hex()}
endpoint=[fe80::1%eth0]:4711
persistent_keepalive_interval=0
replace_allowed_ips=true
allowed_ip=10.0.0.1/32
allowed_ip=fd00::/64
public_key={TWO.raw.hex()}
update_only=true
preshared_key={bytes(32).hex()}

""".encode()
    ]


def test_an_empty_change_sends_nothing(tmp_path: Path) -> None:
    with daemon(tmp_path, fine) as requests:
        UserspaceWireGuard(tmp_path).apply("wgd0", DeviceChange())
    assert requests == []


def test_many_peers_go_in_few_requests_and_the_key_in_the_first(tmp_path: Path) -> None:
    peers = tuple(PeerChange(PublicKey(n.to_bytes(32, "big")), create=True) for n in range(2 * PEERS_PER_REQUEST + 1))
    with daemon(tmp_path, fine) as requests:
        UserspaceWireGuard(tmp_path).apply("wgd0", DeviceChange(private_key=PRIVATE, peers=peers))
    assert [request.count(b"public_key=") for request in requests] == [PEERS_PER_REQUEST, PEERS_PER_REQUEST, 1]
    assert [request.count(b"private_key=") for request in requests] == [1, 0, 0]


def test_a_refusal_names_the_errno_and_says_it_in_words(tmp_path: Path) -> None:
    with daemon(tmp_path, lambda _: b"errno=-98\n\n"), pytest.raises(KernelError, match=r"wgd0: EADDRINUSE: .*port"):
        UserspaceWireGuard(tmp_path).apply("wgd0", DeviceChange(listen_port=1))


@pytest.mark.parametrize("answer", [b"", b"listen_port=1\n", b"listen_port=1\n\n", b"errno=x\n\n", b"errno=0\n"])
def test_an_answer_that_breaks_off_is_an_error(tmp_path: Path, answer: bytes) -> None:
    with daemon(tmp_path, lambda _: answer), pytest.raises(KernelError, match="broke off"):
        UserspaceWireGuard(tmp_path).read("wgd0")


def test_a_missing_socket_says_how_to_start_the_daemon(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"there is no .*wgd0\.sock; .*wgd-userspace@wgd0\.service"):
        UserspaceWireGuard(tmp_path).read("wgd0")


def test_a_socket_file_that_nobody_listens_on_says_so(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as gone:
        gone.bind(str(tmp_path / "wgd0.sock"))
    with pytest.raises(KernelError, match="nobody listens on"):
        UserspaceWireGuard(tmp_path).read("wgd0")


def test_a_daemon_that_never_answers_does_not_hang_us(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(tmp_path / "wgd0.sock"))
        silent.listen()
        with pytest.raises(KernelError, match="did not answer within"):
            UserspaceWireGuard(tmp_path, timeout=0.05).read("wgd0")


def test_a_daemon_that_never_accepts_does_not_hang_us(tmp_path: Path) -> None:
    address = str(tmp_path / "wgd0.sock")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as first,
    ):
        silent.bind(address)
        silent.listen(0)
        first.connect(address)
        with pytest.raises(KernelError, match="does not accept"):
            UserspaceWireGuard(tmp_path, timeout=0.05).read("wgd0")
