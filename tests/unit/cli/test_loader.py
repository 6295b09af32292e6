"""A reload parses what has changed, and nothing else."""

from pathlib import Path

import pytest

from wgd.cli import server
from wgd.cli.server import Loader
from wgd.errors import ConfigError

MAIN = """
interface: {name: wgd0, address: [10.80.0.1/24], listen_port: 51820}
authz_mode: enforce
peers:
  - {name: alice, public_key: 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=', allowed_ips: [10.80.0.2/32]}
"""


def rules(port: int) -> str:
    return f"policy: {{rules: [{{client_id: alice, allow: [{{to: 10.20.0.1, proto: tcp, ports: [{port}]}}]}}]}}\n"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were parsed, in order."""
    names: list[str] = []
    read = server.read_fragment
    monkeypatch.setattr(server, "read_fragment", lambda source: names.append(source.name) or read(source))
    return names


@pytest.fixture
def main(tmp_path: Path) -> Path:
    path = tmp_path / "server.yaml"
    path.write_text(MAIN)
    (tmp_path / "server.d").mkdir()
    (tmp_path / "server.d" / "one.yaml").write_text(rules(80))
    return path


def test_only_the_file_that_has_changed_is_parsed_again(main: Path, parsed: list[str]) -> None:
    load = Loader(main)
    before = load()
    (main.parent / "server.d" / "one.yaml").write_text(rules(81))
    parsed.clear()
    after = load()
    assert parsed == ["server.d/one.yaml"]
    assert after.peers[0] is before.peers[0]
    assert after.policy.rules[0].allow[0].ports[0].first == 81


def test_a_file_that_was_removed_is_forgotten(main: Path) -> None:
    load = Loader(main)
    assert load().policy.rules
    (main.parent / "server.d" / "one.yaml").unlink()
    assert not load().policy.rules


def test_what_is_wrong_is_told_each_time(main: Path) -> None:
    load = Loader(main)
    main.write_text(MAIN.replace("enforce", "maybe"))
    for _ in range(2):
        with pytest.raises(ConfigError, match="authz_mode"):
            load()
