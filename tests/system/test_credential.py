"""The private key as a credential of the service manager, by the drop-in that the package ships."""

from pathlib import Path

from tests.machines.office import GATEWAY

DROP_IN = Path(__file__).parents[2] / "packaging/examples/private-key-credential.conf"
PLACE = f"/etc/systemd/system/{GATEWAY}.service.d/private-key.conf"
CONFIG, KEY = "/etc/wgd/server.yaml", "/etc/wgd/server.key"
CREDENTIAL = "/etc/credstore/wgd-private.key"


def test_the_key_can_be_a_credential_that_the_daemon_cannot_read_otherwise(office):
    gateway = office.gateway
    config = gateway.read(CONFIG)
    without = "".join(line for line in config.splitlines(keepends=True) if "private_key_file" not in line)
    gateway.write(PLACE, DROP_IN.read_text())
    gateway.run("install", "-D", "--mode=0600", KEY, CREDENTIAL)
    gateway.run("chmod", "0600", KEY)
    gateway.write(CONFIG, without, "0640", "wgd")
    try:
        gateway.run("systemctl", "daemon-reload")
        gateway.run("systemctl", "restart", GATEWAY)
        office.assert_enforced()
    finally:
        gateway.run("rm", PLACE, CREDENTIAL)
        gateway.run("chmod", "0640", KEY)
        gateway.write(CONFIG, config, "0640", "wgd")
        gateway.run("systemctl", "daemon-reload")
        gateway.run("systemctl", "restart", GATEWAY)
