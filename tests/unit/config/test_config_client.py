"""The client's config."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

import pytest
from config_files import client, client_problems, key, key_text

from wgd.model import Backend, Endpoint, Routes

SERVER = f'server: {{public_key: "{key_text(1)}", endpoint: gw.example.org:51820, allowed_ips: 10.20.0.0/24}}\n'
CLIENT = "interface: {address: 10.80.0.2/32}\n" + SERVER


def test_the_whole_schema_is_read() -> None:
    config = client(
        f"""\
interface:
  name: wgd-office
  address: [10.80.0.2/32, "fd80::2/128"]
  private_key_file: /etc/wgd/client/office.key
  listen_port: 51821
  mtu: 1420
  backend: userspace
server:
  public_key: "{key_text(1)}"
  preshared_key_file: /etc/wgd/client/office.psk
  endpoint: [gw.example.org:51820, "[2001:db8::1]:51820"]
  allowed_ips: [10.20.0.0/24, "fd20::/64"]
  persistent_keepalive: 25
routes: {{table: 100, metric: 0, on_conflict: refuse}}
kill_switch: false
"""
    )
    assert config.name == "office"
    assert config.interface.name == "wgd-office"
    assert config.interface.address == (ip_interface("10.80.0.2/32"), ip_interface("fd80::2/128"))
    assert (config.interface.listen_port, config.interface.mtu) == (51821, 1420)
    assert config.interface.backend is Backend.USERSPACE
    assert config.interface.private_key_file == "/etc/wgd/client/office.key"
    assert config.server.public_key == key(1)
    assert config.server.preshared_key_file == "/etc/wgd/client/office.psk"
    assert config.server.endpoints == (Endpoint("gw.example.org", 51820), Endpoint("2001:db8::1", 51820))
    assert config.server.allowed_ips == (ip_network("10.20.0.0/24"), ip_network("fd20::/64"))
    assert config.server.persistent_keepalive == 25
    assert config.routes == Routes(table=100, metric=0)


def test_what_is_optional_has_its_documented_value() -> None:
    config = client(CLIENT)
    assert config.interface.backend is Backend.AUTO
    assert (config.interface.listen_port, config.interface.private_key_file, config.interface.mtu) == (None, None, None)
    assert (config.server.preshared_key_file, config.server.persistent_keepalive) == (None, None)
    assert config.routes == Routes(table=254, metric=50)


def test_the_interface_is_named_after_the_client_within_the_kernels_15_characters() -> None:
    assert client(CLIENT, "office").interface.name == "wgd-office"
    assert client(CLIENT, "headquarters-berlin").interface.name == "wgd-headquarter"


def test_a_client_name_that_is_no_file_name_is_refused() -> None:
    (problem,) = client_problems(CLIENT, "../office")
    assert "the client's name must be 1 to 63 of letters" in problem


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("kill_switch: true", "office.yaml:3: kill_switch: is not supported yet: remove it or set it to false"),
        ("dns: {servers: [10.20.0.53]}", "office.yaml:3: dns: is not supported yet: remove it"),
        ("routes: {on_conflict: prefer_local}", "office.yaml:3: routes.on_conflict: prefer_local is not supported yet"),
        ("routes: {table: local}", "office.yaml:3: routes.table: must be main, default or a number, not 'local'"),
        ("routes: {metric: 4294967296}", "office.yaml:3: routes.metric: must be from 0 to 4294967295"),
        ("route: {metric: 1}", "office.yaml:3: route: unknown key; did you mean routes?"),
    ],
)
def test_what_the_client_cannot_do_is_refused(line: str, expected: str) -> None:
    (problem,) = client_problems(f"{CLIENT}{line}\n")
    assert problem.startswith(expected)


@pytest.mark.parametrize("network", ["0.0.0.0/0", '"::/0"'])
def test_a_full_tunnel_is_refused(network: str) -> None:
    (problem,) = client_problems(CLIENT.replace("10.20.0.0/24", f"[10.20.0.0/24, {network}]"))
    assert problem.startswith("office.yaml:2: server.allowed_ips[1]: ")
    assert "(a full tunnel) is not supported yet" in problem


def test_two_halves_are_the_operators_own_doing() -> None:
    config = client(CLIENT.replace("10.20.0.0/24", "[0.0.0.0/1, 128.0.0.0/1]"))
    assert len(config.server.allowed_ips) == 2


def test_all_problems_are_told_in_one_go() -> None:
    text = """\
interface:
  address: [10.80.0.0/24, 10.80.0.2, 10.80.0.2/24]
  mtu: 100
server:
  public_key: secretsecretsecret
  endpoint: gw.example.org
  allowed_ips: []
unknown: 1
"""
    problems = client_problems(text)
    assert [problem.split(": ")[1] for problem in problems] == [
        "interface.address[0]",
        "interface.address[2]",
        "interface.mtu",
        "server.public_key",
        "server.endpoint",
        "server.allowed_ips",
        "unknown",
    ]
    assert "secretsecret" not in "".join(problems)


def test_missing_sections_and_keys_are_told() -> None:
    assert client_problems("") == [
        "office.yaml:1: interface: is required",
        "office.yaml:1: server: is required",
    ]
    assert client_problems("interface:\nserver:\n") == [
        "office.yaml:1: interface.address: is required",
        "office.yaml:2: server.allowed_ips: is required",
        "office.yaml:2: server.endpoint: is required",
        "office.yaml:2: server.public_key: is required",
    ]


def test_a_tunnel_with_ipv6_needs_the_mtu_of_ipv6() -> None:
    assert client(CLIENT.replace("}", ", mtu: 576}", 1)).interface.mtu == 576
    (problem,) = client_problems(CLIENT.replace("10.80.0.2/32}", '["fd80::2/128"], mtu: 1279}'))
    assert problem.startswith("office.yaml:1: interface.mtu: must be at least 1280, which IPv6 needs")
    assert client(CLIENT.replace("10.80.0.2/32}", '["fd80::2/128"], mtu: 1280}')).interface.mtu == 1280


def test_an_address_given_twice_is_told() -> None:
    (problem,) = client_problems(CLIENT.replace("10.80.0.2/32", "[10.80.0.2/32, 10.80.0.2/24]"))
    assert problem.startswith("office.yaml:1: interface.address[1]: 10.80.0.2 is given already in office.yaml:1: ")
