"""What the lanes with machines share: their releases of Debian, their cache, and what a failure shows."""

import os
from pathlib import Path

import pytest

from tests.machines.machine import SUITES, Machine
from tests.machines.office import Office


def pytest_generate_tests(metafunc):
    if "suite" in metafunc.fixturenames:
        wanted = metafunc.config.getoption("suite") or SUITES
        if not set(wanted) <= set(SUITES):
            raise pytest.UsageError(f"--suite {' '.join(wanted)}: there are {', '.join(SUITES)}")
        metafunc.parametrize("suite", wanted, scope="session")


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


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where roots and packages are kept for the whole run."""
    named = os.environ.get("WGD_TEST_CACHE")
    return Path(named) if named else tmp_path_factory.mktemp("cache")
