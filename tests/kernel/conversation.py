"""What has to become of each packet of a flow: decide's answers, put together as the two directions need them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network

from crossing import Arrival, Letter, Place
from equivalence_examples import BROADCASTS, CLIENTS, OWN_UNICAST, PEERS, TUNNEL_BROADCASTS, Question
from packets import SCTP, TCP, Packet

from tests.unit.policy.policy_examples import OWN
from wgd.model import ICMP, ICMPV6, Address, AuthzMode, PublicKey, ServerConfig
from wgd.policy.decide import Decider, Flow, IncomingFlow

UNICAST_OWN = frozenset((*OWN_UNICAST[4], *OWN_UNICAST[6]))
DELIVERED = frozenset((*UNICAST_OWN, *BROADCASTS, *TUNNEL_BROADCASTS, ip_address("255.255.255.255")))
NOT_CARRIED = tuple(map(ip_network, ("0.0.0.0/32", "127.0.0.0/8", "224.0.0.0/4", "::1/128", "fe80::/10", "ff00::/8")))
"""Where IP itself sends nothing of a client's, whatever a ruleset says."""
CLIENT_NETWORKS = tuple(
    (ip_network(network), client) for client, (_, networks) in zip(CLIENTS, PEERS, strict=True) for network in networks
)
ANYCAST = frozenset(network[0] for network, _ in CLIENT_NETWORKS if network.version == 6 and network.prefixlen < 127)
"""What the kernel takes for subnet-router anycast addresses: nobody speaks from one."""
ASKS_BEFORE_ANSWER = frozenset((TCP, SCTP, ICMP, ICMPV6))
"""The protocols whose answers conntrack tells from what begins a flow: one that was not asked for is invalid."""


def client_at(address: Address) -> PublicKey | None:
    """Return the client that has the address."""
    return next((client for network, client in CLIENT_NETWORKS if address in network), None)


def place_of(address: Address) -> Place | None:
    """Return where a packet to this address arrives when it is let through, None for nowhere."""
    if address in DELIVERED:
        return Place.GATEWAY
    if any(address in network for network in NOT_CARRIED):
        return None
    return Place.NETWORK if client_at(address) is None else Place.CLIENTS


@dataclass
class Conversation:
    """A question on its way: what the kernel remembers of what its two ends have said.

    `begun`: there is a flow; `backwards`: it was the packet of the one who should have answered that began it.
    `answered`: an answer came through.
    """

    question: Question
    begun: bool = False
    backwards: bool = False
    answered: bool = False

    @property
    def other_speaks(self) -> bool:
        """Whether there is somebody at the other address who can send anything from it."""
        other = self.question.other
        place = place_of(other)
        return place is not None and (other in UNICAST_OWN if place is Place.GATEWAY else other not in ANYCAST)

    @property
    def client_begun(self) -> bool:
        """Whether there is a flow, and the client's packet began it."""
        return self.begun and self.question.other_begins == self.backwards

    def letter(self, *, from_client: bool) -> Letter:
        """Return what one of the ends sends next."""
        asked = self.question
        source, destination = (asked.source, asked.other) if from_client else (asked.other, asked.source)
        ports = (asked.client_port, asked.other_port)
        place = Place.CLIENTS if from_client else place_of(asked.other)
        assert place is not None
        packet = Packet(
            source,
            destination,
            asked.proto,
            *(ports if from_client else reversed(ports)),
            answers=self.is_answer(from_client=from_client),
            later=self.answered,
            options=asked.options,
        )
        return Letter(place, packet)

    def is_answer(self, *, from_client: bool) -> bool:
        """Tell whether what this end says is the answer."""
        return from_client == self.question.other_begins

    def is_valid(self, *, from_client: bool) -> bool:
        """Tell whether conntrack takes what this end says now for what it can be."""
        return (
            self.begun or not self.is_answer(from_client=from_client) or self.question.proto not in ASKS_BEFORE_ANSWER
        )

    def arrived(self, *, from_client: bool) -> None:
        """Note that a packet of this end was let through."""
        answer = self.is_answer(from_client=from_client)
        if self.begun:
            self.answered = self.answered or answer != self.backwards
        elif self.is_valid(from_client=from_client):
            self.begun, self.backwards = True, answer


class Expectation:
    """Where packets have to arrive under a config."""

    def __init__(self, config: ServerConfig) -> None:
        self._decider = Decider(config)
        self._now = time.time()
        entries = [entry for found in config.policy.rules for entry in found.allow]
        self._ports = {0, *(ports.first for entry in entries for ports in entry.ports)}
        self._observe = config.authz_mode is AuthzMode.OBSERVE

    def arrival(self, talk: Conversation, *, from_client: bool) -> Arrival | None:
        """Return where what one of the ends sends now has to arrive."""
        other = place_of(talk.question.other)
        place = other if from_client else Place.CLIENTS
        granted = self._is_granted(talk, from_client=from_client)
        if place is None or not (granted or self._observe):
            return None
        return Arrival(place, None if other is Place.GATEWAY else granted)

    def error_arrival(self, talk: Conversation) -> Arrival | None:
        """Return where an ICMP error has to arrive that the network sends about the client's packet."""
        asked = talk.question
        granted = talk.client_begun and any(
            self._allows(Flow(asked.client, asked.other, asked.proto, port)) for port in self._ports
        )
        return Arrival(Place.CLIENTS, granted) if granted or self._observe else None

    def forged_arrival(self, talk: Conversation) -> Arrival | None:
        """Return where a packet has to arrive that the network sends with another client's address."""
        asked = talk.question
        place = place_of(asked.source)
        client = client_at(asked.source)
        granted = client is not None and self._allows(IncomingFlow(client, asked.other, asked.proto, asked.client_port))
        if place is None or not (granted or self._observe):
            return None
        return Arrival(place, None if place is Place.GATEWAY else granted)

    def _is_granted(self, talk: Conversation, *, from_client: bool) -> bool:
        """Tell whether enforce lets a packet through: what counts is whether the one who began the flow still may."""
        from_gateway = not from_client and place_of(talk.question.other) is Place.GATEWAY
        if not (from_gateway or talk.is_valid(from_client=from_client)):
            return False
        # An IPv4 header with options is let through by nobody: they may hold a source route.
        if talk.question.options and isinstance(talk.question.source, IPv4Address) and not from_gateway:
            return False
        client_begins = talk.client_begun if talk.begun else from_client
        return self._client_may_begin(talk.question) if client_begins else self._other_may_begin(talk.question)

    def _client_may_begin(self, asked: Question) -> bool:
        return self._allows(Flow(asked.client, asked.other, asked.proto, asked.other_port))

    def _other_may_begin(self, asked: Question) -> bool:
        if place_of(asked.other) is Place.GATEWAY:
            return True
        other = client_at(asked.other)
        if other is None:
            return self._allows(IncomingFlow(asked.client, asked.other, asked.proto, asked.client_port))
        return self._allows(Flow(other, asked.source, asked.proto, asked.client_port))

    def _allows(self, flow: Flow | IncomingFlow) -> bool:
        return self._decider.decide(flow, (*OWN, *BROADCASTS), self._now).allowed
