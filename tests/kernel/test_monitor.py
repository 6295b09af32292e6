"""What the kernel really notifies, and that nothing which it could not notify goes unsaid."""

import os
import subprocess

import pytest
from pyroute2 import netns
from world import wait_until

from wgd.kernel.monitor import Monitor, Notice, Subject


class Host:
    def __init__(self) -> None:
        self.namespace = f"wgdt{os.getpid()}monitor"
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)

    def __call__(self, *words, text=None):
        subprocess.run(["ip", "netns", "exec", self.namespace, *words], input=text, text=True, check=True)


@pytest.fixture(scope="module")
def host():
    made = Host()
    made("ip", "link", "set", "lo", "up")
    made("ip", "link", "add", "wgd0", "type", "veth", "peer", "name", "other")
    made("ip", "link", "set", "other", "up")
    made("ip", "link", "set", "wgd0", "up")
    made("nft", "add table inet wgd; add set inet wgd numbers { type mark; }; add chain inet wgd forward")
    yield made
    subprocess.run(["ip", "netns", "delete", made.namespace], check=True)


@pytest.fixture
def monitor(host):
    netns.pushns(host.namespace)
    made = Monitor()
    netns.popns()
    yield made
    made.close()


def heard(monitor, notice):
    """Wait for a notice."""
    wait_until(str(notice), lambda: notice in monitor.read())


@pytest.mark.parametrize(
    ("words", "notice"),
    [
        (["nft", "add rule inet wgd forward accept"], Notice(Subject.TABLE, "inet wgd")),
        (["nft", "add element inet wgd numbers { 1 }"], Notice(Subject.TABLE, "inet wgd")),
        (["nft", "add table ip wgd"], Notice(Subject.TABLE, "ip wgd")),
        (["ip", "address", "add", "10.9.0.1/24", "dev", "wgd0"], Notice(Subject.ADDRESS)),
        (["ip", "-6", "address", "add", "fd09::1/64", "dev", "wgd0"], Notice(Subject.ADDRESS)),
        (["ip", "route", "add", "10.8.0.0/24", "dev", "wgd0", "table", "7780"], Notice(Subject.ROUTE, 7780)),
        (["ip", "-6", "route", "add", "fd08::/64", "dev", "wgd0", "table", "7780"], Notice(Subject.ROUTE, 7780)),
        (["ip", "route", "add", "10.7.0.0/24", "dev", "wgd0"], Notice(Subject.ROUTE, 254)),
        (["ip", "rule", "add", "lookup", "99"], Notice(Subject.RULE)),
        (["ip", "-6", "rule", "add", "lookup", "99"], Notice(Subject.RULE)),
        (["sysctl", "-q", "net.ipv4.ip_forward=1"], Notice(Subject.FORWARDING)),
        (["sysctl", "-q", "net.ipv6.conf.all.forwarding=1"], Notice(Subject.FORWARDING)),
        (["ip", "link", "set", "wgd0", "mtu", "1400"], Notice(Subject.LINK, "wgd0")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_change_is_notified(host, monitor, words, notice):
    assert notice not in monitor.read()
    host(*words)
    heard(monitor, notice)
    assert monitor.read() == frozenset()


def test_what_the_kernel_could_not_notify_is_said(host, monitor):
    elements = ", ".join(map(str, range(1000, 30_000)))
    host("nft", "-f", "-", text=f"add element inet wgd numbers {{ {elements} }}")
    heard(monitor, Notice(Subject.LOST))
    host("ip", "rule", "add", "lookup", "98")
    heard(monitor, Notice(Subject.RULE))


def test_what_is_discarded_is_forgotten(host, monitor):
    host("ip", "rule", "add", "lookup", "97")
    monitor.discard()
    assert monitor.read() == frozenset()
    host("ip", "rule", "add", "lookup", "96")
    heard(monitor, Notice(Subject.RULE))
