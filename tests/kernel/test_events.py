"""`wgd-server events` on the log of a real gateway, while it is written and rotated."""

from __future__ import annotations

import json
import signal

import pytest
from world import PYTHON, World, wait_until

POLICY = """
  rules:
    - name: web
      client_id: alice
      allow:
        - {to: 10.20.0.10, proto: tcp, ports: [8080]}
        - {to: 'fd20::10', proto: tcp, ports: [8080]}
"""


@pytest.fixture(scope="module")
def gateway(serving):
    with serving(POLICY) as made:
        for family in (0, 1):
            assert made.alice.gets(World.LAN[family])
            made.event(event="open", client="alice", dst_ip=World.LAN[family])
            assert not made.bob.gets(World.LAN[family])
            made.event(event="deny", client="bob", dst_ip=World.LAN[family])
        yield made


def shown(made, *words):
    return made.gateway(PYTHON, "-m", "wgd.cli.server", "events", "--config", str(made.server_yaml), *words)


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_a_filter_finds_who_was_denied_where_and_leaves_out_who_was_not(gateway, family):
    denied = shown(gateway, "--json", "--verdict", "deny", "--to", World.LAN[family]).splitlines()
    assert {(json.loads(line)["client"], json.loads(line)["dst_ip"]) for line in denied} == {("bob", World.LAN[family])}
    opened = shown(gateway, "--json", "--event", "open", "--port", "8080", "--to", World.LAN[family]).splitlines()
    assert {json.loads(line)["client"] for line in opened} == {"alice"}


def test_every_line_is_shown_as_it_stands_and_told_in_words(gateway):
    stands = gateway.events.read_text()
    assert shown(gateway, "--json").startswith(stands)
    told = shown(gateway).splitlines()
    assert told[0].endswith("the gateway has started")
    assert any(f"{World.LAN[0]}:8080" in line and "web[0]" in line for line in told)


def test_a_follower_shows_each_line_once_over_a_rotation(gateway):
    words = ("events", "-f", "-n", "all", "--json", "--config", str(gateway.server_yaml))
    following = gateway.gateway.start(PYTHON, "-m", "wgd.cli.server", *words)
    wait_until("what was there", lambda: following.output.startswith(gateway.events.read_text()))
    old = gateway.events.rename(gateway.events.with_name(f"{gateway.events.name}.1"))
    assert not gateway.bob.gets(World.LAN[0], 9001)
    wait_until("what came before the reopen", lambda: '"dst_port":9001,' in following.output)
    gateway.daemon.send(signal.SIGUSR1)
    wait_until("the new file", gateway.events.exists)
    assert not gateway.bob.gets(World.LAN[0], 9002)
    wait_until("what came after it", lambda: '"dst_port":9002,' in gateway.events.read_text())
    wait_until("the whole", lambda: following.output == old.read_text() + gateway.events.read_text())
