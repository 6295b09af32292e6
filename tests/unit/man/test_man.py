"""The manual pages say what the programs do: each command, option, config key and field, and none that is not there."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from wgd import protected_resource
from wgd.cli import client, server
from wgd.config import allow, fragment, policy
from wgd.config import client as client_config
from wgd.config.client import load_client
from wgd.config.schema import Section
from wgd.config.server import SourceFile, load_server
from wgd.events.lines import gateway_line
from wgd.events.words import WHY_LOST

MAN = Path(__file__).parents[3] / "packaging/man"
SCHEMA: dict[str, Any] = json.loads(files("wgd.events").joinpath("schema.json").read_text())
PAGES = {
    "wgd-server.8", "wgd-client.8", "wgd-protected-resource.8", "wgd-server.yaml.5", "wgd-client.yaml.5", "wgd-events.5"
}  # fmt: skip
PROGRAMS = {
    "wgd-server.8": server.arguments(),
    "wgd-client.8": client.arguments(),
    "wgd-protected-resource.8": protected_resource.arguments(),
}
OF_THE_HOST = ("referenced manual not found", "outdated mandoc.db")
"""Which other pages this machine has is none of our mistakes."""

Options = set[str]


def text(page: str) -> str:
    return (MAN / page).read_text()


def sections(page: str, level: str) -> Iterator[tuple[str, str]]:
    """Yield title and text of each section (.Sh) or subsection (.Ss); a subsection ends where a section begins."""
    for part in re.split(r"(?m)^\.(?=S[hs] )", text(page)):
        title, _, rest = part.partition("\n")
        if title.startswith(f"{level} "):
            yield title[3:], rest


def options_of(page_text: str) -> Options:
    """Return what the items of lists are about: `--config`, `-n`, and arguments by their names."""
    found = set()
    for item in re.findall(r"(?m)^\.It (.*)", page_text):
        found |= {f"-{name}" for name in re.findall(r"Fl (\S+)", item)}
        if item.startswith("Ar "):
            found.add(item[3:])
    return found


def synopsis_of(page_text: str) -> Options:
    """Return the same of the lines that show a command with its options."""
    found = set()
    for line in re.findall(r"(?m)^\.(?:Op|Ar|Fl) .*", page_text.partition(".Pp")[0]):
        found |= {f"-{name}" for name in re.findall(r"Fl (\S+)", line)}
        if "Fl" not in line:
            found.add(line.rpartition("Ar ")[2])
    return found


def taken(parser: argparse.ArgumentParser) -> Options:
    """Return what a parser takes, but for --help."""
    found: Options = set()
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
            found |= set(action.option_strings or [str(action.metavar)])
    return found


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def test_there_is_a_page_for_each_program_and_each_file() -> None:
    assert {path.name for path in MAN.iterdir()} == PAGES


@pytest.mark.parametrize("page", sorted(PAGES))
def test_mandoc_finds_nothing_to_mend(page: str) -> None:
    done = subprocess.run(["mandoc", "-Tlint", str(MAN / page)], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert [line for line in said if not any(known in line for known in OF_THE_HOST)] == []


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_page_of_ours_that_is_referred_to_is_there(page: str) -> None:
    named = {f"{name}.{section}" for name, section in re.findall(r"(?m)^\.Xr (wgd\S*) (\d)", text(page))}
    assert named <= PAGES


@pytest.mark.parametrize("page", sorted(PROGRAMS))
def test_a_page_has_the_options_of_the_program(page: str) -> None:
    described = dict(sections(page, "Sh"))["OPTIONS"]
    assert options_of(described) == taken(PROGRAMS[page]) | {"-h", "--help"}


@pytest.mark.parametrize("page", ["wgd-server.8", "wgd-client.8"])
def test_a_page_has_the_commands_of_the_program(page: str) -> None:
    assert {title for title, _ in sections(page, "Ss")} == set(commands(PROGRAMS[page]))


@pytest.mark.parametrize(
    ("page", "command"),
    [(page, command) for page in ("wgd-server.8", "wgd-client.8") for command in commands(PROGRAMS[page])],
)
def test_a_command_is_described_with_the_options_that_it_takes(page: str, command: str) -> None:
    described = dict(sections(page, "Ss"))[command]
    expected = taken(commands(PROGRAMS[page])[command])
    assert options_of(described) == expected
    # The synopsis names each by one of its names.
    aliases = {"--follow", "--lines"}
    assert described.startswith(f".Nm\n.Cm {command}\n")
    assert synopsis_of(described) | aliases == expected | aliases


def keys_of(page: str) -> set[str]:
    """Return the config keys that a page has, each with the section's path before it."""
    found = set()
    for title, described in sections(page, "Ss"):
        prefix = "" if title == "top level" else f"{title}."
        found |= {f"{prefix}{key}" for key in re.findall(r"(?m)^\.It Ic (\S+)", described)}
    return found


def keys(**parts: Section | dict[str, Any]) -> set[str]:
    """Return the keys of sections; a section's name has _ where a path has a dot, and `top` is the whole file."""
    found = set()
    for name, section in parts.items():
        prefix = "" if name == "top" else f"{name.replace('__', '.')}."
        found |= {f"{prefix}{key}" for key in (section.fields if isinstance(section, Section) else section)}
    return found


def test_the_page_of_the_gateways_config_has_its_keys() -> None:
    assert keys_of("wgd-server.yaml.5") == keys(
        top=fragment._TOP,
        **fragment._SECTIONS,
        peers=fragment._PEER,
        policy=policy._POLICY,
        policy__rules=policy._RULE,
        policy__tests=policy._TEST,
        policy__rules__allow=allow._FIELDS["to"],
        policy__rules__allow_from=allow._FIELDS["from"],
    )


def test_the_page_of_a_clients_config_has_its_keys() -> None:
    assert keys_of("wgd-client.yaml.5") == keys(
        top=client_config._TOP,
        interface=client_config._INTERFACE,
        server=client_config._SERVER,
        routes=client_config._ROUTES,
    )


@pytest.mark.parametrize("page", ["wgd-server.yaml.5", "wgd-client.yaml.5"])
def test_the_example_of_a_config_page_is_a_config(page: str) -> None:
    example = re.search(r"(?ms)^\.Bd -literal\n(.*?)^\.Ed", dict(sections(page, "Sh"))["EXAMPLES"])
    assert example is not None
    # The keys of an example shall be seen to be none.
    content = re.sub(r"EXAMPLE/\S*=", "YWxpY2UuLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4=", example[1]).encode()
    source = SourceFile("/etc/wgd/example.yaml", "example.yaml", content)
    if page == "wgd-server.yaml.5":
        load_server([source])
    else:
        load_client("office", source)


def fields() -> dict[str, str]:
    """Return the described fields of an event in their order."""
    described = dict(sections("wgd-events.5", "Ss"))
    parts = ("Of every line", "Of packets and flows", "Of the gateway itself")
    found = {}
    for item in re.split(r"(?m)^\.It Ic ", "".join(described[part] for part in parts))[1:]:
        name, _, rest = item.partition("\n")
        found[name] = rest
    return found


def test_the_page_of_the_event_log_has_the_fields_of_the_schema_in_their_order() -> None:
    assert list(fields()) == list(SCHEMA["properties"])


def definition(name: str) -> dict[str, Any]:
    found: dict[str, Any] = dict(SCHEMA["properties"][name])
    reference = found.pop("$ref", "").rpartition("/")[2]
    return found | (SCHEMA["$defs"][reference] if reference else {})


@pytest.mark.parametrize("name", list(SCHEMA["properties"]))
def test_a_field_has_its_type_an_example_that_the_schema_takes_and_all_of_its_values(name: str) -> None:
    described, defined = fields()[name], definition(name)
    kind = "String" if "enum" in defined else str(defined["type"]).capitalize()
    assert re.match(rf"{kind}[.,]", described)
    (example,) = re.findall(r"(?m)^\.Dl (.*)", described)
    ((key, value),) = json.loads("{" + example.replace(r"\(dq", '"') + "}").items()
    assert key == name
    Draft202012Validator(
        {"$defs": SCHEMA["$defs"], **defined},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    ).validate(value)
    assert set(defined.get("enum", ())) <= set(re.findall(r"(?m)^\.Cm (\S+)", described))


def test_the_lines_that_the_page_shows_are_lines_of_the_log() -> None:
    shown = "".join(re.findall(r"(?ms)^\.Bd -literal\n(\{.*?)^\.Ed", text("wgd-events.5")))
    found = [json.loads(line) for line in re.sub(r"\n ", "", shown).splitlines()]
    assert [entry["event"] for entry in found] == ["open", "close", "drift", "lost"]
    validator = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for entry in found:
        validator.validate(entry | ({"client_id": "A" * 43 + "="} if "client_id" in entry else {}))
        assert list(entry) == [key for key in SCHEMA["properties"] if key in entry]


def test_what_the_commands_know_of_events_is_what_the_schema_has() -> None:
    options = {action.dest: action for action in commands(server.arguments())["events"]._actions}
    assert list(options["event"].choices or ()) == SCHEMA["properties"]["event"]["enum"]
    assert list(options["verdict"].choices or ()) == SCHEMA["properties"]["verdict"]["enum"]
    assert list(WHY_LOST) == SCHEMA["properties"]["reason"]["enum"]


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "allow"},
        {"rule": "web[0]"},
        {"count": 1},
        {"tx_bytes": 1},
        {"client": "alice"},
        {"dst_port": 443},
        {"length": None},
        {"src_ip": "10.0.0"},
        {"ts": "2026-11-23T04:10:00Z"},
        {"colour": "red"},
    ],
    ids=str,
)
def test_the_schema_refuses_what_a_denial_does_not_say(change: dict[str, Any]) -> None:
    denied = {"ts": "2026-11-23T04:10:00.123456Z", "event": "deny", "verdict": "deny"}
    denied |= {"src_ip": "10.80.0.2", "dst_ip": "fd20::1", "length": 60}
    validator = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)
    assert validator.is_valid(denied)
    changed = {key: value for key, value in (denied | change).items() if value is not None}
    assert not validator.is_valid(changed)


def test_the_schema_wants_to_know_what_drifted() -> None:
    whole = json.loads(gateway_line(0, "drift", object_="rule", action="restored", detail="7780", count=1))
    validator = Draft202012Validator(SCHEMA)
    assert validator.is_valid(whole)
    for key in ("object", "action", "detail", "count"):
        assert not validator.is_valid({name: value for name, value in whole.items() if name != key})
