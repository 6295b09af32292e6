"""What the packages are made of: units, examples, version."""

import re
import shlex
from pathlib import Path

import pytest

from wgd import __version__, protected_resource
from wgd.cli import client, server

CHECKOUT = Path(__file__).parents[2]
PACKAGING = CHECKOUT / "packaging"
UNITS = sorted((CHECKOUT / "systemd").iterdir())
PARSERS = {made().prog: made for made in (server.arguments, client.arguments, protected_resource.arguments)}


def settings(unit: Path, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def test_the_packages_have_the_version_of_the_program() -> None:
    first_line = (PACKAGING / "debian/changelog").read_text().splitlines()[0]
    assert re.match(r"wgd \((.*)\) ", first_line)[1] == __version__


def test_every_unit_is_installed() -> None:
    rules = (PACKAGING / "debian/rules").read_text()
    assert [unit.name for unit in UNITS if f" systemd/{unit.name} " not in rules] == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_commands_of_a_unit_are_commands_of_the_program(unit: Path) -> None:
    lines = [line for name in ("ExecStart", "ExecReload", "ExecStop") for line in settings(unit, name)]
    assert lines
    for line in lines:
        path, *words = shlex.split(line.replace("%i", "office"))
        program = Path(path).name
        assert path == f"/usr/bin/{program}"
        if program != "wireguard-go":
            PARSERS[program]().parse_args(words)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_runs_as_wgd_with_one_capability_or_none(unit: Path) -> None:
    assert settings(unit, "User") == settings(unit, "Group") == ["wgd"]
    bounds = settings(unit, "CapabilityBoundingSet")
    assert bounds == (["CAP_NET_ADMIN"] if "resource" not in unit.name else [""])
    assert settings(unit, "AmbientCapabilities") == [bound for bound in bounds if bound]
    assert settings(unit, "NoNewPrivileges") == ["yes"]
    # Keys are in its memory.
    assert settings(unit, "LimitCORE") == ["0"]


@pytest.mark.parametrize("name", ["wgd-server", "wgd-client@"])
def test_a_config_that_is_wrong_is_not_tried_again(name: str) -> None:
    unit = CHECKOUT / f"systemd/{name}.service"
    assert settings(unit, "Restart") == ["on-failure"]
    assert settings(unit, "RestartPreventExitStatus") == ["78"]


@pytest.mark.parametrize("kind", ["credential", "encrypted"])
def test_the_examples_give_the_private_key_by_the_name_that_is_read(kind: str) -> None:
    example = (PACKAGING / f"examples/private-key-{kind}.conf").read_text()
    section, line = example[example.index("[Service]") :].splitlines()
    assert section == "[Service]"
    assert re.fullmatch(r"LoadCredential(Encrypted)?=private\.key:/etc/credstore(\.encrypted)?/\S+", line)
