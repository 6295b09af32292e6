"""The machines of the kernel lane: network namespaces joined by cables, with real WireGuard in them.

    alice    192.0.2.2 ──── 192.0.2.1      gateway     inner 10.20.0.1 ──── inner 10.20.0.10       lan
             10.80.0.2                     10.80.0.1         fd20::1              10.20.0.11
             fd80::2                       fd80::1                                fd20::10, fd20::11
    bob      198.51.100.2 ─ 198.51.100.1                                          │
             10.80.0.3                                       remote               │
             fd80::3                                         10.30.0.10 ───────── behind 10.30.0.1
                                                             fd30::10                    fd30::1

A node is a network namespace, and a mount namespace with a /run of its own, so that WireGuard's sockets and what the
daemons note under /run are the node's. Everything is named after this process and gone when the world ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from kept import Kept

from tests.unit.events.event_schema import check_logs, checked

CHECKOUT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"
DEADLINE = 20.0
BLOCKED_SECONDS = "1"
SOON = 10.0


def wait_until(what: str, condition: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """Return the first true value of `condition`; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} seconds")
        time.sleep(0.02)


def lasting(listing: str) -> str:
    """Return what nft lists without what the kernel itself puts into the sets of limits, and takes out again."""
    return re.sub(r"(set limit_\w+ \{[^{}]*?)\s*elements = \{[^}]*\}", r"\1", listing)


class Process:
    """A program in a node, ended by its pid; what it prints goes to a file."""

    def __init__(
        self, command: list[str], log: Path, environment: dict[str, str] | None = None, descriptors: Sequence[int] = ()
    ) -> None:
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=CHECKOUT,
                env={**os.environ, **(environment or {})},
                pass_fds=descriptors,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def code(self) -> int | None:
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        return self._process.wait(DEADLINE)

    def end(self) -> int:
        """End it with SIGTERM, and SIGKILL when it does not heed that."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Service(Process):
    """A daemon with a service manager's ear: the lines that it notifies are kept in `notified`.

    The descriptors that it sends are `kept`, and given to a service that is started with them.
    """

    def __init__(self, command: list[str], log: Path, watchdog_seconds: float = 1.0, kept: Kept | None = None) -> None:
        self._kept = kept or Kept(most=0)
        self._path = log.with_suffix(".notify")
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.bind(str(self._path))
        self.notified: list[str] = []
        # A daemon whose manager does not listen blocks when the socket's queue is full.
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()
        # The daemon reads the kernel back twice as often as the watchdog wants to be fed.
        watchdog = str(round(watchdog_seconds * 1_000_000))
        environment = {"NOTIFY_SOCKET": str(self._path), "WATCHDOG_USEC": watchdog}
        super().__init__(self._kept.given_to(command), log, environment, self._kept.descriptors())

    def _listen(self) -> None:
        while True:
            datagram, descriptors, _, _ = socket.recv_fds(self._ear, 65536, 16)
            if not datagram:
                return
            lines = datagram.decode().splitlines()
            self._kept.hear(lines, descriptors)
            self.notified += lines

    def wait_ready(self) -> Service:
        """Wait for READY=1; fail with the daemon's own words when it ends instead."""

        def ready() -> bool:
            if self.code is not None:
                raise AssertionError(f"ended with {self.code} before it was ready:\n{self.output}")
            return "READY=1" in self.notified

        wait_until(f"READY=1 ({self.log})", ready)
        return self

    def reload(self) -> str:
        """Send HUP and return what was logged until the daemon was ready again."""
        before, length = self.notified.count("READY=1"), len(self.output)
        self.send(signal.SIGHUP)
        wait_until("READY=1 after HUP", lambda: self.notified.count("READY=1") > before)
        return self.output[length:]

    def close(self) -> None:
        """Stop listening."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self._path))
        self._listener.join()
        self._ear.close()
        self._path.unlink()


class Node:
    """One machine."""

    def __init__(self, name: str, scratch: Path) -> None:
        self.name = name
        self.namespace = f"wgdt{os.getpid()}{name}"
        self.scratch = scratch / name
        self.scratch.mkdir()
        self._processes: list[Process] = []
        command(["ip", "netns", "add", self.namespace])
        holder = ["ip", "netns", "exec", self.namespace, "unshare", "--mount", "--propagation", "private", "sh", "-c"]
        script = "mount -t tmpfs tmpfs /run && mkdir /run/wireguard && echo made && exec sleep infinity"
        self._holder = Process([*holder, script], self.scratch / "holder.log")
        wait_until("the node's mounts", lambda: "made" in self._holder.output)
        # No address waits a second to be sure that it is alone.
        self("sysctl", "-q", "net.ipv6.conf.default.accept_dad=0")
        self("ip", "link", "set", "lo", "up")

    def inside(self, *words: str) -> list[str]:
        """Return the command that runs `words` in this node."""
        return ["nsenter", f"--target={self._holder.pid}", "--net", "--mount", f"--wd={CHECKOUT}", "--", *words]

    def __call__(self, *words: str, text: str | None = None) -> str:
        """Run a command and return what it printed; fail when it fails."""
        return command(self.inside(*words), text)

    def code(self, *words: str) -> int:
        """Run a command and return its exit code."""
        return subprocess.run(self.inside(*words), capture_output=True, timeout=DEADLINE, check=False).returncode

    def start(self, *words: str) -> Process:
        process = Process(self.inside(*words), self._log(words))
        self._processes.append(process)
        return process

    def service(self, *words: str, watchdog_seconds: float = 1.0, kept: Kept | None = None) -> Service:
        process = Service(self.inside(PYTHON, *words), self._log(words), watchdog_seconds, kept)
        self._processes.append(process)
        return process

    def _log(self, words: tuple[str, ...]) -> Path:
        name = next((word for word in words if not word.startswith(("-", "/"))), words[0])
        return self.scratch / f"{len(self._processes)}-{Path(name).name}.log"

    def address(self, device: str, *addresses: str) -> None:
        self("ip", "link", "set", device, "up")
        for address in addresses:
            self("ip", "address", "add", address, "dev", device, *(("nodad",) if ":" in address else ()))

    def wireguard(self, device: str) -> Process:
        """Start wireguard-go for an interface and wait until it answers."""
        process = self.start("wireguard-go", "-f", device)
        # The kernel makes no interface while it takes namespaces of the tests before apart, which has taken 20 s.
        wait_until(f"wireguard-go {device}", lambda: self.code("wg", "show", device) == 0, 60)
        return process

    def run_dir(self, path: str) -> Path:
        """Return where a file below this node's /run is seen from outside."""
        return Path(f"/proc/{self._holder.pid}/root/run", path)

    def pings(self, to: str) -> bool:
        return self.code("ping", "-c1", f"-W{BLOCKED_SECONDS}", "-n", "-q", to) == 0

    def gets(self, to: str, port: int = 8080, *options: str) -> bool:
        """Tell whether an HTTP request to a protected resource is answered with 200."""
        host = f"[{to}]" if ":" in to else to
        words = ["curl", "-sfg", "-o", "/dev/null", "-m", BLOCKED_SECONDS, *options, f"http://{host}:{port}/healthz"]
        return self.code(*words) == 0

    def end(self) -> None:
        for process in reversed(self._processes):
            process.end()
            if isinstance(process, Service):
                process.close()
        self._holder.end()
        command(["ip", "netns", "delete", self.namespace])


def command(words: list[str], text: str | None = None) -> str:
    """Run a command and return what it printed; fail with its words when it fails."""
    done = subprocess.run(words, capture_output=True, text=True, input=text, timeout=60, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


def cable(one: Node, one_end: str, other: Node, other_end: str) -> None:
    command(
        f"ip link add {one_end} netns {one.namespace} type veth peer name {other_end} netns {other.namespace}".split()
    )


def new_key(path: Path) -> str:
    """Write a private key to `path` and return its public key."""
    private = command(["wg", "genkey"])
    path.touch(0o600)
    path.write_text(private)
    return command(["wg", "pubkey"], private).strip()


ALLOWED = "10.20.0.0/24, 'fd20::/64', 10.30.0.0/24, 'fd30::/64', 10.80.0.0/24, 'fd80::/64'"


class World:
    """Gateway, two clients, a LAN and what is behind it; the daemons are started by the tests."""

    LAN = ("10.20.0.10", "fd20::10")
    OTHER = ("10.20.0.11", "fd20::11")
    TUNNEL = ("10.80.0.1", "fd80::1")
    INNER = ("10.20.0.1", "fd20::1")
    BEHIND = ("10.30.0.10", "fd30::10")
    ADDRESSES: ClassVar = {"alice": ("10.80.0.2", "fd80::2"), "bob": ("10.80.0.3", "fd80::3")}
    UNDERLAY: ClassVar = {"alice": "192.0.2", "bob": "198.51.100"}

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._nodes: list[Node] = []
        self.events = scratch / "events.jsonl"
        self.server_yaml = scratch / "server.yaml"
        self.keys: dict[str, str] = {}
        self.gateway = self._node("gateway")
        self.lan = self._node("lan")
        self.remote = self._node("remote")
        self.alice = self._node("alice")
        self.bob = self._node("bob")
        self._wire()
        for name in ("gateway", "alice", "bob"):
            self.keys[name] = new_key(scratch / f"{name}.key")
        self.lan.service("-m", "wgd.protected_resource", "--listen", "[::]:8080").wait_ready()

    def _node(self, name: str) -> Node:
        node = Node(name, self.scratch)
        self._nodes.append(node)
        return node

    def _wire(self) -> None:
        cable(self.gateway, "inner", self.lan, "inner")
        self.gateway.address("inner", "10.20.0.1/24", "fd20::1/64")
        self.lan.address("inner", *(f"{host}/24" for host in ("10.20.0.10", "10.20.0.11")))
        self.lan.address("inner", *(f"{host}/64" for host in ("fd20::10", "fd20::11")))
        cable(self.lan, "behind", self.remote, "behind")
        self.lan("sysctl", "-q", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        self.lan.address("behind", "10.30.0.1/24", "fd30::1/64")
        self.remote.address("behind", "10.30.0.10/24", "fd30::10/64")
        for node, gateways, networks in (
            (self.lan, ("10.20.0.1", "fd20::1"), ("10.80.0.0/24", "fd80::/64")),
            (self.gateway, ("10.20.0.10", "fd20::10"), ("10.30.0.0/24", "fd30::/64")),
            (self.remote, ("10.30.0.1", "fd30::1"), ("default", "default")),
        ):
            for gateway, network, option in zip(gateways, networks, ("-4", "-6"), strict=True):
                node("ip", option, "route", "add", network, "via", gateway)
        for client in (self.alice, self.bob):
            underlay = self.UNDERLAY[client.name]
            cable(self.gateway, f"to-{client.name}", client, "outer")
            self.gateway.address(f"to-{client.name}", f"{underlay}.1/24")
            client.address("outer", f"{underlay}.2/24")

    def configure(self, policy: str = "", *, mode: str = "enforce", more: str = "", interface: str = "") -> None:
        """Write the gateway's config; `policy` is what stands under `policy:`, `more` further top-level YAML."""
        peers = "".join(
            f"  - name: {name}\n    public_key: '{self.keys[name]}'\n    allowed_ips: [{v4}/32, '{v6}/128']\n"
            for name, (v4, v6) in self.ADDRESSES.items()
        )
        self.server_yaml.write_text(
            f"interface:\n  name: wgd0\n  address: [10.80.0.1/24, 'fd80::1/64']\n  listen_port: 51820\n"
            f"  private_key_file: {self.scratch}/gateway.key\n{interface}"
            f"authz_mode: {mode}\nlogging_enabled: true\nlogging: {{path: {self.events}}}\n"
            f"peers:\n{peers}policy:\n{policy or '  rules: []'}\n{more}"
        )

    def serve(self, *options: str, watchdog_seconds: float = 1.0, kept: Kept | None = None) -> Service:
        """Start the gateway with the config written last, and with what was kept of one before."""
        if self.gateway.code("wg", "show", "wgd0") != 0:
            self.gateway.wireguard("wgd0")
        words = ("-m", "wgd.cli.server", "run", "--config", str(self.server_yaml), *options)
        daemon = self.gateway.service(*words, watchdog_seconds=watchdog_seconds, kept=kept)
        return daemon.wait_ready()

    def client_yaml(self, client: Node, allowed: str = ALLOWED) -> Path:
        v4, v6 = self.ADDRESSES[client.name]
        path = self.scratch / f"{client.name}.yaml"
        path.write_text(
            f"interface:\n  name: wgd-office\n  address: [{v4}/32, '{v6}/128']\n"
            f"  private_key_file: {self.scratch}/{client.name}.key\n"
            f"server:\n  public_key: '{self.keys['gateway']}'\n  endpoint: {self.UNDERLAY[client.name]}.1:51820\n"
            f"  allowed_ips: [{allowed}]\n  persistent_keepalive: 25\n"
        )
        return path

    def connect(self, client: Node, watchdog_seconds: float = 1.0) -> Service:
        """Start a client and wait for its handshake."""
        path = self.client_yaml(client)
        if client.code("wg", "show", "wgd-office") != 0:
            client.wireguard("wgd-office")
        words = ("-m", "wgd.cli.client", "run", "office", "--config", str(path))
        daemon = client.service(*words, watchdog_seconds=watchdog_seconds).wait_ready()
        wait_until("handshake", lambda: self.handshake(client))
        return daemon

    def handshake(self, client: Node) -> int:
        """Return when the gateway last shook hands with a client, seconds since the epoch, 0 for never."""
        lines = self.gateway("wg", "show", "wgd0", "latest-handshakes").splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith(self.keys[client.name])), 0)

    def lines(self) -> list[dict[str, Any]]:
        """Return every event of the log so far; each must be what the schema says."""
        return checked(self.events.read_bytes()) if self.events.exists() else []

    def event(self, **fields: Any) -> dict[str, Any]:
        """Return the first event that has these fields, waiting for it."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self.lines() if fields.items() <= line.items()), None)

        try:
            return wait_until(f"event {fields}", found, SOON)
        except AssertionError as error:
            listed = "\n".join(map(json.dumps, self.lines()[-20:]))
            raise AssertionError(f"{error}; the log has:\n{listed}") from None

    def end(self) -> None:
        """Check whatever the gateway has logged, and end all nodes."""
        try:
            check_logs(self.scratch, self.events.parent)
        finally:
            for node in reversed(self._nodes):
                node.end()


@contextlib.contextmanager
def world(scratch: Path) -> Iterator[World]:
    """A world for the time of the block."""
    made = World.__new__(World)
    try:
        made.__init__(scratch)  # type: ignore[misc] # so that a world that was made in part is taken down too
        yield made
    finally:
        made.end()
