"""`packet reply`: an answer passes by the rule for the end that began, and is named by it."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from event_schema import checked
from nflog_messages import ALICE, BOB, DIGEST, INTERFACES, NOW, config, ipv4, ipv6, message

from wgd.events import decoder as decoder_module
from wgd.events.decoder import Decoder
from wgd.events.names_book import NamesBook
from wgd.model import AllowRule, Policy, PortRange, Rule
from wgd.policy.names import names

WEB, SSH = (PortRange(443, 443),), (PortRange(22, 22),)
RULES = (
    Rule("out", (ALICE,), (AllowRule(ip_network("10.20.0.0/16"), 6, WEB), AllowRule(ip_network("fd20::/64"), 6, WEB))),
    Rule("ping", (ALICE,), (AllowRule(ip_network("10.20.0.0/16"), 1),)),
    Rule("in", (ALICE,), (), allow_from=(AllowRule(ip_network("10.20.0.10/32"), 6, SSH),)),
    Rule("peer", (BOB,), (AllowRule(ip_network("10.80.0.2/32"), 6, SSH),)),
    Rule("gateway", (BOB,), (AllowRule(ip_network("10.20.0.0/24"), 17), AllowRule(ip_network("10.20.0.1/32"), 17))),
)
WGD0, INNER = 7, 2


def ports(source: int, destination: int) -> bytes:
    return struct.pack("!HHI", source, destination, 0)


def book() -> NamesBook:
    made = NamesBook()
    made.add(names(replace(config(), policy=Policy(RULES)), DIGEST))
    return made


ANSWERS: dict[str, tuple[bytes, int | None, int | None, str, str]] = {
    "the network to a client": (ipv4("10.20.0.10", "10.80.0.2", 6, ports(443, 40000)), INNER, WGD0, "alice", "out[0]"),
    "the same, ipv6": (ipv6("fd20::10", "fd80::2", 6, ports(443, 40000)), INNER, WGD0, "alice", "out[1]"),
    "a ping's": (ipv4("10.20.0.10", "10.80.0.2", 1, bytes(8)), INNER, WGD0, "alice", "ping[0]"),
    "a client to the network": (
        ipv4("10.80.0.2", "10.20.0.10", 6, ports(22, 40000)),
        *(WGD0, INNER, "alice", "in.allow_from[0]"),
    ),
    "a client to another": (ipv4("10.80.0.2", "10.80.0.3", 6, ports(22, 40000)), WGD0, WGD0, "bob", "peer[0]"),
    "the gateway to a client": (ipv4("10.20.0.1", "10.80.0.3", 17, ports(53, 999)), None, WGD0, "bob", "gateway[1]"),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_named_by_what_let_the_flow_begin(
    answer: tuple[bytes, int | None, int | None, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    payload, indev, outdev, client, rule = answer
    decoder = Decoder(book(), INTERFACES.get)
    one: dict[str, Any] = {"prefix": f"packet reply {DIGEST}", "indev": indev, "outdev": outdev}
    first = decoder.decode(message(payload, **one), len(message(payload, **one)), NOW)
    # From the second on a message of the kind takes the short way.
    monkeypatch.setattr(decoder_module, "walk", None)
    data = message(payload, sequence=1, **one) + message(payload, sequence=2, **one)
    lines = checked(first.text) + checked(decoder.decode(data, len(data), NOW).text)
    assert lines[0] == lines[1] == lines[2]
    line = lines[0]
    assert (line["event"], line["verdict"], line["client"], line.get("rule")) == ("packet", "allow", client, rule)


def test_the_clients_own_port_makes_no_answer_new() -> None:
    decoder = Decoder(book(), INTERFACES.get)
    data = b"".join(
        message(
            ipv4("10.20.0.10", "10.80.0.2", 6, ports(443, port)),
            prefix=f"packet reply {DIGEST}",
            indev=INNER,
            outdev=WGD0,
            sequence=port - 40000,
        )
        for port in range(40000, 40050)
    )
    lines = checked(decoder.decode(data, len(data), NOW).text)
    assert [(line["src_port"], line["dst_port"]) for line in lines] == [(443, port) for port in range(40000, 40050)]
    assert sum(len(form.known) for form in decoder._forms.values()) == 1
