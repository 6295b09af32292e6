"""What others on the host do to wgd's traffic is found in what the kernel really lists, and named with its remedy."""

import os
import re
import subprocess

import pytest
from pyroute2 import netns
from world import World, wait_until

from tests.unit.policy.policy_examples import server_config
from wgd.kernel.links import Links
from wgd.kernel.nft_others import read_other_tables
from wgd.plan.neighbours import findings
from wgd.policy.skeleton import Context, fixed_chains

CONFIG = server_config()
BIT = CONFIG.routing.mark
POLICY = """
  rules:
    - client_id: alice
      allow: [{to: 10.20.0.10, proto: tcp, ports: [8080]}]
"""
CLEAN = """
table inet others {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        ct state invalid drop
        iifname "lo" drop
        iifname { "wgd0", "eth1" } accept
        tcp dport 25 drop
    }
    chain input {
        type filter hook input priority 0; policy drop;
        ct state vmap { invalid : drop, established : accept, related : accept }
        meta l4proto vmap { icmp : accept, ipv6-icmp : accept }
        udp dport { 53, 51820 } accept
    }
    chain prerouting {
        type filter hook prerouting priority -150; policy accept;
        iifname "eth9" meta mark set 0x1
        meta mark set meta mark | 0x2
    }
    chain postrouting {
        type nat hook postrouting priority 100; policy accept;
        ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
        iifname != "wgd0" oifname "eth0" masquerade
    }
}
"""


class Host:
    """A network namespace."""

    def __init__(self) -> None:
        self.namespace = f"wgdt{os.getpid()}neighbours"
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        self("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")

    def __call__(self, *words, text=None):
        subprocess.run(
            ["ip", "netns", "exec", self.namespace, *words], input=text, text=True, check=True, capture_output=True
        )

    def shell(self, commands):
        for command in commands.strip().splitlines():
            self(*command.split())

    def findings(self, settings=None):
        netns.pushns(self.namespace)
        try:
            links = Links()
            rules = links.rules()
            links.close()
            return findings(read_other_tables(), rules, settings or {}, CONFIG)
        finally:
            netns.popns()

    def one(self):
        found = self.findings()
        assert len(found) == 1, [str(finding) for finding in found]
        return found[0]

    def clear(self):
        self("nft", "flush", "ruleset")
        for option in ("-4", "-6"):
            listed = subprocess.run(
                ["ip", "netns", "exec", self.namespace, "ip", option, "rule"],
                text=True,
                check=True,
                capture_output=True,
            ).stdout
            for priority in re.findall(r"^(\d+):", listed, re.MULTILINE):
                if priority not in ("0", "32766", "32767"):
                    self("ip", option, "rule", "del", "priority", priority)


@pytest.fixture(scope="module")
def module_host():
    host = Host()
    yield host
    subprocess.run(["ip", "netns", "delete", host.namespace], check=True)


@pytest.fixture
def host(module_host):
    yield module_host
    module_host.clear()


class TestNobody:
    def test_is_found_on_a_bare_host(self, host):
        assert host.findings() == ()

    def test_is_found_in_our_own_table(self, host):
        chains = fixed_chains(CONFIG, Context("00000000"))
        host("nft", "-f", "-", text=f"table inet wgd {{ chain forward {{ {chains['forward'].hook} drop; }}; }}")
        assert host.findings() == ()

    def test_is_found_where_others_let_clients_pass(self, host):
        host("nft", "-f", "-", text=CLEAN.replace("tcp dport 25 drop", ""))
        assert [str(finding) for finding in host.findings()] == []

    def test_is_found_in_iptables_that_lets_clients_pass(self, host):
        host.shell("""
            iptables -P FORWARD DROP
            iptables -A FORWARD -i wgd0 -j ACCEPT
            iptables -A FORWARD -o wgd0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            iptables -A FORWARD -i docker0 ! -o docker0 -j REJECT
            iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
            iptables -t mangle -A PREROUTING -i eth1 -j MARK --set-mark 0x1
            ip rule add priority 32000 lookup 99
        """)
        assert [str(finding) for finding in host.findings()] == []


@pytest.mark.parametrize("program", ["iptables", "ip6tables"])
class TestIptables:
    def test_that_drops_by_policy_as_docker_has_it(self, host, program):
        host.shell(f"""
            {program} -N DOCKER-USER
            {program} -P FORWARD DROP
            {program} -A FORWARD -j DOCKER-USER
            {program} -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            {program} -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
        """)
        found = host.one()
        assert found.where.endswith("filter, chain FORWARD")
        assert found.effect == "its policy drops what clients send and replies to clients"
        assert f"{program} -I DOCKER-USER -i wgd0 -j ACCEPT" in found.remedy
        host.shell(f"""
            {program} -I DOCKER-USER -i wgd0 -j ACCEPT
            {program} -I DOCKER-USER -o wgd0 -j ACCEPT
        """)
        assert host.findings() == ()

    def test_that_rejects_at_its_end_as_ufw_has_it(self, host, program):
        host.shell(f"""
            {program} -N ufw-before-forward
            {program} -N ufw-reject-forward
            {program} -A FORWARD -j ufw-before-forward
            {program} -A FORWARD -j ufw-reject-forward
            {program} -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            {program} -A ufw-reject-forward -j REJECT
        """)
        found = host.one()
        assert "chain ufw-reject-forward, rule `reject`" in found.where
        assert found.effect == "drops what clients send"
        assert "ufw route allow in on wgd0" in found.remedy

    def test_that_closes_the_listen_port(self, host, program):
        host.shell(f"""
            {program} -P INPUT DROP
            {program} -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            {program} -A INPUT -p tcp --dport 22 -j ACCEPT
        """)
        found = host.one()
        assert found.effect == "its policy drops the tunnel's own packets"
        assert f"{program} -I INPUT -p udp --dport 51820 -j ACCEPT" in found.remedy
        host(program, "-I", "INPUT", "-p", "udp", "--dport", "51820", "-j", "ACCEPT")
        assert host.findings() == ()

    def test_that_sets_our_mark(self, host, program):
        host.shell(f"{program} -t mangle -A PREROUTING -j MARK --set-xmark 0x10000000/0x10000000")
        found = host.one()
        assert "chain PREROUTING, rule `meta mark set mark or 0x10000000`" in found.where
        assert "sets wgd's mark 0x10000000" in found.effect
        assert "0xefffffff" in found.remedy

    def test_that_sets_our_mark_where_no_chain_of_ours_clears_it(self, host, program):
        host.shell(f"{program} -t mangle -A INPUT -j MARK --set-mark 0x10000000")
        assert host.one().effect.endswith("what wgd has denied passes for allowed")

    def test_that_clears_our_mark(self, host, program):
        host.shell(f"{program} -t mangle -A FORWARD -i wgd0 -j MARK --set-mark 0x5")
        assert host.one().effect.endswith("what wgd has allowed passes for denied")

    def test_that_restores_marks_of_flows(self, host, program):
        host.shell(f"{program} -t mangle -A PREROUTING -j CONNMARK --restore-mark")
        assert "may change wgd's mark" in host.one().effect
        host.shell(f"{program} -t mangle -F PREROUTING")
        host.shell(f"{program} -t mangle -A PREROUTING -j CONNMARK --restore-mark --mask 0xff")
        assert host.findings() == ()

    def test_that_keeps_clients_out_of_conntrack(self, host, program):
        host.shell(f"{program} -t raw -A PREROUTING -i wgd0 -j CT --notrack")
        assert "out of conntrack" in host.one().effect

    def test_that_hides_the_clients(self, host, program):
        host.shell(f"{program} -t nat -A POSTROUTING -o eth0 -j MASQUERADE")
        found = host.one()
        assert "hides the clients' addresses" in found.effect


class TestNftables:
    @pytest.mark.parametrize(
        ("rule", "effect"),
        [
            ("drop", "drops what clients send and replies to clients"),
            ("iifname wgd0 reject", "drops what clients send"),
            ("oifname wg* drop", "drops replies to clients and may drop what clients send"),
            ("tcp dport 25 drop", "may drop what clients send and replies to clients"),
            ("iifname wgd0 ip saddr 10.80.0.0/12 drop", "drops what clients send"),
            ("iifname wgd0 ip saddr 10.80.0.0/16 drop", "may drop what clients send"),
            ("ip6 daddr fd80::/15 drop", "drops replies to clients and may drop what clients send"),
            ("ct state vmap { new : drop, established : accept }", "drops what clients send"),
            ("iifname vmap { wgd0 : drop, eth0 : accept }", "drops what clients send"),
            ("ct state new jump below", "drops what clients send"),
        ],
    )
    def test_that_drops_in_a_rule(self, host, rule, effect):
        text = (
            "table inet others { chain below { counter reject; };"
            f" chain forward {{ type filter hook forward priority 5; {rule}; }}; }}"
        )
        host("nft", "-f", "-", text=text)
        found = host.one()
        assert found.where.startswith("table inet others, chain ")
        assert found.effect == effect
        assert f"nft insert rule inet others {'below' if 'below' in rule else 'forward'} iifname" in found.remedy

    @pytest.mark.parametrize(
        "rule",
        [
            "ct state invalid drop",
            "iifname eth0 oifname eth1 iifname lo drop",
            "iifname wgd0 ip6 saddr fd99::/64 drop",
            "iifname docker0 oifname != wgd0 drop",
            "meta mark & 0x10000000 != 0 accept; drop",
        ],
    )
    def test_that_drops_none_of_ours_is_left_alone(self, host, rule):
        text = f"table inet others {{ chain forward {{ type filter hook forward priority 5; {rule}; }}; }}"
        host("nft", "-f", "-", text=text)
        assert [str(finding) for finding in host.findings()] == []

    def test_that_puts_clients_into_a_zone(self, host):
        text = "table inet others { chain early { type filter hook prerouting priority -300; ct zone set 5; }; }"
        host("nft", "-f", "-", text=text)
        assert "conntrack zone" in host.one().effect

    def test_that_sets_our_mark_after_ours(self, host):
        text = (
            "table inet others { chain late { type filter hook prerouting priority 1001;"
            f" meta mark set meta mark | 0x{BIT:x}; }}; }}"
        )
        host("nft", "-f", "-", text=text)
        assert host.one().effect.endswith("what wgd has denied passes for allowed")

    def test_that_hides_the_clients(self, host):
        text = (
            "table inet others { chain out { type nat hook postrouting priority 100;"
            " ip saddr 10.80.0.0/24 snat ip to 192.0.2.9; }; }"
        )
        host("nft", "-f", "-", text=text)
        assert "hides the clients' addresses" in host.one().effect


@pytest.mark.parametrize("option", ["-4", "-6"])
class TestRoutingRules:
    def test_before_ours_are_found(self, host, option):
        host("ip", option, "rule", "add", "priority", "7780", "lookup", "7780", "protocol", "119")
        host("ip", option, "rule", "add", "lookup", "99")
        found = host.one()
        assert found.where == f"routing rule 7779 (IPv{option[1]}), `lookup 99`"
        assert "takes packets past wgd's routing rules" in found.effect

    def test_that_drop_before_ours_are_found(self, host, option):
        host("ip", option, "rule", "add", "priority", "5", "prohibit")
        assert "drops packets before wgd's routing rules" in host.one().effect

    def test_that_match_our_mark_are_found_wherever_they_are(self, host, option):
        host("ip", option, "rule", "add", "priority", "30000", "fwmark", hex(BIT), "lookup", "99")
        found = host.one()
        assert f"`fwmark 0x{BIT:x}/0xffffffff lookup 99`" in found.where
        assert "takes what wgd has allowed elsewhere" in found.effect

    def test_after_ours_are_left_alone(self, host, option):
        host("ip", option, "rule", "add", "priority", "30000", "fwmark", "0x1", "lookup", "99")
        assert host.findings() == ()


def test_forwarding_switched_off_for_the_interface_alone_is_found(host):
    settings = {"ipv4/ip_forward": "1", "ipv4/conf/wgd0/forwarding": "0"}
    (found,) = host.findings(settings)
    assert found.where == "sysctl net.ipv4.conf.wgd0.forwarding"
    assert host.findings({**settings, "ipv4/conf/wgd0/forwarding": "1"}) == ()


class TestStatus:
    """A gateway whose host gets in its way says so by itself, and its remedy is one."""

    @pytest.fixture(scope="class")
    def world(self, world_factory):
        with world_factory() as made:
            made.configure(POLICY)
            made.daemon = made.serve()
            made.connect(made.alice)
            yield made

    def test_names_who_drops_and_the_remedy_that_helps(self, world):
        status = ("/usr/bin/python3", "-m", "wgd.cli.server", "status")
        assert world.alice.gets(World.LAN[0])
        assert "in the way" not in world.gateway(*status)
        world.gateway("iptables", "-P", "FORWARD", "DROP")
        assert not world.alice.gets(World.LAN[0])
        said = wait_until("a warning", lambda: re.search(r"in the way: .* -j ACCEPT\.", world.daemon.output))
        wait_until("STATUS", lambda: "1 in the way" in world.daemon.notified[-2])
        shown = world.gateway(*status)
        first = "in the way: table ip filter, chain FORWARD: its policy drops what clients send"
        assert first in shown
        assert first in world.gateway(*status[:3], "explain", "alice", World.LAN[0], "--port", "8080")
        remedy = said[0].partition("decides about it: ")[2].removesuffix(".")
        assert remedy in shown
        world.gateway("sh", "-c", remedy)
        assert world.alice.gets(World.LAN[0])
        wait_until("that it is over", lambda: "no longer in the way" in world.daemon.output)
        assert "in the way" not in world.gateway(*status)
