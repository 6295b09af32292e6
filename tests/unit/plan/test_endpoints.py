import pytest

from wgd.model import Endpoint, PublicKey
from wgd.plan.endpoints import Attempt, following, is_failing
from wgd.plan.state import DevicePeer

FIRST, SECOND, THIRD = (Endpoint(f"192.0.2.{number}", 51820) for number in (1, 2, 3))
NOW = 1_800_000_000.0
ATTEMPT = Attempt(FIRST, since=100.0, sent=1000)


def peer(*, sent: int = 2000, handshake: float = 0) -> DevicePeer:
    return DevicePeer(PublicKey(b"s" * 32), frozenset(), last_handshake=handshake, tx_bytes=sent)


def test_a_server_that_answers_nothing_for_fifteen_seconds_is_failing() -> None:
    assert is_failing(ATTEMPT, peer(), 115.0, NOW)


def test_it_is_given_fifteen_seconds() -> None:
    assert not is_failing(ATTEMPT, peer(), 114.9, NOW)


def test_a_tunnel_that_has_sent_nothing_is_healthy() -> None:
    assert not is_failing(ATTEMPT, peer(sent=1000), 1000.0, NOW)


@pytest.mark.parametrize(("age", "failing"), [(0, False), (179, False), (180, True), (1000, True)])
def test_a_session_lives_for_three_minutes(age: int, *, failing: bool) -> None:
    assert is_failing(ATTEMPT, peer(handshake=NOW - age), 1000.0, NOW) == failing


def test_the_next_candidate_follows_and_the_first_follows_the_last() -> None:
    candidates = (FIRST, SECOND, THIRD)
    assert [following(candidates, current) for current in candidates] == [SECOND, THIRD, FIRST]


def test_the_only_candidate_follows_itself() -> None:
    assert following((FIRST,), FIRST) == FIRST


def test_the_first_follows_an_endpoint_that_is_no_candidate_any_more() -> None:
    assert following((SECOND, THIRD), FIRST) == SECOND
