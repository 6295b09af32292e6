"""The packages on Debian's own kernel: what a container cannot show of the module and the sandbox."""

from tests.machines.machine import wait_until
from tests.machines.office import GATEWAY


def test_the_gateway_that_apt_has_started_is_up_on_the_kernels_own_wireguard(gateway):
    assert gateway.run("systemctl", "--failed", "--plain", "--no-legend") == ""
    assert gateway.run("systemctl", "is-active", GATEWAY) == "active\n"
    assert gateway.succeeds("wgd-server", "check")
    assert "wireguard" in gateway.run("ip", "-details", "link", "show", "wgd0").split()
    assert gateway.property(GATEWAY, "StatusText").startswith("enforce, ")


def test_the_module_is_loaded_from_within_the_sandbox(gateway):
    gateway.run("systemctl", "stop", GATEWAY)
    wait_until("the module is unloaded", lambda: gateway.succeeds("modprobe", "--remove", "wireguard"))
    assert "\nwireguard " not in gateway.run("lsmod")
    gateway.run("systemctl", "start", GATEWAY)
    assert "\nwireguard " in gateway.run("lsmod")
    assert gateway.property(GATEWAY, "CapabilityBoundingSet") == "cap_net_admin"
