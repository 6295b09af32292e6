"""Other services of the machine that are restarted beside the gateway."""

from tests.machines.machine import wait_until
from tests.machines.office import GATEWAY

OURS = (
    ("ip", "-oneline", "address", "show", "dev", "wgd0"),
    ("ip", "rule"),
    ("ip", "-6", "rule"),
    ("ip", "route", "show", "table", "7780"),
    ("ip", "-6", "route", "show", "table", "7780"),
)


def test_nftables_restarted_takes_our_table_for_a_moment_and_opens_nothing(split):
    gateway = split.gateway
    before = len(split.events(event="drift", action="restored"))
    assert "flush ruleset" in gateway.read("/etc/nftables.conf")
    gateway.run("systemctl", "restart", "nftables.service")
    wait_until("a line for the repair", lambda: len(split.events(event="drift", action="restored")) > before)
    wait_until("our table is back", lambda: "table inet wgd" in gateway.run("nft", "list", "tables"))
    split.assert_enforced()
    assert gateway.is_active(GATEWAY)


def test_networkd_restarted_leaves_our_rules_addresses_and_routes(split):
    gateway = split.gateway
    before = {command: gateway.run(*command) for command in OURS}
    drift = len(split.events(event="drift"))
    assert all(before.values())
    gateway.run("systemctl", "restart", "systemd-networkd.service")
    gateway.run("/usr/lib/systemd/systemd-networkd-wait-online", "--interface=outer", "--interface=inner")
    assert {command: gateway.run(*command) for command in OURS} == before
    split.assert_enforced()
    assert len(split.events(event="drift")) == drift
