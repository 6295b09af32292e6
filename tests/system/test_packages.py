"""What apt does with the packages: upgrade, remove, purge."""

import pytest

from tests.machines.container import Container
from tests.machines.machine import wait_until
from tests.machines.network import network
from tests.machines.office import GATEWAY, add_repository, install
from tests.machines.packages import PACKAGES, REPOSITORY
from tests.machines.traffic import accounted, settled, traffic

OLDER = "0.0.1"
# The same packages under a lower version.
REPACK = f"""
rm -rf /tmp/older && mkdir /tmp/older && cd /tmp/older
for package in wgd-server python3-wgd; do
    dpkg-deb --raw-extract {REPOSITORY}/pool/*/"$package"_*.deb "$package"
    sed -i -e 's/^Version: .*/Version: {OLDER}/' -e 's/python3-wgd (= [^)]*)/python3-wgd (= {OLDER})/' \\
        "$package/DEBIAN/control"
    dpkg-deb --build --root-owner-group "$package" "$package.deb" >/dev/null
done
apt-get --yes --no-install-recommends --allow-downgrades install ./wgd-server.deb ./python3-wgd.deb
"""
FILES = "find / -xdev ( -path /proc -o -path /sys -o -path /tmp -o -path /srv -o -path /var/lib/apt ) -prune -o -print"


def test_an_upgrade_keeps_config_sessions_events_and_locks(office):
    gateway = office.gateway
    gateway.shell(REPACK)
    gateway.wait_active(GATEWAY)
    config, daemon = gateway.read("/etc/wgd/server.yaml"), gateway.main_pid(GATEWAY)
    known = accounted(office)
    with traffic(office) as seen:
        install(gateway, "wgd-server")
    assert OLDER not in gateway.run("dpkg-query", "--show", "wgd-server", "python3-wgd")
    assert gateway.main_pid(GATEWAY) not in (0, daemon)
    assert gateway.read("/etc/wgd/server.yaml") == config
    assert (seen.denied, seen.lines, seen.allowed) == (0, seen.sent, seen.sent)
    assert settled(office, known + seen.sent) == known + seen.sent
    office.assert_enforced()


@pytest.fixture
def bare(suite, root, tmp_path):
    """A machine on which nothing is installed yet, and that is connected to nothing."""
    with network() as net:
        machine = Container("bare", suite, root, tmp_path / "bare", network=net)
        try:
            machine.boot()
            yield machine
        finally:
            machine.remove()


def ours(machine):
    """The files and folders of a machine that can only be from these packages."""
    return sorted(path for path in machine.run(*FILES.split()).splitlines() if "wgd" in path)


def test_remove_stops_everything_and_purge_leaves_nothing_but_the_system_user(bare):
    before = ours(bare)
    add_repository(bare)
    install(bare, *PACKAGES, "wireguard-go", "nftables")
    bare.concerns = [GATEWAY]
    bare.run("systemctl", "enable", "--now", "wgd-userspace@wgd0.service")
    bare.wait_active(GATEWAY)
    key = bare.read("/etc/wgd/server.key")

    bare.run("apt-get", "--yes", "remove", *PACKAGES)
    wait_until("the rules are gone", lambda: "wgd" not in bare.run("nft", "list", "tables"))
    assert "7780" not in bare.run("ip", "rule")
    assert bare.run("systemctl", "list-units", "--plain", "--no-legend", "--state=active", "wgd-server*") == ""
    assert bare.read("/etc/wgd/server.key") == key

    bare.run("apt-get", "--yes", "purge", *PACKAGES, "python3-wgd")
    bare.run("rm", "/etc/apt/sources.list.d/wgd.sources")
    assert [path for path in ours(bare) if path not in before] == []
    assert bare.succeeds("getent", "passwd", "wgd")


def test_an_installation_never_overwrites_a_key_or_a_config(bare):
    bare.write("/etc/wgd/server.yaml", "authz_mode: enforce\n")
    bare.write("/etc/wgd/server.key", "mine\n", "0600")
    add_repository(bare)
    install(bare, "wgd-server")
    assert (bare.read("/etc/wgd/server.yaml"), bare.read("/etc/wgd/server.key")) == ("authz_mode: enforce\n", "mine\n")
