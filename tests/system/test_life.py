"""What becomes of sessions, events and locks when the gateway's daemon or its machine ends and begins again."""

import time

import pytest

from tests.machines.machine import wait_until
from tests.machines.office import ALLOWED, CLIENT, DENIED, EVENTS, GATEWAY, RESOURCE
from tests.machines.traffic import accounted, settled, traffic

INTERFACE = "wgd-server-interface"
DROP_IN = f"/run/systemd/system/{GATEWAY}.service.d/test.conf"


@pytest.fixture
def drop_in(gateway):
    """Set something in the gateway's unit, until the test is over; the unit has to be restarted for it."""

    def write(text):
        gateway.write(DROP_IN, text)
        gateway.run("systemctl", "daemon-reload")

    yield write
    gateway.run("rm", "-f", DROP_IN)
    gateway.run("systemctl", "daemon-reload")
    gateway.run("systemctl", "restart", GATEWAY)


def restarted(gateway, before):
    """Tell whether another daemon than `before` is ready."""
    return gateway.is_active(GATEWAY) and gateway.main_pid(GATEWAY) not in (0, before)


def survives(office, happening):
    """Hold that what happens to the daemon costs no session and no event, and opens nothing."""
    gateway, before = office.gateway, office.gateway.main_pid(GATEWAY)
    known = accounted(office)
    with traffic(office) as seen:
        time.sleep(0.3)
        happening()
        wait_until("another daemon is ready", lambda: restarted(gateway, before))
        time.sleep(0.3)
    assert seen.denied == 0
    assert seen.lines == seen.sent
    assert seen.allowed == seen.sent
    assert settled(office, known + seen.sent) == known + seen.sent
    office.assert_enforced()


def connected_again(office):
    """Wait for a new session, the old one having ended with the interface, and hold that it is enforced."""
    wait_until("the client gets through", lambda: office.fetch(ALLOWED[0]))
    office.assert_enforced()


def test_a_restart_loses_no_session_and_no_event_and_opens_nothing(office):
    survives(office, lambda: office.gateway.run("systemctl", "restart", GATEWAY))


def test_sigkill_of_the_daemon_loses_no_session_and_opens_nothing(office):
    survives(office, lambda: office.gateway.run("systemctl", "kill", "--signal=KILL", "--kill-who=main", GATEWAY))


def test_a_daemon_that_hangs_is_replaced_by_the_watchdog(office, drop_in):
    drop_in("[Service]\nWatchdogSec=2s\n")
    office.gateway.run("systemctl", "restart", GATEWAY)
    survives(office, lambda: office.gateway.run("systemctl", "kill", "--signal=STOP", "--kill-who=main", GATEWAY))


def test_a_stop_takes_everything_down_and_opens_nothing(office):
    gateway = office.gateway
    with traffic(office) as seen:
        gateway.run("systemctl", "stop", GATEWAY)
        wait_until("all is taken down", lambda: gateway.property(INTERFACE, "ActiveState") == "inactive")
        assert "wgd" not in gateway.run("nft", "list", "tables")
        assert "7780" not in gateway.run("ip", "rule")
        gateway.run("systemctl", "start", GATEWAY)
    assert seen.denied == 0
    connected_again(office)


def test_a_restart_with_a_config_that_is_wrong_fails_closed_and_stays_down(office):
    gateway = office.gateway
    gateway.write("/etc/wgd/server.d/wrong.yaml", "authz_mode: perhaps\n", "0640", "wgd")
    try:
        assert not gateway.succeeds("systemctl", "restart", GATEWAY)
        wait_until("the unit has failed", lambda: gateway.property(GATEWAY, "ActiveState") == "failed")
        assert gateway.property(GATEWAY, "ExecMainStatus") == "78"
        wait_until("all is taken down", lambda: gateway.property(INTERFACE, "ActiveState") == "inactive")
        assert not [url for url in (*ALLOWED, *DENIED) if office.fetch(url)]
    finally:
        gateway.run("rm", "/etc/wgd/server.d/wrong.yaml")
        gateway.run("systemctl", "restart", GATEWAY)
    connected_again(office)


def test_everything_that_was_enabled_is_there_after_a_reboot(office):
    for machine, unit in ((office.gateway, GATEWAY), (office.client, CLIENT), (office.resource, RESOURCE)):
        machine.reboot()
        machine.wait_active(unit)
        assert machine.run("systemctl", "--failed", "--plain", "--no-legend") == ""
    connected_again(office)


def test_a_rotation_loses_no_event(office):
    known = accounted(office)
    with traffic(office) as seen:
        office.gateway.run("logrotate", "--force", "/etc/logrotate.d/wgd-server")
        wait_until("a new file is begun", lambda: office.gateway.succeeds("test", "-e", EVENTS))
    rotated = accounted(office, f"{EVENTS}.1")
    assert settled(office, known + seen.sent - rotated) == known + seen.sent - rotated
