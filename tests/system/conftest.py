"""Fixtures of the system lane: roots and packages made once a run, machines made once a module."""

import os
from pathlib import Path

import pytest

from tests.machines.container import sweep_cgroups
from tests.machines.machine import SUITES, Machine
from tests.machines.office import Office
from tests.machines.packages import bare_root
from tests.machines.site import site as running_site

# A machine as somebody rents one, with no more than the tests themselves call.
BARE = ("systemd", "systemd-sysv", "dbus", "kmod", "iproute2", "iputils-ping", "curl", "procps")


def pytest_addoption(parser):
    parser.addoption("--suite", action="append", choices=SUITES, help="only this release of Debian; may be repeated")


def pytest_generate_tests(metafunc):
    if "suite" in metafunc.fixturenames:
        metafunc.parametrize("suite", metafunc.config.getoption("suite") or SUITES, scope="session")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Show the journals of the units that a failed test was about, and nothing else of its machines."""
    report = (yield).get_result()
    if report.failed:
        used = getattr(item, "funcargs", {}).values()
        machines = [value for value in used if isinstance(value, Machine)] or [
            machine for value in used if isinstance(value, Office) for machine in value.site.machines
        ]
        for machine in machines:
            for unit in machine.concerns:
                said = machine.shown_journal(unit, call.start)
                report.sections.append((f"journal of {unit} on {machine.name}", said))


@pytest.fixture(scope="session", autouse=True)
def _swept():
    sweep_cgroups()


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where roots and packages are kept for the whole run."""
    named = os.environ.get("WGD_TEST_CACHE")
    return Path(named) if named else tmp_path_factory.mktemp("cache")


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
