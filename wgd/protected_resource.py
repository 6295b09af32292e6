"""wgd-protected-resource: a minimal HTTP service that shows whether a path works, and from which address.

GET / answers who asked, in the words of the event log:

    {"src_ip": "10.80.0.2", "src_port": 43210, "dst_ip": "10.20.0.10", "dst_port": 8080}

GET /healthz answers `ok`. HEAD works on both; any other path is 404, any other method 405. The subset of
HTTP/1.1 that this takes is spoken strictly (RFC 9112): a request that can be read in two ways is refused.

A client has one time limit for each request, from the first byte awaited to the last byte taken. When all
places are taken, the connection that has waited longest for a request gives way to the new one, so that
neither silent nor slow clients keep others out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import logging
import re
import resource
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Any
from urllib.parse import urlsplit

from wgd import __version__
from wgd.daemon import log, notify
from wgd.errors import HostError, WgdError

_log = logging.getLogger(__name__)

_BACKLOG = 128
_SPARE_FILES = _BACKLOG + 64
"""Descriptors beyond those of the counted connections: our own, and a burst that is accepted but not counted yet."""
_FAREWELL_SECONDS = 1

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's token, a word, not a secret
_REQUEST_LINE = re.compile(rf"({_TOKEN}) ([!-~]+) HTTP/([0-9])\.([0-9])")
_HEADER_LINE = re.compile(rf"({_TOKEN}):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_LISTEN = re.compile(r"(?:\[([^\]]+)\]|([^:\[\]]+)):([0-9]{1,5})")
_MAX_PORT = 65535

_EXAMPLE = """\
example:
  wgd-protected-resource --listen 10.20.0.10:8080
  curl http://10.20.0.10:8080/           # names the address that the request came from
  curl http://10.20.0.10:8080/healthz    # answers ok

0.0.0.0 is every IPv4 address of this host; [::] is every IPv6 and every IPv4 address.
"""


@dataclass(frozen=True)
class Limits:
    """What a client may take (seconds for a request, bytes of its head) and all together (open connections)."""

    request_seconds: float = 10
    head_bytes: int = 8192
    connections: int = 4096


@dataclass(frozen=True)
class SocketAddress:
    """One end of a connection, or where to listen."""

    address: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        return (
            f"[{self.address}]:{self.port}" if isinstance(self.address, IPv6Address) else f"{self.address}:{self.port}"
        )


@dataclass(frozen=True)
class Request:
    """The head of a request. `target` is as sent, `path` without query; `keep_alive`: another may follow."""

    method: str
    target: str
    path: str
    keep_alive: bool


@dataclass(frozen=True)
class Response:
    """An answer before it becomes bytes; `headers` are those beyond the ones that every answer has."""

    status: HTTPStatus
    body: str
    content_type: str = "text/plain; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)


class BadRequestError(WgdError):
    """A request that cannot be taken; `status` says so in HTTP's words, `str()` in a sentence for the client."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        self.status = status
        super().__init__(reason)


def parse_request(lines: Sequence[str]) -> Request:
    """Read the lines of a request's head (RFC 9112, sections 3 and 5); raise BadRequestError."""
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "the first line is not METHOD TARGET HTTP/1.1")
    method, target, major, minor = match.groups()
    if major != "1":
        raise BadRequestError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    headers = _parse_headers(lines[1:])
    hosts = headers.get("host", [])
    if len(hosts) > 1 or (minor != "0" and not hosts):
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "there must be one Host header")
    # A body is not read: its end is then not known, and the connection cannot carry another request.
    body = "transfer-encoding" in headers or headers.get("content-length", ["0"]) != ["0"]
    options = {option.strip().lower() for value in headers.get("connection", []) for option in value.split(",")}
    keep_alive = not body and "close" not in options and (minor != "0" or "keep-alive" in options)
    return Request(method, target, _path(target), keep_alive)


def _parse_headers(lines: Sequence[str]) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for line in lines:
        match = _HEADER_LINE.fullmatch(line)
        if match is None:
            raise BadRequestError(HTTPStatus.BAD_REQUEST, "a header line is not NAME: VALUE")
        headers.setdefault(match[1].lower(), []).append(match[2])
    return headers


def _path(target: str) -> str:
    if not target.lower().startswith("http://"):
        return target.partition("?")[0]
    try:
        return urlsplit(target).path or "/"
    except ValueError:
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "the target is not a URL") from None


def answer(request: Request, source: SocketAddress, destination: SocketAddress) -> Response:
    """Return the answer to a request that came from `source` to `destination`."""
    if request.method not in {"GET", "HEAD"}:
        return Response(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD\n", headers={"Allow": "GET, HEAD"})
    if request.path == "/":
        ends = {
            "src_ip": str(source.address),
            "src_port": source.port,
            "dst_ip": str(destination.address),
            "dst_port": destination.port,
        }
        return Response(HTTPStatus.OK, json.dumps(ends) + "\n", "application/json")
    if request.path == "/healthz":
        return Response(HTTPStatus.OK, "ok\n")
    return Response(HTTPStatus.NOT_FOUND, "there is only / and /healthz\n")


def encode(response: Response, *, with_body: bool, keep_alive: bool) -> bytes:
    """Return the bytes of an answer; its Content-Length is the body's, whether that is sent (GET) or not (HEAD)."""
    body = response.body.encode()
    headers = {
        "Date": formatdate(usegmt=True),
        "Content-Type": response.content_type,
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "Connection": "keep-alive" if keep_alive else "close",
        **response.headers,
    }
    head = [f"HTTP/1.1 {response.status.value} {response.status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*head, "", ""]).encode("ascii") + (body if with_body else b"")


class Service:
    """Answers connections and keeps their number and duration within the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._connections: dict[asyncio.StreamWriter, None] = {}
        """In the order in which they began to wait for a request."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests until the client, its time or its place is gone; a client that breaks off is no error."""
        if len(self._connections) >= self._limits.connections:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.transport.abort()
        self._connections[writer] = None
        writer.transport.set_write_buffer_limits(high=0)  # drain() then waits until the kernel has it all
        try:
            with contextlib.suppress(OSError):  # TimeoutError is one of them
                while await self._exchange(reader, writer):
                    del self._connections[writer]
                    self._connections[writer] = None
                await _say_farewell(reader, writer)
        finally:
            self._connections.pop(writer, None)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether another may follow."""
        names = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        if None in names:
            return False  # the client had gone before we looked
        source, destination = map(_socket_address, names)
        async with asyncio.timeout(self._limits.request_seconds):
            try:
                lines = await _read_head(reader, self._limits.head_bytes)
                if lines is None:
                    return False
                request = parse_request(lines)
            except BadRequestError as error:
                _log.info("%s %d: %s", source, error.status, error)
                writer.write(encode(Response(error.status, f"{error}\n"), with_body=True, keep_alive=False))
                await writer.drain()
                return False
            response = answer(request, source, destination)
            _log.info("%s %s %s %d", source, request.method, request.target, response.status)
            writer.write(encode(response, with_body=request.method != "HEAD", keep_alive=request.keep_alive))
            await writer.drain()
            return request.keep_alive


async def _read_head(reader: asyncio.StreamReader, limit: int) -> list[str] | None:
    """Return the lines of the next request's head, or None when the client sends no more."""
    lines: list[str] = []
    size = 0
    while True:
        try:
            line = await reader.readline()
        except ValueError:  # a line longer than the reader's own limit
            line = b"\n" * (limit + 1)
        size += len(line)
        if size > limit:
            too_large = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if lines else HTTPStatus.REQUEST_URI_TOO_LONG
            raise BadRequestError(too_large, f"a request's head may have {limit} bytes")
        if not line.endswith(b"\n"):
            return None
        text = line[:-1].removesuffix(b"\r").decode("latin-1")
        if text:
            lines.append(text)
        elif lines:
            return lines


async def _say_farewell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close our half and wait a moment for the client's; closing at once on unread bytes would destroy the answer."""
    writer.write_eof()
    async with asyncio.timeout(_FAREWELL_SECONDS):
        while await reader.read(4096):
            pass


def _socket_address(name: Any) -> SocketAddress:
    """Return a socket's own name as a value; an IPv4 client of an IPv6 socket is named by its IPv4 address."""
    address = ip_address(name[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return SocketAddress(mapped or address, name[1])


def listen_address(text: str) -> SocketAddress:
    """Read --listen, `IPV4:PORT` or `[IPV6]:PORT`; port 0 leaves the choice to the kernel."""
    match = _LISTEN.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not ADDRESS:PORT (an IPv6 address stands in brackets: [::]:8080)"
        )
    try:
        address = IPv6Address(match[1]) if match[1] else IPv4Address(match[2])
    except AddressValueError:
        raise argparse.ArgumentTypeError(f"{match[1] or match[2]!r} is not an IP address") from None
    if int(match[3]) > _MAX_PORT:
        raise argparse.ArgumentTypeError(f"port {match[3]} is above {_MAX_PORT}")
    return SocketAddress(address, int(match[3]))


def open_listener(where: SocketAddress) -> socket.socket:
    """Return a listening socket; `[::]` takes IPv4 as well, whatever net.ipv6.bindv6only says. Raises HostError."""
    reasons = {
        errno.EADDRINUSE: "another program listens there (`ss -ltnp` names it); stop it or choose another --listen",
        errno.EADDRNOTAVAIL: "no interface of this host has that address",
        errno.EACCES: "a port below 1024 needs root or CAP_NET_BIND_SERVICE",
        errno.EAFNOSUPPORT: "this host's kernel has that address family switched off",
    }
    ipv6 = isinstance(where.address, IPv6Address)
    try:
        return socket.create_server(
            (str(where.address), where.port),
            family=socket.AF_INET6 if ipv6 else socket.AF_INET,
            backlog=_BACKLOG,
            dualstack_ipv6=ipv6 and where.address.is_unspecified,
        )
    except OSError as error:
        reason = reasons.get(error.errno or 0, str(error.strerror))
        raise HostError(f"cannot listen on {where}", reason) from error


def allow_open_files(connections: int) -> int:
    """Raise this process's limit on open files for `connections`; return how many it can have, or raise HostError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = max(soft, min(hard, connections + _SPARE_FILES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed <= _SPARE_FILES:
        raise HostError("limit on open files", f"{allowed} is too few; allow {_SPARE_FILES + 1} or more (LimitNOFILE=)")
    return min(connections, allowed - _SPARE_FILES)


async def run(listener: socket.socket, limits: Limits) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await asyncio.start_server(Service(limits).serve, sock=listener, limit=limits.head_bytes, backlog=_BACKLOG)
    where = _socket_address(listener.getsockname())
    _log.info("listening on %s", where)
    notify.status(f"listening on {where}")
    notify.ready()
    await stop.wait()
    notify.stopping()
    server.close()
    _log.info("stopped")


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="wgd-protected-resource",
        description="A minimal HTTP service that shows whether a path works, and from which address.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--listen",
        metavar="ADDRESS:PORT",
        type=listen_address,
        default="0.0.0.0:8080",
        help="where to listen (default: %(default)s)",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return 0 when it was told to stop, 1 when it could not serve (argparse exits 2 itself)."""
    options = arguments().parse_args(argv)
    log.set_up()
    try:
        limits = Limits(connections=allow_open_files(Limits.connections))
        with open_listener(options.listen) as listener:
            asyncio.run(run(listener, limits))
    except WgdError as error:
        _log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
