"""Trees of the schema's own words in every wrong arrangement: refused or read, never a crash."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from config_files import client, key_text, server
from hypothesis import given, settings
from hypothesis import strategies as st

from wgd.errors import ConfigError

KEYS = [
    "interface",
    "name",
    "address",
    "listen_port",
    "private_key_file",
    "mtu",
    "backend",
    "forwarding",
    "routing",
    "table",
    "mark",
    "priority",
    "authz_mode",
    "logging_enabled",
    "logging",
    "path",
    "nflog_group",
    "record",
    "journal",
    "peers",
    "public_key",
    "allowed_ips",
    "preshared_key_file",
    "endpoint",
    "persistent_keepalive",
    "policy",
    "groups",
    "rules",
    "tests",
    "client_id",
    "allow",
    "allow_from",
    "until",
    "to",
    "proto",
    "port",
    "ports",
    "expect",
    "server",
    "routes",
    "metric",
    "on_conflict",
    "kill_switch",
    "dns",
    "masquerade",
    "deny_with",
    "enroll",
]
VALUES = ["", "wgd0", "10.80.0.1/24", "10.0.0.0/8", "fd80::1/64", "::/0", "0.0.0.0/0", "51820", "443-80", "true"]
VALUES += ["enforce", "auto", "tcp", "icmp", "gw:1", "[::1]:1", "alice", "group:staff", "group:", "/a", "main"]
VALUES += ["\u00e9\u2028", key_text(1)]

values = st.recursive(
    st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=15,
)
entries = st.dictionaries(st.sampled_from(KEYS), values, max_size=6)
sections = st.fixed_dictionaries(
    {},
    optional={
        "interface": entries,
        "server": entries,
        "routes": entries,
        "logging": entries,
        "routing": entries,
        "peers": st.lists(entries, max_size=3),
        "policy": st.fixed_dictionaries(
            {},
            optional={
                "groups": st.dictionaries(st.sampled_from(VALUES), values, max_size=3),
                "rules": st.lists(entries, max_size=2),
                "tests": st.lists(entries, max_size=2),
            },
        ),
    },
)


@settings(max_examples=200)
@given(sections | entries)
def test_every_arrangement_of_the_schemas_words_is_read_or_refused(tree: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigError):
        server(json.dumps(tree))
    with contextlib.suppress(ConfigError):
        client(json.dumps(tree))
