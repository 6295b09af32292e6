"""What decide says is what the kernel does: generated configs, loaded one after the other, and packets through them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from conversation import Conversation, Expectation
from crossing import Crossing, Letter, Place, crossing
from equivalence_examples import (
    CLIENTS,
    INNER,
    PEERS,
    SENTINEL_PORT,
    SENTINEL_SOURCE,
    SENTINEL_TARGET,
    Question,
    questions,
    reloads,
    standing,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packets import UDP, Packet

from tests.unit.policy.policy_examples import OWN
from wgd.model import AllowRule, ServerConfig

HELD = st.sampled_from((frozenset[int](), frozenset({4, 6})))
PORTS = (SENTINEL_PORT, SENTINEL_PORT)
LAST = (
    Letter(Place.CLIENTS, Packet(SENTINEL_SOURCE, SENTINEL_TARGET, UDP, *PORTS)),
    Letter(Place.NETWORK, Packet(SENTINEL_TARGET, SENTINEL_SOURCE, UDP, *PORTS)),
    Letter(Place.CLIENTS, Packet(SENTINEL_SOURCE, OWN[0], UDP, *PORTS)),
)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Crossing]:
    """One gateway for the whole module."""
    with crossing(standing(), INNER, LAST) as made:
        yield made


class Example(NamedTuple):
    """Configs that follow each other, and the flows that are tried under each of them."""

    configs: list[ServerConfig]
    held: frozenset[int]
    questions: list[Question]

    def __repr__(self) -> str:
        """Return what a person needs to see it again: hypothesis prints it when it found a difference."""
        lines = [f"held {sorted(self.held)}"]
        names = dict(zip(CLIENTS, (name for name, _ in PEERS), strict=True))
        for config in self.configs:
            lines.append(f"{config.authz_mode.value}:")
            for rule in config.policy.rules[:-1]:
                who = " ".join(names[client] for client in rule.clients)
                for word, entries in (("to", rule.allow), ("from", rule.allow_from)):
                    lines += [f"  {who} {word} {_shown(entry)} until {rule.until}" for entry in entries]
        return "\n".join((*lines, *map(str, self.questions)))


def _shown(entry: AllowRule) -> str:
    return f"{entry.to} proto {entry.proto} ports {','.join(map(str, entry.ports)) or 'all'}"


@st.composite
def examples(draw: st.DrawFn) -> Example:
    configs = draw(reloads())
    return Example(configs, draw(HELD), draw(questions(configs)))


def ask(gateway: Crossing, config: ServerConfig, talks: list[Conversation]) -> None:
    """Let both ends of every conversation speak: some answer before they were asked, then all ask, then all answer."""
    expectation = Expectation(config)
    for answers, speaking in (
        (True, [talk for talk in talks if talk.begun or talk.question.answer_first]),
        (False, talks),
        (True, talks),
    ):
        say(gateway, expectation, speaking, answers=answers)


def say(gateway: Crossing, expectation: Expectation, talks: list[Conversation], *, answers: bool) -> None:
    """Let one end of each conversation speak, and hold what arrives against what has to."""
    speaking = [(talk, talk.question.other_begins == answers) for talk in talks]
    speaking = [(talk, from_client) for talk, from_client in speaking if from_client or talk.other_speaks]
    letters = [talk.letter(from_client=from_client) for talk, from_client in speaking]
    expected = [expectation.arrival(talk, from_client=from_client) for talk, from_client in speaking]
    found = gateway.send(letters)
    wrong = [
        f"{letter.packet} from {letter.place.value}: decide says {wanted}, the kernel {arrival}"
        for letter, wanted, arrival in zip(letters, expected, found, strict=True)
        if wanted != arrival
    ]
    assert not wrong, "\n".join(wrong)
    for (talk, from_client), arrival in zip(speaking, found, strict=True):
        if arrival is not None:
            talk.arrived(from_client=from_client)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(examples())
def test_the_kernel_does_what_decide_says(gateway: Crossing, example: Example) -> None:
    """Every packet of a flow, in both directions, before and after each reload, arrives or does not as decide says."""
    gateway.forget()
    talks = [Conversation(question) for question in example.questions]
    for config in example.configs:
        gateway.load(config, example.held)
        ask(gateway, config, talks)
