"""What the units may do, as systemd itself judges it."""

import pytest

UNITS = ("wgd-server.service", "wgd-client@office.service", "wgd-protected-resource.service")
MOST = {"wgd-server.service": 1.2, "wgd-client@office.service": 1.6, "wgd-protected-resource.service": 1.5}


def machine_of(office, unit):
    machines = {"server": office.gateway, "client": office.client, "protected": office.resource}
    return next(machine for part, machine in machines.items() if unit.startswith(f"wgd-{part}"))


@pytest.mark.parametrize("unit", UNITS)
def test_the_exposure_is_low(office, unit):
    threshold = str(round(MOST[unit] * 10))
    code, said = machine_of(office, unit).answer("systemd-analyze", "security", f"--threshold={threshold}", unit)
    assert code == 0, said


@pytest.mark.parametrize("unit", [*UNITS, "wgd-server-interface.service", "wgd-client-interface@office.service"])
def test_systemd_finds_nothing_wrong_with_the_unit(office, unit):
    machine = machine_of(office, unit)
    path = machine.property(unit, "FragmentPath")
    assert machine.answer("systemd-analyze", "verify", "--man=no", path) == (0, "")
