import select
import socket
import threading
from collections.abc import Iterator

import pytest

from wgd.errors import HostError
from wgd.host.resolve import Resolver, resolve
from wgd.model import Endpoint

PATIENCE = 10.0
NAMES = {"one.example": ["192.0.2.1"], "two.example": ["2001:db8::2", "192.0.2.2"], "same.example": ["192.0.2.1"]}


@pytest.fixture(autouse=True)
def name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's resolver knows NAMES and nothing else."""

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host not in NAMES:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        kind = socket.SOCK_DGRAM
        return [(socket.AF_INET, kind, 17, "", (address, port)) for address in NAMES[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    made = Resolver()
    yield made
    made.close()


def wait(resolver: Resolver) -> object:
    assert select.select([resolver], [], [], PATIENCE)[0], "the resolver answers"
    return resolver.answer()


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
def test_a_literal_address_is_asked_of_nobody(host: str) -> None:
    assert resolve(Endpoint(host, 51820)) == (Endpoint(host, 51820),)


def test_a_name_gives_every_address_in_the_resolvers_order_with_the_port() -> None:
    assert resolve(Endpoint("two.example", 7)) == (Endpoint("2001:db8::2", 7), Endpoint("192.0.2.2", 7))


def test_a_name_that_is_not_known_is_an_error_with_the_resolvers_words() -> None:
    with pytest.raises(HostError, match=r"absent\.example: cannot be resolved: Name or service not known"):
        resolve(Endpoint("absent.example", 7))


def test_what_can_be_no_name_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(HostError, match="it is no host name"):
        resolve(Endpoint("a..b", 7))


def test_the_answer_holds_every_endpoint_once_and_in_order(resolver: Resolver) -> None:
    resolver.ask([Endpoint(host, 7) for host in ("two.example", "192.0.2.9", "one.example", "same.example")])
    hosts = ("2001:db8::2", "192.0.2.2", "192.0.2.9", "192.0.2.1")
    assert wait(resolver) == tuple(Endpoint(host, 7) for host in hosts)


def test_a_name_that_fails_takes_nothing_from_the_others(resolver: Resolver) -> None:
    resolver.ask([Endpoint("absent.example", 7), Endpoint("one.example", 7)])
    assert wait(resolver) == (Endpoint("192.0.2.1", 7),)


def test_where_every_name_fails_the_answer_is_the_error(resolver: Resolver) -> None:
    resolver.ask([Endpoint("absent.example", 7)])
    assert str(wait(resolver)).startswith("absent.example: cannot be resolved")


def test_it_can_be_asked_again_after_an_answer(resolver: Resolver) -> None:
    for host in ("one.example", "two.example"):
        resolver.ask([Endpoint(host, 7)])
        assert resolver.asked == (Endpoint(host, 7),)
        wait(resolver)


def test_a_question_while_another_is_looked_up_is_not_asked(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    known = socket.getaddrinfo

    def slow(*arguments: object, **more: object) -> object:
        assert go_on.wait(PATIENCE)
        return known(*arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    resolver.ask([Endpoint("one.example", 7)])
    resolver.ask([Endpoint("two.example", 7)])
    go_on.set()
    assert wait(resolver) == (Endpoint("192.0.2.1", 7),)
    assert resolver.asked == (Endpoint("one.example", 7),)
    assert not select.select([resolver], [], [], 0)[0]


def test_a_closed_resolver_hears_no_late_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, threads = threading.Event(), threading.enumerate()

    def slow(*_: object, **__: object) -> list[object]:
        assert go_on.wait(PATIENCE)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    resolver = Resolver()
    resolver.ask([Endpoint("one.example", 7)])
    (worker,) = (thread for thread in threading.enumerate() if thread not in threads)
    resolver.close()
    go_on.set()
    worker.join(PATIENCE)
    assert not worker.is_alive()
