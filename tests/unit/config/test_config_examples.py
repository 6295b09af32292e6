"""The example files are valid and say what their comments say."""

from __future__ import annotations

from pathlib import Path

from wgd.config.client import load_client
from wgd.config.server import SourceFile, load_server
from wgd.model import AuthzMode

CONFIGS = Path(__file__).parents[3] / "configs"


def source(name: str) -> SourceFile:
    return SourceFile(name, name, (CONFIGS / name).read_bytes())


def test_the_example_server_config_is_valid_alone() -> None:
    config = load_server([source("server.yaml")])
    assert config.authz_mode is AuthzMode.ENFORCE
    assert [peer.name for peer in config.peers] == ["bob"]


def test_the_example_drop_in_adds_a_client_to_the_group() -> None:
    config = load_server([source("server.yaml"), source("server.d/alice.yaml")])
    bob, alice = config.peers
    assert config.policy.rules[0].clients == (bob.public_key, alice.public_key)
    assert config.policy.rules[2].clients == (alice.public_key,)


def test_the_example_client_config_fits_the_example_server() -> None:
    alice = load_server([source("server.yaml"), source("server.d/alice.yaml")]).peers[1]
    config = load_client("office", source("client/office.yaml"))
    assert config.interface.name == "wgd-office"
    assert tuple(address.network for address in config.interface.address) == alice.allowed_ips
