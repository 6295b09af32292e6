"""A reload that has to be confirmed: when it goes back, and to what."""

from dataclasses import replace

import pytest

from tests.unit.policy.policy_examples import server_config
from wgd.daemon.confirmation import RETRY_SECONDS, Confirmation
from wgd.model import SecretKey
from wgd.plan import gateway as plan
from wgd.plan.gateway import Desired, Keys

FIRST = plan.desired(server_config(), Keys(SecretKey(b"k" * 32), {}), frozenset())
SECOND = replace(FIRST, addresses=())


@pytest.fixture
def waiting() -> Confirmation:
    """Ten seconds from the moment 100 on it waits for a confirmation, or goes back to FIRST."""
    made = Confirmation()
    made.begin(FIRST, 10, 100)
    return made


def back_at(confirmation: Confirmation, now: float) -> Desired | None:
    return confirmation.due(now)


def test_nothing_waits_before_a_reload() -> None:
    confirmation = Confirmation()
    assert back_at(confirmation, 1e9) is None
    assert confirmation.left(0) is None
    assert not confirmation.end()


def test_it_goes_back_when_the_time_is_over_and_not_before(waiting: Confirmation) -> None:
    assert back_at(waiting, 109.9) is None
    assert back_at(waiting, 110) is FIRST
    assert (waiting.left(100), waiting.left(107.2), waiting.left(200)) == (10, 3, 0)


def test_what_is_confirmed_stays(waiting: Confirmation) -> None:
    assert waiting.end()
    assert back_at(waiting, 200) is None
    assert not waiting.end(), "there is nothing left to confirm"


def test_a_further_reload_with_a_time_starts_it_anew_and_goes_back_to_the_first(waiting: Confirmation) -> None:
    waiting.begin(SECOND, 10, 105)
    assert back_at(waiting, 114) is None
    assert back_at(waiting, 115) is FIRST


def test_after_a_confirmation_the_next_goes_back_to_what_was_confirmed(waiting: Confirmation) -> None:
    waiting.end()
    waiting.begin(SECOND, 10, 200)
    assert back_at(waiting, 210) is SECOND


def test_going_back_that_failed_is_tried_again(waiting: Confirmation) -> None:
    waiting.retry(110)
    assert back_at(waiting, 110) is None
    assert back_at(waiting, 110 + RETRY_SECONDS) is FIRST
