"""wgd.protected_resource: the program as a process on loopback, and its time limits in this process."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from wgd import __version__
from wgd.protected_resource import Limits, Service, listen_address

PATIENCE = 30
"""Seconds after which a test that waits for something has failed."""
PROGRAM = [sys.executable, "-m", "wgd.protected_resource"]


class Program:
    """The running program; `address` and `port` are where it says that it listens."""

    def __init__(self, listen: str, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, "--listen", listen],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        announced = re.fullmatch(r"listening on \[?([^\]]*)\]?:(\d+)\n", self.line())
        assert announced
        self.address, self.port = announced[1], int(announced[2])

    def line(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def connect(self, address: str | None = None) -> socket.socket:
        return socket.create_connection((address or self.address, self.port), PATIENCE)

    def get(self, path: str, address: str | None = None) -> tuple[int, bytes]:
        connection = HTTPConnection(address or self.address, self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def exchange(self, *sent: bytes) -> bytes:
        """Send on one connection, close our half, and return all that comes back."""
        with self.connect() as client:
            for part in sent:
                client.sendall(part)
            client.shutdown(socket.SHUT_WR)
            return everything(client)

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Return exit code and what was left on stderr."""
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, rest


Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def everything(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


@contextlib.contextmanager
def running(listen: str = "127.0.0.1:0", **environment: str) -> Iterator[Program]:
    program = Program(listen, environment)
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.process.kill()
        program.process.communicate(timeout=PATIENCE)


@pytest.fixture
def program() -> Iterator[Program]:
    with running() as it:
        yield it


GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# What it answers


def test_the_root_names_the_caller_and_the_address_it_reached(program: Program) -> None:
    connection = HTTPConnection(program.address, program.port, timeout=PATIENCE, source_address=("127.0.0.5", 0))
    with contextlib.closing(connection):
        connection.request("GET", "/")
        source_port = connection.sock.getsockname()[1]
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/json"
        assert json.load(response) == {
            "src_ip": "127.0.0.5",
            "src_port": source_port,
            "dst_ip": "127.0.0.1",
            "dst_port": program.port,
        }


def test_ipv6_callers_are_served_and_named() -> None:
    with running("[::1]:0") as program:
        status, body = program.get("/")
    assert status == 200
    assert json.loads(body)["src_ip"] == "::1"


def test_the_ipv6_wildcard_serves_ipv4_too_and_names_it_as_ipv4() -> None:
    with running("[::]:0") as program:
        assert json.loads(program.get("/", "127.0.0.1")[1])["src_ip"] == "127.0.0.1"
        assert json.loads(program.get("/", "::1")[1])["src_ip"] == "::1"


def test_the_ipv4_wildcard_serves_ipv4_alone() -> None:
    with running("0.0.0.0:0") as program:
        assert program.get("/healthz", "127.0.0.1")[0] == 200
        with pytest.raises(ConnectionRefusedError):
            program.connect("::1")


def test_healthz_is_ok(program: Program) -> None:
    assert program.get("/healthz") == (200, b"ok\n")


@pytest.mark.parametrize(
    "path", ["/healthz?verbose=1", "http://example.org/healthz", "HTTP://example.org:80/healthz?x"]
)
def test_query_and_absolute_form_reach_the_same_path(program: Program, path: str) -> None:
    assert b"ok" in program.exchange(f"GET {path} HTTP/1.1\r\nHost: example.org\r\n\r\n".encode())


@pytest.mark.parametrize("path", ["/nothing", "/healthz/", "//", "/%2e", "healthz", "http://[/"])
def test_any_other_path_is_not_answered_with_200(program: Program, path: str) -> None:
    answer = program.exchange(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert status_of(answer) == (400 if path == "http://[/" else 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "get"])
def test_any_other_method_is_405_and_says_which_are_allowed(program: Program, method: str) -> None:
    answer = program.exchange(f"{method} /healthz HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert status_of(answer) == 405
    assert b"\r\nAllow: GET, HEAD\r\n" in answer


@pytest.mark.parametrize("path", ["/healthz", "/nothing"])
def test_head_has_the_headers_of_get_and_no_body(program: Program, path: str) -> None:
    heads = {}
    for method in ("GET", "HEAD"):
        answer = program.exchange(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        heads[method] = re.sub(rb"Date: .*?\r\n", b"", head)
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length
        assert len(body) == (int(length[1]) if method == "GET" else 0)
        assert length[1] != b"0"
    assert heads["GET"] == heads["HEAD"]


# Connections


def test_a_connection_carries_several_requests(program: Program) -> None:
    connection = HTTPConnection(program.address, program.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.connect()
        first = connection.sock
        for path in ("/healthz", "/nothing", "/healthz"):
            connection.request("GET", path)
            connection.getresponse().read()
        assert connection.sock is first


def test_pipelined_requests_are_answered_in_order(program: Program) -> None:
    answer = program.exchange(HEALTHZ + b"\r\n" + b"HEAD /nothing HTTP/1.1\r\nHost: x\r\n\r\n" + GET + b"\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"404", b"200"]


@pytest.mark.parametrize(
    "request_head",
    [
        HEALTHZ + b"Connection: Close\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\n\r\n",
        b"GET /healthz HTTP/1.0\n\n",
        b"\r\nGET /healthz HTTP/1.0\r\n\r\n",
        HEALTHZ + b"Content-Length: 5\r\n\r\nhello",
        HEALTHZ + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_the_connection_ends_when_the_client_asks_or_a_body_follows(program: Program, request_head: bytes) -> None:
    with program.connect() as client:
        client.sendall(request_head + HEALTHZ + b"\r\n")
        answer = everything(client)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200"]
    assert b"\r\nConnection: close\r\n" in answer


def test_an_http_1_0_client_may_ask_to_keep_the_connection(program: Program) -> None:
    kept = b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    assert program.exchange(kept, kept).count(b"\r\nConnection: keep-alive\r\n") == 2


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\n\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\x1b[2J HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (GET + b"Host: y\r\n\r\n", 400),
        (GET + b"Name : value\r\n\r\n", 400),
        (GET + b" folded\r\n\r\n", 400),
        (GET + b"Name: a\x00b\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (GET + b"A: " + b"a" * 8192 + b"\r\n\r\n", 431),
        (GET + b"A: b\r\n" * 2000 + b"\r\n", 431),
        (b"\r\n" * 5000, 414),
    ],
)
def test_a_broken_request_is_refused_in_words_and_the_connection_closed(
    program: Program, sent: bytes, status: int
) -> None:
    with program.connect() as client:
        client.sendall(sent)
        answer = everything(client)
    assert status_of(answer) == status
    assert len(re.findall(rb"HTTP/1.1 \d", answer)) == 1
    assert b"\r\nConnection: close\r\n" in answer
    assert program.get("/healthz") == (200, b"ok\n")


def test_a_client_that_is_still_sending_gets_its_answer(program: Program) -> None:
    with program.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000))
        assert status_of(everything(client)) == 405


def test_a_client_that_breaks_off_leaves_no_trace(program: Program) -> None:
    with program.connect() as client:
        client.sendall(b"GET /half")
    with program.connect() as client:
        client.sendall(HEALTHZ + b"\r\n")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # close() resets
    assert program.get("/healthz") == (200, b"ok\n")
    code, said = program.stop()
    assert code == 0
    assert "Traceback" not in said


# Slow and silent clients


def test_a_thousand_silent_connections_keep_nobody_out(program: Program) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(program.connect()) for _ in range(1000)]
        for client in silent[::2]:
            client.sendall(b"GET / HTTP/1.1\r\nHo")
        assert program.get("/healthz") == (200, b"ok\n")
        silent[0].sendall(b"st: x\r\n\r\n")
        assert status_of(silent[0].recv(65536)) == 200


@contextlib.asynccontextmanager
async def serving(limits: Limits) -> AsyncIterator[Connect]:
    """Give a function that connects to a Service with these limits."""
    server = await asyncio.start_server(Service(limits).serve, "127.0.0.1", 0, limit=limits.head_bytes)
    port = server.sockets[0].getsockname()[1]
    writers = []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return reader, writer

    try:
        yield connect
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@pytest.mark.parametrize("sent", [b"", b"GET / HT", HEALTHZ])
def test_a_request_that_does_not_arrive_in_time_ends_the_connection_unanswered(sent: bytes) -> None:
    async def scenario() -> None:
        async with serving(Limits(request_seconds=0.2)) as connect:
            reader, writer = await connect()
            writer.write(sent)
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == b""

    asyncio.run(scenario())


def test_one_byte_at_a_time_does_not_extend_the_time() -> None:
    async def scenario() -> None:
        async with serving(Limits(request_seconds=0.5)) as connect:
            reader, writer = await connect()
            writer.write(GET + b"X: ")

            async def drip() -> None:
                while True:
                    writer.write(b"x")
                    await asyncio.sleep(0.01)

            dripping = asyncio.create_task(drip())
            async with asyncio.timeout(PATIENCE):
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            dripping.cancel()

    asyncio.run(scenario())


def test_a_client_that_does_not_take_its_answers_is_cut_off() -> None:
    async def scenario() -> None:
        async with serving(Limits(request_seconds=0.5)) as connect:
            _, writer = await connect()
            async with asyncio.timeout(PATIENCE):
                with contextlib.suppress(ConnectionError):
                    while True:  # our reader stops at its buffer's limit, so that the answers pile up
                        writer.write((HEALTHZ + b"\r\n") * 100)
                        await writer.drain()

    asyncio.run(scenario())


def test_when_all_places_are_taken_the_longest_waiting_gives_way() -> None:
    async def scenario() -> None:
        async with serving(Limits(connections=2)) as connect, asyncio.timeout(PATIENCE):
            first_reader, first = await connect()
            second_reader, second = await connect()
            for reader, writer in ((first_reader, first), (second_reader, second), (first_reader, first)):
                writer.write(HEALTHZ + b"\r\n")
                await reader.readuntil(b"ok\n")
            third_reader, third = await connect()
            assert await second_reader.read() == b""
            for reader, writer in ((first_reader, first), (third_reader, third)):
                writer.write(HEALTHZ + b"\r\n")
                await reader.readuntil(b"ok\n")

    asyncio.run(scenario())


# The program


def test_each_request_is_one_line_on_stderr(program: Program) -> None:
    with program.connect() as client:
        name = "{}:{}".format(*client.getsockname())
        client.sendall(HEALTHZ + b"\r\nGET /x?y HTTP/1.1\r\nHost: x\r\n\r\nrubbish\r\n\r\n")
        everything(client)
    assert [program.line() for _ in range(3)] == [
        f"{name} GET /healthz 200\n",
        f"{name} GET /x?y 404\n",
        f"{name} 400: the first line is not METHOD TARGET HTTP/1.1\n",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_at_once_and_cleanly_whoever_is_connected(program: Program, number: int) -> None:
    with program.connect() as idle, program.connect() as half:
        idle.sendall(HEALTHZ + b"\r\n")
        half.sendall(b"GET / HT")
        assert status_of(idle.recv(65536)) == 200
        program.line()
        assert program.stop(number) == (0, "stopped\n")


def test_the_manager_is_told_when_it_listens_and_when_it_stops(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(PATIENCE)
        with running(NOTIFY_SOCKET=path) as program:
            assert manager.recv(4096).decode() == f"STATUS=listening on 127.0.0.1:{program.port}"
            assert manager.recv(4096) == b"READY=1"
            assert program.get("/healthz")[0] == 200
            assert program.stop()[0] == 0
            assert manager.recv(4096) == b"STOPPING=1"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_an_address_in_use_is_named_and_ends_with_1(program: Program) -> None:
    result = run("--listen", f"127.0.0.1:{program.port}")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: cannot listen on 127.0.0.1:{program.port}: another program listens there")
    assert result.stderr.count("\n") == 1


def test_an_address_that_the_host_does_not_have_ends_with_1() -> None:
    result = run("--listen", "192.0.2.1:8080")
    assert result.returncode == 1
    assert result.stderr == "error: cannot listen on 192.0.2.1:8080: no interface of this host has that address\n"


@pytest.mark.parametrize(
    "listen", ["8080", ":8080", "::1:8080", "localhost:8080", "127.0.0.1:65536", "[127.0.0.1]:1", "1.2.3.4:-1"]
)
def test_a_listen_address_that_is_none_is_wrong_usage(listen: str) -> None:
    result = run(f"--listen={listen}")
    assert result.returncode == 2
    assert "argument --listen: " in result.stderr


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "[fe80::1%eth0]:80"])
def test_a_listen_address_is_written_as_it_is_read(listen: str) -> None:
    assert str(listen_address(listen)) == listen


def test_version_and_help() -> None:
    assert run("--version").stdout == f"wgd-protected-resource {__version__}\n"
    result = run("--help")
    assert result.returncode == 0
    assert "example:\n  wgd-protected-resource --listen" in result.stdout
