import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from wgd.daemon import reach as module
from wgd.daemon.reach import SECONDS_BETWEEN_LOOKUPS, Reach
from wgd.errors import ConflictError, HostError
from wgd.model import Endpoint, PublicKey
from wgd.plan.endpoints import PATIENCE_SECONDS, SESSION_SECONDS
from wgd.plan.state import DevicePeer

NAME = Endpoint("gw.example", 51820)
FIRST, SECOND, OTHER = (Endpoint(f"192.0.2.{number}", 51820) for number in (1, 2, 3))
EPOCH = 1_800_000_000.0


@dataclass
class Clock:
    """Both clocks of a host, moved by the test."""

    seconds: float = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def time(self) -> float:
        return EPOCH + self.seconds


@dataclass
class Questions:
    """A resolver that answers when the test says so."""

    asked: tuple[Endpoint, ...] = ()
    number: int = 0
    running: bool = False
    result: tuple[Endpoint, ...] | HostError = ()

    def ask(self, endpoints: tuple[Endpoint, ...]) -> None:
        if not self.running:
            self.running, self.asked, self.number = True, endpoints, self.number + 1

    def answer(self) -> tuple[Endpoint, ...] | HostError:
        self.running = False
        return self.result

    def close(self) -> None:
        pass


@dataclass
class Client:
    """A Reach with a clock, a resolver and a kernel that are the test's."""

    clock: Clock
    resolver: Questions
    used: list[Endpoint] = field(default_factory=list)
    refuses: ConflictError | None = None
    sent: int = 0
    handshake: float = 0

    def __post_init__(self) -> None:
        self.reach = Reach(self.use)

    def use(self, endpoint: Endpoint) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.used.append(endpoint)

    def look(self, seconds: float = 0, sent: int = 148) -> None:
        """Let time pass in which the tunnel sends, then look at the server peer."""
        self.clock.seconds += seconds
        self.sent += sent
        self.reach.look_after(
            DevicePeer(PublicKey(b"s" * 32), frozenset(), None, FIRST, 0, self.handshake, 0, self.sent)
        )

    def answer(self, *endpoints: Endpoint, error: HostError | None = None) -> None:
        self.resolver.result = error if error is not None else endpoints
        self.reach.resolved()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Client]:
    caplog.set_level(logging.INFO)
    clock, resolver = Clock(), Questions()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "Resolver", lambda: resolver)
    return Client(clock, resolver)


def test_a_literal_endpoint_is_in_use_already_and_nobody_is_asked(client: Client) -> None:
    client.reach.begin((FIRST, SECOND))
    assert (client.resolver.number, client.used) == (0, [])


def test_a_name_is_looked_up_at_once_and_its_first_address_used(client: Client) -> None:
    client.reach.begin((NAME,))
    client.answer(FIRST, SECOND)
    assert (client.resolver.asked, client.used) == ((NAME,), [FIRST])


def test_a_failed_look_up_is_said_once_and_repeated_without_a_hurry(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.reach.begin((NAME,))
    for _ in range(6):
        client.answer(error=HostError("gw.example", "cannot be resolved: no"))
        client.look(SECONDS_BETWEEN_LOOKUPS / 2)
    assert client.resolver.number == 4
    assert caplog.messages == ["gw.example: cannot be resolved: no; trying again"]


def test_a_dead_endpoint_is_left_for_the_next_and_the_last_for_the_first(client: Client) -> None:
    client.reach.begin((FIRST, SECOND))
    for _ in range(3):
        client.look(PATIENCE_SECONDS)
        client.answer(FIRST, SECOND)
    assert client.used == [SECOND, FIRST, SECOND]


def test_an_endpoint_that_answers_is_kept(client: Client) -> None:
    client.reach.begin((FIRST, SECOND))
    client.handshake = client.clock.time()
    client.look(PATIENCE_SECONDS)
    assert client.reach.handshake_done
    assert client.resolver.number == 0


def test_an_idle_tunnel_is_left_alone_however_long(client: Client) -> None:
    client.reach.begin((FIRST, SECOND))
    client.look(10 * SESSION_SECONDS, sent=0)
    assert client.resolver.number == 0


def test_the_only_endpoint_is_not_set_again_when_it_is_silent(client: Client) -> None:
    client.reach.begin((FIRST,))
    client.look(PATIENCE_SECONDS)
    client.answer(FIRST)
    assert client.used == []
    assert client.reach.trouble == f"no answer from {FIRST}"


def test_a_name_that_moved_is_followed(client: Client) -> None:
    client.reach.begin((NAME,))
    client.answer(FIRST)
    client.look(PATIENCE_SECONDS)
    client.answer(SECOND)
    assert client.used == [FIRST, SECOND]


def test_an_endpoint_that_is_refused_is_said_and_the_next_one_tried(client: Client) -> None:
    client.refuses = ConflictError("server.endpoint", "lies in server.allowed_ips")
    client.reach.begin((NAME,))
    client.answer(FIRST, SECOND)
    assert client.reach.trouble == "server.endpoint: lies in server.allowed_ips"
    client.refuses = None
    client.look(PATIENCE_SECONDS)
    client.answer(FIRST, SECOND)
    assert client.used == [SECOND]


def test_a_handshake_is_told_once_and_ends_the_trouble(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    client.reach.begin((NAME,))
    client.answer(FIRST)
    client.handshake = client.clock.time()
    client.look()
    client.look()
    assert caplog.messages == [f"trying {FIRST}", f"handshake done with {FIRST}"]
    assert client.reach.trouble == ""


def test_a_reload_with_the_same_endpoints_changes_nothing(client: Client) -> None:
    client.reach.begin((NAME,))
    client.answer(FIRST)
    client.reach.begin((NAME,))
    assert client.resolver.number == 1


def test_a_late_answer_about_the_endpoints_of_an_old_config_is_not_used(client: Client) -> None:
    client.reach.begin((NAME,))
    client.reach.begin((OTHER,))
    client.answer(FIRST)
    assert client.used == []
    assert not client.resolver.running


def test_after_a_late_answer_the_new_name_is_looked_up(client: Client) -> None:
    client.reach.begin((NAME,))
    new = Endpoint("new.example", 51820)
    client.reach.begin((new,))
    client.answer(FIRST)
    assert client.resolver.asked == (new,)
    client.answer(SECOND)
    assert client.used == [SECOND]
