"""One server file: the schema, its defaults, and what is not supported yet."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest
from config_files import INTERFACE, SERVER, key, key_text, peer, server, server_problems

from wgd.errors import ConfigError
from wgd.model import (
    AllowRule,
    AuthzMode,
    Backend,
    DenyWith,
    Endpoint,
    Forwarding,
    Logging,
    Peer,
    Place,
    PolicyTest,
    PortRange,
    Record,
    Routing,
)

WHOLE = f"""\
interface:
  name: wgd0
  address: [10.80.0.1/24, "fd80::1/64"]
  listen_port: 51820
  private_key_file: /etc/wgd/server.key
  mtu: 1420
  backend: kernel
forwarding: manual
routing: {{table: 100, mark: 0x20000000, priority: 200}}
authz_mode: observe
logging_enabled: true
logging:
  path: /srv/log/events.jsonl
  nflog_group: 7
  record: packets
  journal: false
peers:
  - name: alice
    public_key: "{key_text(2)}"
    allowed_ips: [10.80.0.2/32, "fd80::2/128"]
    preshared_key_file: /etc/wgd/alice.psk
    endpoint: 192.0.2.7:51820
    persistent_keepalive: 25
  - name: bob
    public_key: "{key_text(3)}"
    allowed_ips: 10.80.0.3
policy:
  groups:
    staff: [alice, "{key_text(3)}"]
  rules:
    - name: staff to web
      client_id: [bob, "group:staff"]
      allow:
        - 10.20.0.0/24
        - {{to: 10.20.0.10, proto: tcp, ports: [443, "8000-8999"]}}
        - {{to: "fd20::/64", proto: icmp}}
    - client_id: "{key_text(2)}"
      allow: [10.30.0.0/16]
  tests:
    - {{client_id: alice, to: 10.20.0.10, proto: tcp, port: 443, expect: allow}}
    - {{client_id: "group:staff", to: "fd20::1", proto: icmp, expect: deny}}
deny_with: reject
masquerade: [eth0, eth1, eth0]
"""


def test_interface_and_settings_are_read() -> None:
    config = server(WHOLE)
    assert config.interface.name == "wgd0"
    assert config.interface.address == (ip_interface("10.80.0.1/24"), ip_interface("fd80::1/64"))
    assert config.interface.listen_port == 51820
    assert config.interface.private_key_file == "/etc/wgd/server.key"
    assert config.interface.mtu == 1420
    assert config.interface.backend is Backend.KERNEL
    assert config.interface.place == Place("server.yaml", 1, "interface")
    assert config.forwarding is Forwarding.MANUAL
    assert config.deny_with is DenyWith.REJECT
    assert config.masquerade == ("eth0", "eth1")
    assert config.routing == Routing(table=100, mark=0x20000000, priority=200)
    assert config.authz_mode is AuthzMode.OBSERVE
    assert config.logging == Logging(enabled=True, path="/srv/log/events.jsonl", nflog_group=7, record=Record.PACKETS)


def test_peers_are_read() -> None:
    alice, bob = server(WHOLE).peers
    assert alice == Peer(
        name="alice",
        public_key=key(2),
        allowed_ips=(ip_network("10.80.0.2/32"), ip_network("fd80::2/128")),
        preshared_key_file="/etc/wgd/alice.psk",
        endpoint=Endpoint("192.0.2.7", 51820),
        persistent_keepalive=25,
    )
    assert bob == Peer("bob", key(3), (ip_network("10.80.0.3/32"),))
    assert (alice.place, bob.place) == (Place("server.yaml", 18, "peers[0]"), Place("server.yaml", 24, "peers[1]"))


def test_rules_are_read_with_their_clients_resolved_each_once() -> None:
    staff, alone = server(WHOLE).policy.rules
    assert staff.clients == (key(3), key(2))
    assert staff.allow == (
        AllowRule(ip_network("10.20.0.0/24")),
        AllowRule(ip_network("10.20.0.10/32"), 6, (PortRange(443, 443), PortRange(8000, 8999))),
        AllowRule(ip_network("fd20::/64"), 58),
    )
    assert [entry.place.line for entry in staff.allow] == [34, 35, 36]
    assert staff.label(1) == "staff to web[1]"
    assert alone.clients == (key(2),)
    assert alone.label(0) == "server.yaml:policy.rules[1].allow[0]"
    assert alone.allow[0].place == Place("server.yaml", 38, "policy.rules[1].allow[0]")


def test_policy_tests_are_read_one_for_each_client() -> None:
    assert server(WHOLE).policy.tests == (
        PolicyTest(key(2), ip_network("10.20.0.10").network_address, 6, 443, expect=True),
        PolicyTest(key(2), ip_network("fd20::1").network_address, 58, None, expect=False),
        PolicyTest(key(3), ip_network("fd20::1").network_address, 58, None, expect=False),
    )


def test_what_is_optional_has_its_documented_value() -> None:
    config = server(SERVER)
    assert config.interface.private_key_file is None
    assert config.interface.mtu is None
    assert config.interface.backend is Backend.AUTO
    assert config.forwarding is Forwarding.AUTO
    assert config.deny_with is DenyWith.DROP
    assert config.masquerade == ()
    assert config.routing == Routing(table=7780, mark=0x10000000, priority=7780)
    assert config.logging == Logging(enabled=False, path="/var/log/wgd/events.jsonl", nflog_group=100)
    assert config.peers == ()
    assert config.policy.rules == ()


def test_sections_with_nothing_in_them_are_empty() -> None:
    config = server(SERVER + "peers:\nlogging:\npolicy:\n  groups:\n  rules:\n  tests:\n")
    assert config == server(SERVER)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("enroll: {endpoint: gw:1}", "5: enroll: is not supported yet: remove it"),
        ("logging:\n  record: both", "6: logging.record: must be flows or packets, not 'both'"),
        ("logging:\n  journal: both", "6: logging.journal: must be true or false, not 'both'"),
    ],
)
def test_what_is_known_and_not_done_yet_is_refused(lines: str, expected: str) -> None:
    text = f"authz_mode: enforce\npeers: [{{name: peer2, public_key: {key_text(2)}, allowed_ips: 10.80.0.2}}]\n#\n"
    (problem,) = server_problems(text + f"{INTERFACE}{lines}\n")
    assert problem.startswith(f"server.yaml:{expected}")


RULE = f"{SERVER}peers:\n{peer(2)}policy:\n  rules:\n    - client_id: peer2\n"


def test_what_the_network_may_begin_and_when_a_rule_ends_are_read() -> None:
    text = f"{RULE}      until: 2027-01-01T01:00:00+01:00\n      allow_from:\n        - 10.20.0.0/24\n"
    (rule,) = server(text + "        - {from: 'fd20::5', proto: icmp}\n").policy.rules
    assert rule.allow == ()
    assert rule.allow_from == (AllowRule(ip_network("10.20.0.0/24")), AllowRule(ip_network("fd20::5"), 58))
    assert rule.until == 1_798_761_600
    assert rule.label_from(1) == "server.yaml:policy.rules[0].allow_from[1]"
    assert [entry.place.line for entry in rule.allow_from] == [12, 13]
    assert replace(rule, name="in").label_from(1) == "in.allow_from[1]"


def test_a_rule_without_an_end_never_ends() -> None:
    (rule,) = server(f"{RULE}      allow: [10.20.0.5]\n").policy.rules
    assert rule.until is None
    assert rule.allow_from == ()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("name: x", "9: policy.rules[0].allow: is required, or allow_from"),
        ("allow_from: [{to: 10.0.0.1}]", "10: policy.rules[0].allow_from[0].from: is required"),
        ("allow_from: [[10.0.0.1]]", "10: policy.rules[0].allow_from[0]: must be a network, or {from: NETWORK, "),
        ("allow_from: [{from: 10.0.0.1, proto: icmpv6}]", "10: policy.rules[0].allow_from[0].proto: is IPv6's and the"),
        ("allow: [{from: 10.0.0.1}]", "10: policy.rules[0].allow[0].from: unknown key; known are to, proto, ports"),
        ("until: 2027-01-01", "10: policy.rules[0].until: must be a time with its zone, such as 2027-01-01T00:00:00Z"),
        ("until: 2027-01-01T00:00:00", "10: policy.rules[0].until: must be a time with its zone"),
        ("until: 2027-13-01T00:00:00Z", "10: policy.rules[0].until: must be a time with its zone"),
        ("until: tomorrow", "10: policy.rules[0].until: must be a time with its zone"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(lines: str, expected: str) -> None:
    problems = server_problems(f"{RULE}      {lines}\n")
    assert [problem for problem in problems if problem.startswith(f"server.yaml:{expected}")], problems


def test_a_policy_test_asks_what_the_network_may_begin() -> None:
    text = f"{SERVER}peers:\n{peer(2)}policy:\n  tests:\n    - {{client_id: peer2, from: 10.0.0.1, "
    (found,) = server(f"{text}proto: tcp, port: 22, expect: deny}}\n").policy.tests
    assert found == PolicyTest(key(2), ip_network("10.0.0.1").network_address, 6, 22, expect=False, incoming=True)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("peerz: []", "3: peerz: unknown key; did you mean peers?"),
        ("zzz: 1", "3: zzz: unknown key; known are interface, "),
        ("logging: {paht: /x}", "3: logging.paht: unknown key; did you mean path?"),
        ("peers: {alice: 1}", "3: peers: must be a list"),
        ("peers: [alice]", "3: peers[0]: must be keys with values"),
        ("policy: []", "3: policy: must be keys with values"),
        ("policy: {groups: [staff]}", "3: policy.groups: must be keys with values"),
        ("policy: {groups: {staff: {a: 1}}}", "3: policy.groups.staff: must be a list"),
        ("policy: {groups: {'a b': []}}", "3: policy.groups.(hidden): must be 1 to 63"),
        ("logging_enabled: maybe", "3: logging_enabled: must be true or false, not 'maybe'"),
        ("logging_enabled: [true]", "3: logging_enabled: must be a single value, not a list"),
        ("logging_enabled:", "3: logging_enabled: is empty: give a value or remove the key"),
        ("routing: {table: 254}", "3: routing.table: must not be 254"),
        ("routing: {mark: 0x3}", "3: routing.mark: must be exactly one bit"),
        ("routing: {priority: 32763}", "3: routing.priority: must be from 1 to 32762"),
        ("masquerade: wgd0", "3: masquerade: is the tunnel itself"),
        ("masquerade: [eth0, a/b]", "3: masquerade[1]: must not hold any of"),
        ("masquerade: []", "3: masquerade: is an empty list"),
        ("logging: {nflog_group: 65535}", "3: logging.nflog_group: must be from 1 to 65534"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_path(lines: str, expected: str) -> None:
    (problem,) = server_problems(f"{SERVER}{lines}\n")
    assert problem.startswith(f"server.yaml:{expected}")


def test_the_mode_has_no_default() -> None:
    (problem,) = server_problems(INTERFACE)
    assert problem.startswith("server.yaml:1: authz_mode: is required: choose enforce")


def test_a_mode_that_is_wrong_is_not_called_missing_too() -> None:
    (problem,) = server_problems(INTERFACE + "authz_mode: strict\n")
    assert problem == "server.yaml:2: authz_mode: must be observe or enforce, not 'strict'"


def test_a_missing_interface_is_told_once_and_its_missing_keys_one_by_one() -> None:
    (problem,) = server_problems("authz_mode: enforce\n")
    assert problem.startswith("server.yaml:1: interface: is required")
    (problem,) = server_problems("authz_mode: enforce\ninterface: wgd0\n")
    assert problem == "server.yaml:2: interface: must be keys with values"
    problems = server_problems("authz_mode: enforce\ninterface:\n  mtu: 1500\n")
    assert [problem.split(": is")[0] for problem in problems] == [
        "server.yaml:2: interface.address",
        "server.yaml:2: interface.listen_port",
        "server.yaml:2: interface.name",
    ]


@pytest.mark.parametrize("missing", ["name", "public_key", "allowed_ips"])
def test_a_peer_without_a_needed_key_is_told_at_the_peer(missing: str) -> None:
    lines = peer(2).splitlines()
    kept = [line for line in lines if missing not in line]
    kept[0] = "  - " + kept[0].lstrip(" -")
    (problem,) = server_problems(SERVER + "peers:\n" + "\n".join(kept) + "\n")
    assert problem == f"server.yaml:4: peers[0].{missing}: is required"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("to: 10.0.0.1, proto: tcp, expect: allow", "port: is required with this protocol"),
        ("to: 10.0.0.1, proto: icmp, port: 1, expect: allow", "port: does not exist in this protocol: remove it"),
        ("to: 10.0.0.1, proto: icmpv6, expect: allow", "proto: is IPv6's and the destination is IPv4: write icmp"),
        ("to: 10.0.0.0/8, proto: gre, expect: allow", "to: is not an IP address: '10.0.0.0/8'"),
        ("to: 10.0.0.1, proto: gre, expect: reject", "expect: must be allow or deny, not 'reject'"),
        ("to: 10.0.0.1, proto: gre", "expect: is required"),
        ("proto: gre, expect: deny", "to: is required, or from"),
        ("to: 10.0.0.1, from: 10.0.0.2, proto: gre, expect: deny", "from: excludes to: the other end is the client"),
    ],
)
def test_a_policy_test_that_makes_no_sense_is_refused(fields: str, expected: str) -> None:
    text = f"{SERVER}peers:\n{peer(2)}policy:\n  tests:\n    - {{client_id: peer2, {fields}}}\n"
    (problem,) = server_problems(text)
    assert problem.startswith(f"server.yaml:9: policy.tests[0].{expected}")


def test_ten_different_mistakes_are_ten_problems_with_their_lines() -> None:
    text = f"""\
interface:
  name: a-name-too-long-for-linux
  address: 10.80.0.0/24
  listen_port: 65536
authz_mode: strict
logging_enable: true
peers:
  - name: alice
    public_key: "{key_text(2)[:-4]}"
    allowed_ips: 10.80.0.2
  - name: bob
    public_key: "{key_text(3)}"
    allowed_ips: [10.80.0.2/32, 10.80.0.3/32]
policy:
  rules:
    - name: web
      client_id: carol
      allow:
        - 10.20.0.5/24
        - {{to: 10.20.0.10, proto: tcp, ports: [443-80]}}
"""
    assert [problem.split(": ", 2)[:2] for problem in server_problems(text)] == [
        ["server.yaml:2", "interface.name"],
        ["server.yaml:3", "interface.address"],
        ["server.yaml:4", "interface.listen_port"],
        ["server.yaml:5", "authz_mode"],
        ["server.yaml:6", "logging_enable"],
        ["server.yaml:9", "peers[0].public_key"],
        ["server.yaml:13", "peers[1].allowed_ips[0]"],
        ["server.yaml:17", "policy.rules[0].client_id"],
        ["server.yaml:19", "policy.rules[0].allow[0]"],
        ["server.yaml:20", "policy.rules[0].allow[1].ports[0]"],
    ]


def test_a_mistake_made_everywhere_is_told_a_hundred_times_and_the_rest_counted() -> None:
    wrong = "".join(f"  - {{to: 10.20.0.1/8, number: {number}}}\n" for number in range(17_000))
    with pytest.raises(ConfigError) as refused:
        server(SERVER + "peers:\n" + wrong)
    *told, rest = str(refused.value).splitlines()
    assert told == [str(problem) for problem in refused.value.problems[:100]]
    assert rest == f"and {len(refused.value.problems) - 100} more problems"
    assert len(refused.value.problems) > 17_000
