"""What an operator reads in `journalctl -u`: every line has a reason to be there."""

import re

from tests.machines.machine import wait_until
from tests.machines.office import DENIED, GATEWAY, RESOURCE


def test_a_restart_of_the_gateway_says_two_things(office):
    cursor = office.gateway.cursor()
    office.gateway.run("systemctl", "restart", GATEWAY)
    said = office.gateway.said(GATEWAY, cursor)
    assert said == [
        "stopping; what was set stays up",
        "wgd0 is ready: enforce, 1 peer, events to /var/log/wgd/events.jsonl",
    ]


def test_a_reload_says_one_thing(office):
    cursor = office.gateway.cursor()
    office.gateway.run("systemctl", "reload", GATEWAY)
    assert office.gateway.said(GATEWAY, cursor) == [
        "reloaded: enforce, 1 peer, events to /var/log/wgd/events.jsonl",
    ]


def test_traffic_says_nothing(office):
    cursor = office.gateway.cursor()
    office.assert_enforced()
    assert office.gateway.said(GATEWAY, cursor) == []


def test_events_are_in_the_journal_too_where_the_config_says_so(office):
    gateway = office.gateway
    gateway.write("/etc/wgd/server.d/journal.yaml", "logging: {journal: true}\n", "0640", "wgd")
    try:
        gateway.run("systemctl", "reload", GATEWAY)
        cursor = gateway.cursor()
        assert not office.fetch(DENIED[0])
        denied = wait_until("the denial", lambda: gateway.journal(GATEWAY, cursor, {"WGD_EVENT": "deny"}))
        assert (denied[0]["WGD_CLIENT"], denied[0]["WGD_DST_IP"]) == ("alice", "10.20.0.11")
    finally:
        gateway.run("rm", "/etc/wgd/server.d/journal.yaml")
        gateway.run("systemctl", "reload", GATEWAY)


def test_the_resource_says_where_it_listens(office):
    said = " ".join(office.resource.said(RESOURCE))
    assert re.search(r"listening on \[::\]:8080", said)
    assert "Traceback" not in said
