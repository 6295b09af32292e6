"""Forwarding against a kernel in small: writing a switch writes what Linux writes with it."""

from dataclasses import replace
from ipaddress import ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.policy.policy_examples import server_config
from wgd.model import Forwarding, ServerConfig
from wgd.plan.forwarding import (
    before,
    desired_settings,
    forwarded_families,
    held_families,
    missing_families,
    no_longer_held,
    restore,
)

V4, V6 = "ipv4/ip_forward", "ipv6/conf/all/forwarding"
INTERFACES = ("all", "default", "eth0", "eth1", "lo", "wgd0")
AUTO = server_config()
MANUAL = replace(AUTO, forwarding=Forwarding.MANUAL)
ONLY4 = replace(AUTO, interface=replace(AUTO.interface, address=(ip_interface("10.80.0.1/24"),)))


def host(**changes: str) -> dict[str, str]:
    """Return the settings of a host that forwards nothing; `changes` have `__` for `/`."""
    found = {V4: "0"}
    for name in INTERFACES:
        settings = ("forwarding", "rp_filter", "accept_local", "src_valid_mark")
        found |= {f"ipv4/conf/{name}/{setting}": "0" for setting in settings}
        found |= {f"ipv4/conf/{name}/send_redirects": "1", f"ipv6/conf/{name}/forwarding": "0"}
        found |= {f"ipv6/conf/{name}/accept_ra": "1"}
    found["ipv4/conf/all/accept_redirects"] = "1"
    return found | {name.replace("__", "/"): value for name, value in changes.items()}


def write(kernel: dict[str, str], changes: dict[str, str]) -> None:
    """Do what Linux does with these writes (net/ipv4/devinet.c and net/ipv6/addrconf.c)."""
    for name, value in changes.items():
        kernel[name] = value
        for family, switch in ((4, V4), (6, V6)):
            if name == switch:
                kernel |= {f"ipv{family}/conf/{interface}/forwarding": value for interface in INTERFACES}
        if name == V4:
            kernel["ipv4/conf/all/accept_redirects"] = "0" if value == "1" else "1"


class Gateway:
    """What the daemon does with the plan, on a kernel in small."""

    def __init__(self, kernel: dict[str, str]) -> None:
        self.kernel = kernel
        self.originals: dict[str, str] = {}

    def apply(self, config: ServerConfig) -> dict[str, str]:
        settings = dict(self.kernel)
        changes = desired_settings(config, settings, self.originals)
        self.originals = before(changes, settings, self.originals)
        write(self.kernel, changes)
        given_back = no_longer_held(config, settings, self.originals)
        write(self.kernel, given_back)
        self.originals = {name: value for name, value in self.originals.items() if name not in given_back}
        return changes

    def stop(self) -> None:
        write(self.kernel, restore(self.originals))


def test_both_switches_go_on_and_a_second_look_finds_nothing_to_do() -> None:
    gateway = Gateway(host())
    gateway.apply(AUTO)
    assert (gateway.kernel[V4], gateway.kernel[V6]) == ("1", "1")
    assert gateway.apply(AUTO) == {}


@given(st.data())
def test_stop_puts_every_setting_back(data: st.DataObject) -> None:
    found = host()
    flag = st.sampled_from("01")
    for name in found:
        if name.endswith(("/forwarding", "accept_redirects", "rp_filter", "src_valid_mark", "send_redirects")):
            found[name] = data.draw(flag)
        elif name.endswith("accept_ra"):
            found[name] = data.draw(st.sampled_from("012"))
    found[V4] = found["ipv4/conf/all/forwarding"]
    gateway = Gateway(dict(found))
    for config in data.draw(st.lists(st.sampled_from([AUTO, MANUAL, ONLY4]), min_size=1, max_size=4)):
        gateway.apply(config)
    gateway.stop()
    assert gateway.kernel == found


def test_a_host_that_forwards_already_is_left_so_and_not_held() -> None:
    kernel = host(ipv4__ip_forward="1", ipv6__conf__all__forwarding="1")
    assert held_families(AUTO, kernel, {}) == frozenset()
    assert {V4, V6}.isdisjoint(desired_settings(AUTO, kernel, {}))


def test_a_daemon_that_was_killed_still_holds_what_it_switched_on() -> None:
    kernel = host(ipv4__ip_forward="1", ipv6__conf__all__forwarding="1")
    assert held_families(AUTO, kernel, {V4: "0"}) == {4}


def test_a_switch_that_somebody_turned_off_is_turned_on_again() -> None:
    gateway = Gateway(host())
    gateway.apply(AUTO)
    write(gateway.kernel, {V4: "0"})
    assert gateway.apply(AUTO) == {V4: "1"}
    gateway.stop()
    assert gateway.kernel == host()


def test_only_a_family_with_a_tunnel_address_and_a_peer_is_forwarded() -> None:
    assert forwarded_families(AUTO) == {4, 6}
    assert forwarded_families(ONLY4) == {4}
    assert forwarded_families(replace(AUTO, peers=())) == frozenset()
    assert V6 not in desired_settings(ONLY4, host(), {})


def test_manual_touches_no_switch_and_no_router_advertisement() -> None:
    changes = desired_settings(MANUAL, host(), {})
    assert not [name for name in changes if name.endswith(("forward", "forwarding", "accept_ra"))]


def test_manual_says_which_families_are_not_forwarded() -> None:
    assert missing_families(MANUAL, host(ipv4__ip_forward="1")) == {6}


def test_router_advertisements_are_kept_before_ipv6_is_switched_on() -> None:
    changes = list(desired_settings(AUTO, host(ipv6__conf__eth1__accept_ra="0"), {}).items())
    assert ("ipv6/conf/eth0/accept_ra", "2") in changes[: changes.index((V6, "1"))]
    assert not [name for name, _ in changes if name == "ipv6/conf/eth1/accept_ra"]


def test_router_advertisements_are_left_alone_where_ipv6_is_not_held() -> None:
    changes = desired_settings(ONLY4, host(), {})
    assert not [name for name in changes if name.endswith("accept_ra")]


@pytest.mark.parametrize(
    ("everywhere", "own", "marked"), [("0", "0", False), ("1", "0", True), ("0", "2", True), ("2", "1", True)]
)
def test_the_mark_counts_for_the_reverse_path_only_where_that_is_filtered(
    everywhere: str, own: str, *, marked: bool
) -> None:
    settings = host(ipv4__conf__all__rp_filter=everywhere, ipv4__conf__eth0__rp_filter=own)
    assert ("ipv4/conf/eth0/src_valid_mark" in desired_settings(AUTO, settings, {})) == marked


def test_the_mark_is_never_made_to_count_everywhere() -> None:
    changes = desired_settings(AUTO, host(ipv4__conf__all__rp_filter="1", ipv4__conf__default__rp_filter="1"), {})
    assert not {"ipv4/conf/all/src_valid_mark", "ipv4/conf/default/src_valid_mark"} & changes.keys()


def test_where_the_mark_counts_everywhere_already_nothing_is_set() -> None:
    settings = host(ipv4__conf__all__rp_filter="1", ipv4__conf__all__src_valid_mark="1")
    assert not [name for name in desired_settings(AUTO, settings, {}) if name.endswith("src_valid_mark")]


def test_redirects_are_off_on_our_interface_alone() -> None:
    redirects = [name for name in desired_settings(AUTO, host(), {}) if name.endswith("send_redirects")]
    assert redirects == ["ipv4/conf/wgd0/send_redirects"]


@pytest.mark.parametrize(("everywhere", "marked"), [("0", False), ("1", True)])
def test_the_way_back_is_not_looked_up_for_our_interface_unless_the_host_filters_everywhere(
    everywhere: str, *, marked: bool
) -> None:
    settings = host(ipv4__conf__all__rp_filter=everywhere, ipv4__conf__wgd0__rp_filter="2")
    changes = desired_settings(AUTO, settings, {})
    assert (changes["ipv4/conf/wgd0/rp_filter"], changes["ipv4/conf/wgd0/accept_local"]) == ("0", "1")
    assert ("ipv4/conf/wgd0/src_valid_mark" in changes) == marked
    assert not [name for name in changes if name.endswith(("rp_filter", "accept_local")) and "wgd0" not in name]


def test_a_host_without_ipv6_is_forwarded_for_ipv4() -> None:
    settings = {name: value for name, value in host().items() if name.startswith("ipv4")}
    changes = desired_settings(AUTO, settings, {})
    assert changes[V4] == "1"
    assert not [name for name in changes if name.startswith("ipv6")]


def test_the_note_keeps_what_was_before_the_first_change() -> None:
    settings = host(ipv4__ip_forward="1")
    assert before({V4: "0"}, settings, {V4: "0"})[V4] == "0"


def test_the_note_holds_interfaces_that_forwarded_before_the_switch() -> None:
    noted = before({V4: "1"}, host(ipv4__conf__eth1__forwarding="1"), {})
    assert noted["ipv4/conf/eth1/forwarding"] == "1"
    assert "ipv4/conf/eth0/forwarding" not in noted


def test_restore_writes_the_switches_before_the_interfaces() -> None:
    originals = {"ipv4/conf/eth1/forwarding": "1", "ipv6/conf/eth0/accept_ra": "1", V6: "0", V4: "0"}
    assert list(restore(originals))[:2] == [V6, V4]


def test_what_was_given_back_is_the_operators_and_is_not_written_again() -> None:
    gateway = Gateway(host(ipv4__conf__eth1__forwarding="1"))
    gateway.apply(AUTO)
    gateway.apply(MANUAL)
    assert gateway.kernel[V4] == "0"
    assert gateway.kernel["ipv4/conf/eth1/forwarding"] == "1"
    write(gateway.kernel, {V4: "1", V6: "1"})
    gateway.apply(MANUAL)
    gateway.stop()
    assert (gateway.kernel[V4], gateway.kernel[V6]) == ("1", "1")


def test_a_family_that_is_given_up_leaves_the_other_alone() -> None:
    gateway = Gateway(host())
    gateway.apply(AUTO)
    gateway.apply(ONLY4)
    assert (gateway.kernel[V4], gateway.kernel[V6], gateway.kernel["ipv6/conf/eth0/accept_ra"]) == ("1", "0", "1")
