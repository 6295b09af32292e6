"""Forwarding switched on and back in a real kernel: afterwards every setting is what it was."""

import os
import subprocess
from collections.abc import Iterator

import pytest
from pyroute2 import netns

from tests.unit.policy.policy_examples import server_config
from wgd.errors import HostError
from wgd.host.sysctl import read_settings, write_settings
from wgd.plan.forwarding import before, desired_settings, restore

NAMESPACE = f"wgdt{os.getpid()}sysctl"


@pytest.fixture
def host() -> Iterator[None]:
    """A namespace with eth0 and eth1, and this process in it."""
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        inside = ["ip", "-n", NAMESPACE, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"]
        subprocess.run(inside, check=True)
        netns.pushns(NAMESPACE)
        try:
            yield
        finally:
            netns.popns()
    finally:
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"ipv4/conf/all/accept_redirects": "0"},
        {"ipv4/conf/eth1/forwarding": "1", "ipv6/conf/eth1/forwarding": "1"},
        {"ipv6/conf/eth0/accept_ra": "0", "ipv4/conf/default/forwarding": "1"},
        {"ipv4/conf/all/rp_filter": "1", "ipv4/conf/eth0/src_valid_mark": "1"},
    ],
    ids=lambda own: " ".join(own) or "as it was born",
)
def test_what_forwarding_changes_is_put_back(host: None, own: dict[str, str]) -> None:  # noqa: ARG001 - it is entered
    write_settings({"ipv4/ip_forward": "0", "ipv6/conf/all/forwarding": "0", **own})
    found = read_settings()
    changes = desired_settings(server_config(), found, {})
    originals = before(changes, found, {})
    write_settings(changes)
    forwarding = read_settings()
    assert (forwarding["ipv4/ip_forward"], forwarding["ipv6/conf/all/forwarding"]) == ("1", "1")
    assert desired_settings(server_config(), forwarding, originals) == {}
    write_settings(restore(originals))
    assert read_settings() == found


def test_a_setting_that_is_not_there_is_an_error_or_passed_over(host: None) -> None:  # noqa: ARG001 - it is entered
    gone = {"ipv4/conf/gone0/forwarding": "1"}
    write_settings(gone, missing_ok=True)
    with pytest.raises(HostError, match="gone0/forwarding: cannot be set to 1: No such file"):
        write_settings(gone)


def test_a_value_that_the_kernel_refuses_is_named(host: None) -> None:  # noqa: ARG001 - it is entered
    with pytest.raises(HostError, match="ipv4/ip_forward: cannot be set to x: Invalid argument"):
        write_settings({"ipv4/ip_forward": "x"})
