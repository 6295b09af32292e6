"""systemctl reload: applied, or refused with the reasons while the service goes on."""

import pytest

from tests.machines.machine import wait_until
from tests.machines.office import ALLOWED, DENIED, GATEWAY


@pytest.fixture
def added(gateway):
    """Write a drop-in of the gateway's config, which is gone and forgotten after the test."""
    path = "/etc/wgd/server.d/added.yaml"
    yield lambda text: gateway.write(path, text, "0640", "wgd")
    gateway.run("rm", "-f", path)
    gateway.run("systemctl", "reload", GATEWAY)


def test_a_reload_grants_more_and_takes_it_back(office, added):
    rule = "{client_id: alice, allow: [{to: 10.20.0.11, proto: tcp, ports: [8080]}]}"
    added(f"policy: {{rules: [{rule}]}}\n")
    daemon = office.gateway.main_pid(GATEWAY)
    office.gateway.run("systemctl", "reload", GATEWAY)
    assert (office.fetch(DENIED[0]), office.fetch(DENIED[1])) == (True, False)
    added("policy: {rules: []}\n")
    office.gateway.run("systemctl", "reload", GATEWAY)
    office.assert_enforced()
    assert office.gateway.main_pid(GATEWAY) == daemon


def test_a_reload_that_is_refused_fails_says_why_and_changes_nothing(office, added):
    cursor, daemon = office.gateway.cursor(), office.gateway.main_pid(GATEWAY)
    added("policy: {rules: [{client_id: carol, allow: [10.20.0.0/24]}]}\n")
    assert not office.gateway.succeeds("systemctl", "reload", GATEWAY)
    assert office.gateway.is_active(GATEWAY)
    assert office.gateway.main_pid(GATEWAY) == daemon
    said = office.gateway.said(GATEWAY, cursor)
    assert said[0] == "reload refused:"
    assert "/etc/wgd/server.d/added.yaml:1: policy.rules[0].client_id" in said[1]
    assert "refused" in office.gateway.property(GATEWAY, "StatusText")
    office.assert_enforced()


def test_the_rules_come_back_when_somebody_flushes_them(office):
    cursor = office.gateway.cursor()
    office.gateway.run("nft", "flush", "ruleset")
    wait_until("the repair is told", lambda: office.gateway.said(GATEWAY, cursor))
    assert office.fetch(ALLOWED[0])
    office.assert_enforced()
