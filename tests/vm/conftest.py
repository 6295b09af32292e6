"""Fixtures of the vm lane: an image made once a run, a machine of each release that boots it and gets the packages."""

import shutil

import pytest

from tests.machines.household import ALLOWED, NETWORK, Household
from tests.machines.lane import cache, pytest_generate_tests, pytest_runtest_makereport
from tests.machines.machine import wait_until
from tests.machines.office import GATEWAY, add_repository, install
from tests.machines.packages import bare_root, made_once
from tests.machines.virtual import INITRD_MODULES, VirtualMachine, make_image

__all__ = ["cache", "pytest_generate_tests", "pytest_runtest_makereport"]

# The packages' dependencies are there already: emulated, their compilation by dpkg takes longer than all the tests.
# That the packages bring them along is shown by the system lane.
BARE = (
    *("linux-image-cloud-amd64", "initramfs-tools", "systemd", "systemd-sysv", "dbus", "udev", "kmod", "procps"),
    *("iproute2", "iputils-ping", "curl", "nftables", "wireguard-tools", "logrotate"),
    *("python3-pyroute2", "python3-yaml", "python3-systemd", "python3-nftables", "python3-voluptuous"),
)


@pytest.fixture(scope="session")
def image(suite, cache):
    root = bare_root(cache, suite, BARE, (), "virtual", INITRD_MODULES)

    def make(making):
        # Emulated, apt takes a minute to read the lists of all of Debian, of which nothing is wanted any more.
        (root / "etc/apt/sources.list").unlink()
        for read in ("var/lib/apt/lists", "var/cache/apt"):
            shutil.rmtree(root / read)
        make_image(making, root)

    return made_once(cache / f"image-{suite}", make)


@pytest.fixture(scope="session")
def gateway(suite, image, tmp_path_factory):
    """A machine with the packages as apt has left them: nothing has been configured or started by hand."""
    machine = VirtualMachine("gateway", suite, image, tmp_path_factory.mktemp(f"vm-{suite}"))
    try:
        machine.boot()
        machine.concerns = [GATEWAY]
        add_repository(machine)
        install(machine, "wgd-server", "wgd-client", "wgd-protected-resource")
        yield machine
    finally:
        machine.remove()


@pytest.fixture(scope="session")
def household(gateway):
    """The machine as the gateway between a client and a network, each in a namespace of it."""
    made = Household(gateway)
    made.set_up()
    return made


@pytest.fixture
def split(household):
    """The same with the client connected by wg-quick, through a tunnel that leads to the network alone."""
    with household.wg_quick(*NETWORK):
        wait_until("the client gets through", lambda: household.fetch(ALLOWED[0]))
        yield household
