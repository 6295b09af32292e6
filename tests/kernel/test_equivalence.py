"""What decide says is what the kernel does: generated configs, loaded one after the other, and packets through them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import NamedTuple

import pytest
from conversation import Conversation, Expectation, place_of
from crossing import Arrival, Crossing, Letter, Place, crossing
from equivalence_examples import (
    CLIENTS,
    INNER,
    PEERS,
    SENTINEL_PORT,
    SENTINEL_SOURCE,
    SENTINEL_TARGET,
    Question,
    forged,
    questions,
    reloads,
    standing,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from packets import TCP, UDP, Packet

from tests.unit.policy.policy_examples import OWN, allow, rule
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
    forged: list[Question]

    def __repr__(self) -> str:
        """Return what a person needs to see it again: hypothesis prints it when it found a difference."""
        lines = [f"held {sorted(self.held)}"]
        names = dict(zip(CLIENTS, (name for name, _ in PEERS), strict=True))
        for config in self.configs:
            lines.append(f"{config.authz_mode.value}:")
            for found in config.policy.rules[:-1]:
                who = " ".join(names[client] for client in found.clients)
                for word, entries in (("to", found.allow), ("from", found.allow_from)):
                    lines += [f"  {who} {word} {_shown(entry)} until {found.until}" for entry in entries]
        lines += map(str, self.questions)
        return "\n".join((*lines, *(f"forged: {question}" for question in self.forged)))


def _shown(entry: AllowRule) -> str:
    return f"{entry.to} proto {entry.proto} ports {','.join(map(str, entry.ports)) or 'all'}"


@st.composite
def examples(draw: st.DrawFn) -> Example:
    configs = draw(reloads())
    return Example(configs, draw(HELD), draw(questions(configs)), draw(forged(configs)))


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
    """Let one end of each conversation speak."""
    speaking = [(talk, talk.question.other_begins == answers) for talk in talks]
    speaking = [(talk, from_client) for talk, from_client in speaking if from_client or talk.other_speaks]
    letters = [talk.letter(from_client=from_client) for talk, from_client in speaking]
    expected = [expectation.arrival(talk, from_client=from_client) for talk, from_client in speaking]
    compare(gateway, letters, expected)
    for (talk, from_client), arrival in zip(speaking, expected, strict=True):
        if arrival is not None:
            talk.arrived(from_client=from_client)


def forge(gateway: Crossing, config: ServerConfig, talks: list[Conversation]) -> None:
    """Let the network speak with the addresses of clients."""
    expectation = Expectation(config)
    letters = [replace(talk.letter(from_client=False), place=Place.NETWORK) for talk in talks]
    compare(gateway, letters, [expectation.forged_arrival(talk) for talk in talks])


def fail(gateway: Crossing, config: ServerConfig, talks: list[Conversation]) -> None:
    """Let the network tell the clients that it cannot be reached, for the flows that they began."""
    expectation = Expectation(config)
    there = [talk for talk in talks if place_of(talk.question.other) is Place.NETWORK]
    there = [talk for talk in there if talk.client_begun or not talk.begun]
    letters = [replace(talk.letter(from_client=True), place=Place.NETWORK, error=True) for talk in there]
    compare(gateway, letters, [expectation.error_arrival(talk) for talk in there])


def compare(gateway: Crossing, letters: list[Letter], expected: list[Arrival | None]) -> None:
    """Hold what arrives against what has to."""
    wrong = [
        f"{letter} from {letter.place.value}: decide says {wanted}, the kernel {arrival}"
        for letter, wanted, arrival in zip(letters, expected, gateway.send(letters), strict=True)
        if wanted != arrival
    ]
    assert not wrong, "\n".join(wrong)


ALICE, BOB, SITE, CAROL = CLIENTS
ALICES, BOBS, SITES, WEB = map(ip_address, ("10.80.0.2", "10.80.0.3", "10.81.0.1", "10.20.0.9"))
NAMED_HOST = rule(allow(str(OWN[0])), clients=[ALICE])
DIFFERENT_PORTS = (
    rule(allow(f"{WEB}/32", TCP, 80), clients=(ALICE, CAROL)),
    rule(allow(f"{WEB}/32", TCP, 81), clients=(BOB, SITE)),
)
EITHER_WAY = [[rule(allow("10.81.0.0/16"), clients=[ALICE])], [rule(allow("10.80.0.0/24"), clients=[SITE])]]
TO_WEB = rule(allow(f"{WEB}/32"), clients=[ALICE])
NETWORK_INSTEAD = [[TO_WEB], [replace(TO_WEB, allow=(), allow_from=(allow("0.0.0.0/0"),))]]
RARE = (
    # Policies of two clients each that differ in their ports alone.
    Example(
        [standing(*DIFFERENT_PORTS)],
        frozenset(),
        [
            Question(client, source, WEB, TCP, 20000 + index + port, port)
            for index, (client, source) in enumerate(((ALICE, ALICES), (BOB, BOBS)))
            for port in (80, 81)
        ],
        [],
    ),
    # An answer that nobody asked for, to an address of the gateway that a rule names.
    Example(
        [standing(NAMED_HOST)],
        frozenset(),
        [Question(ALICE, ALICES, OWN[0], TCP, 80, 20000, other_begins=True, answer_first=True)],
        [],
    ),
    # A flow whose rule is gone, while the one who answers may now begin one the other way.
    Example(
        [standing(*rules) for rules in EITHER_WAY], frozenset(), [Question(ALICE, ALICES, SITES, UDP, 20000, 80)], []
    ),
    # An error about a flow whose rule is gone, while the network may now begin one with the client.
    Example(
        [standing(*rules) for rules in NETWORK_INSTEAD], frozenset(), [Question(ALICE, ALICES, WEB, UDP, 20000, 80)], []
    ),
)


@example(RARE[0])
@example(RARE[1])
@example(RARE[2])
@example(RARE[3])
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(examples())
def test_the_kernel_does_what_decide_says(gateway: Crossing, tried: Example) -> None:
    """Every packet of a flow, in both directions, before and after each reload, arrives or does not as decide says."""
    gateway.forget()
    talks = [Conversation(question) for question in tried.questions]
    for config in tried.configs:
        gateway.load(config, tried.held)
        ask(gateway, config, talks)
        fail(gateway, config, talks)
        forge(gateway, config, [Conversation(question) for question in tried.forged])
