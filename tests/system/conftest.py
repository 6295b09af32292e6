"""Fixtures of the system lane: roots and packages made once a run, machines made once a module."""

import pytest

from tests.machines.container import sweep_cgroups
from tests.machines.lane import cache, pytest_generate_tests, pytest_runtest_makereport
from tests.machines.office import Office
from tests.machines.packages import bare_root
from tests.machines.site import site as running_site

__all__ = ["cache", "pytest_generate_tests", "pytest_runtest_makereport"]

# A machine as somebody rents one, with no more than the tests themselves call.
BARE = ("systemd", "systemd-sysv", "dbus", "kmod", "iproute2", "iputils-ping", "curl", "procps")


@pytest.fixture(scope="session", autouse=True)
def _swept():
    sweep_cgroups()


@pytest.fixture(scope="session")
def root(suite, cache):
    return bare_root(cache, suite, BARE, ("wireguard-go", "nftables"))


@pytest.fixture(scope="session")
def site(suite, root, tmp_path_factory):
    with running_site(suite, root, tmp_path_factory.mktemp(suite)) as running:
        yield running


@pytest.fixture(scope="session")
def office(site):
    """wgd on the three machines, installed and at work. A test leaves it so."""
    made = Office(site)
    made.set_up()
    return made


@pytest.fixture
def gateway(office):
    return office.gateway
