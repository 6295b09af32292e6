"""One server file -> its fragment, checked as far as one file can be checked alone."""

from __future__ import annotations

from typing import Any

from wgd.config.addresses import host_address, literal_endpoint, peer_network
from wgd.config.drafts import Fragment, PeerDraft
from wgd.config.interface import INTERFACE_FIELDS
from wgd.config.policy import read_policy
from wgd.config.schema import Reader, RefusedError, Section, mapping, sequence, some, unsupported
from wgd.config.text import SourceFile, read
from wgd.config.tree import Tree
from wgd.config.values import (
    boolean,
    file_path,
    integer,
    interface_name,
    name,
    one_of,
    persistent_keepalive,
    public_key,
    routing_mark,
    routing_table,
)
from wgd.model import AuthzMode, DenyWith, Forwarding, Network, Peer, Record

LARGEST_PRIORITY = 32762
"""The last `routing.priority`: our rules take four numbers, and the host's main table is looked up at 32766."""

_SECTIONS = {
    "interface": Section(INTERFACE_FIELDS),
    "logging": Section(
        {
            "path": file_path,
            "nflog_group": integer(1, 65534),
            "record": one_of(Record),
            "journal": boolean,
        }
    ),
    "routing": Section({"table": routing_table, "mark": routing_mark, "priority": integer(1, LARGEST_PRIORITY)}),
}
_TOP = Section(
    {
        "interface": mapping,
        "forwarding": one_of(Forwarding),
        "routing": mapping,
        "authz_mode": one_of(AuthzMode),
        "logging_enabled": boolean,
        "logging": mapping,
        "peers": sequence,
        "policy": mapping,
        "masquerade": some,
        "deny_with": one_of(DenyWith),
        "enroll": unsupported,
    }
)
_SCALARS = ("forwarding", "authz_mode", "logging_enabled", "deny_with")
_PEER = Section(
    {
        "name": name,
        "public_key": public_key,
        "allowed_ips": some,
        "preshared_key_file": file_path,
        "endpoint": literal_endpoint,
        "persistent_keepalive": persistent_keepalive,
    },
    required=("name", "public_key", "allowed_ips"),
)


def read_fragment(source: SourceFile) -> Fragment:
    """Return what the file says together with everything that is wrong with it. Raises nothing."""
    document = read(source.path, source.text)
    if not document.complete:
        return Fragment(source.path, source.name, document.problems, complete=False)
    reader = Reader(document)
    top = reader.section(_TOP, document.tree, ())
    settings: dict[tuple[str, ...], Any] = {(key,): top[key] for key in _SCALARS if key in top}
    written: list[tuple[str, ...]] = [(key,) for key in document.tree if key in _TOP.fields]
    addresses = []
    for section_name, section in _SECTIONS.items():
        section_tree = top.get(section_name, {})
        values = reader.section(section, section_tree, (section_name,))
        written += [(section_name, key) for key in section_tree if key in section.fields]
        if "address" in values:
            addresses = reader.items(host_address, values.pop("address"), (section_name, "address"))
        settings |= {(section_name, key): value for key, value in values.items()}
    peers = tuple(_peer(reader, item, index) for index, item in enumerate(top.get("peers", [])))
    policy = read_policy(reader, top.get("policy", {}))
    masquerade = tuple(reader.items(interface_name, top.get("masquerade", []), ("masquerade",)))
    return Fragment(
        source.path,
        source.name,
        tuple(reader.problems),
        complete=True,
        settings=settings,
        given={path: reader.place(path) for path in written},
        addresses=tuple(addresses),
        masquerade=masquerade,
        peers=peers,
        groups=policy.groups,
        rules=policy.rules,
        tests=policy.tests,
    )


def _peer(reader: Reader, item: Tree, index: int) -> PeerDraft:
    path = ("peers", index)
    before = len(reader.problems)
    values = reader.section(_PEER, item, path)
    networks = []
    if "allowed_ips" in values:
        networks = reader.items(_client_network, values.pop("allowed_ips"), (*path, "allowed_ips"))
    peer = None
    if len(reader.problems) == before:
        peer = Peer(**values, allowed_ips=tuple(network for network, _place in networks), place=reader.place(path))
    return PeerDraft(
        name=values.get("name"),
        name_place=reader.place((*path, "name")),
        public_key=values.get("public_key"),
        key_place=reader.place((*path, "public_key")),
        allowed_ips=tuple(networks),
        peer=peer,
    )


def _client_network(value: Tree) -> Network:
    found = peer_network(value)
    if found.prefixlen == 0:
        raise RefusedError(f"{found} claims every address there is: name the client's own addresses")
    return found
