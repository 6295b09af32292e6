"""The story as its reader tries it: a gateway, a client and a resource, installed by name."""

import pytest

from tests.machines.machine import wait_until
from tests.machines.office import ALLOWED, CLIENT, DENIED, GATEWAY, RESOURCE


def test_what_is_granted_passes_and_nothing_else(office):
    office.assert_enforced()


def test_every_flow_and_every_denial_has_its_line(office):
    before = len(office.events(event="open")), len(office.events(event="deny"))
    assert office.fetch(ALLOWED[0])
    assert not office.fetch(DENIED[1])
    wait_until("a line for the flow", lambda: len(office.events(event="open")) > before[0])
    wait_until("a line for the denial", lambda: len(office.events(event="deny")) > before[1])
    opened, denied = office.events(event="open")[-1], office.events(event="deny")[-1]
    assert (opened["client"], opened["dst_ip"], opened["dst_port"], opened["rule"]) == (
        "alice",
        "10.20.0.10",
        8080,
        "alice to the resource[0]",
    )
    assert (denied["client"], denied["dst_ip"], denied["verdict"]) == ("alice", "fd20::11", "deny")


def test_every_unit_is_up_and_says_in_one_line_how_it_is(office):
    for machine, unit in ((office.gateway, GATEWAY), (office.client, CLIENT), (office.resource, RESOURCE)):
        assert machine.run("systemctl", "--failed", "--plain", "--no-legend") == ""
        assert machine.is_active(unit)
    # The handshake is told at the next look at the peers, which the kernel does not notify of.
    said = "enforce, 1 peer, events to /var/log/wgd/events.jsonl, 1 live"
    wait_until("a status with the peer", lambda: office.gateway.property(GATEWAY, "StatusText").startswith(said))
    wait_until("the client's status", lambda: office.client.property(CLIENT, "StatusText").endswith("; connected"))


def test_the_log_is_for_the_daemon_and_for_adm(gateway):
    assert gateway.run("stat", "-c", "%A %U:%G", "/var/log/wgd", "/var/log/wgd/events.jsonl").splitlines() == [
        "drwxr-s--- wgd:adm",
        "-rw-r----- wgd:adm",
    ]


@pytest.mark.parametrize("path", ["/etc/wgd/server.key", "/etc/wgd/server.yaml"])
def test_the_installation_wrote_a_file_that_only_the_daemon_may_read(gateway, path):
    assert gateway.run("stat", "-c", "%a %U:%G", path).strip() == "640 root:wgd"
    assert gateway.succeeds("wgd-server", "check")
