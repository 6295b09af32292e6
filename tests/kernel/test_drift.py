"""What somebody takes away is put back (promise 4): within two seconds, with one event, and without a storm."""

import re

import pytest
from world import World, lasting, wait_until

SECONDS = 2.0
"""How soon the promise says."""
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
GRANTED = """
  rules:
    - name: granted
      client_id: alice
      allow:
        - {to: 10.20.0.10, proto: tcp, ports: [8080]}
        - {to: 'fd20::10', proto: tcp, ports: [8080]}
"""
OPTIONS = ("-4", "-6")
GENERATION = re.compile(r"0x[0-9a-f]{2}(?=0{6}|f{6})")
"""Every change of the ruleset has another; nft writes it in two ways."""


@pytest.fixture(scope="module")
def world(world_factory):
    """A world whose daemons feed a watchdog so slow that nothing but a notification can make them look in time."""
    with world_factory() as made:
        made.configure(GRANTED)
        made.daemon = made.serve(watchdog_seconds=600)
        made.client = made.connect(made.alice, watchdog_seconds=600)
        yield made


def held(world):
    """Return what the gateway's kernel holds for wgd, apart from what changes by itself."""
    gateway = world.gateway
    commands = [("nft", "-s", "list", "table", "inet", "wgd"), ("ip", "address", "show", "dev", "wgd0")]
    for option in OPTIONS:
        commands += [("ip", option, "rule"), ("ip", option, "route", "show", "table", "7780")]
        commands += [("ip", option, "route", "show", "table", "7781")]
    settings = ("sysctl", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.wgd0.send_redirects")
    found = [sorted(lasting(gateway(*words)).splitlines()) if gateway.code(*words) == 0 else None for words in commands]
    return GENERATION.sub("generation", repr([*found, gateway(*settings)]))


def tampered(world, what, *commands):
    """Run the commands of somebody who means ill; return the drift events when all is as it was before."""
    before, seen, said = held(world), len(world.lines()), len(world.daemon.output)
    for words in commands:
        world.gateway(*words)
    wait_until("all is put back", lambda: held(world) == before, SECONDS)

    def told():
        return [line for line in world.lines()[seen:] if line["event"] == "drift" and line["object"] == what]

    events = wait_until("a drift event", told)
    assert {event["action"] for event in events} == {"restored"}
    wait_until("each is logged", lambda: world.daemon.output[said:].count(f"warning: {what} ") == len(events))
    return events


def nft(text):
    return ("nft", text)


def handle(world, chain, number):
    """Return the handle of a chain's rule, counted from 0."""
    listed = world.gateway("nft", "-a", "list", "chain", "inet", "wgd", chain)
    return re.findall(r"# handle (\d+)$", listed, re.MULTILINE)[number]


class TestRuleset:
    @pytest.mark.parametrize(
        ("what", "text"),
        [
            ("table", "flush ruleset"),
            ("table", "delete table inet wgd"),
            ("rule", "flush chain inet wgd forward"),
            ("rule", "insert rule inet wgd forward accept"),
            ("rule", "add chain inet wgd another"),
            ("rule", "chain inet wgd forward { policy drop; }"),
            ("rule", "add table inet wgd { flags dormant; }"),
            ("set", "flush set inet wgd clients4"),
            ("set", "add element inet wgd clients6 { fd99::1 }"),
            ("set", "flush map inet wgd out6"),
            ("set", "add set inet wgd another { type ipv4_addr; }"),
        ],
    )
    def test_is_put_back(self, world, what, text):
        tampered(world, what, nft(text))

    @FAMILIES
    def test_lets_through_what_it_did_before(self, world, family):
        tampered(world, "table", nft("delete table inet wgd"))
        assert world.alice.gets(World.LAN[family])
        assert not world.alice.gets(World.OTHER[family])

    def test_a_rule_replaced_under_its_chains_mark_is_put_back(self, world):
        number = handle(world, "forward", 1)
        events = tampered(world, "rule", nft(f"replace rule inet wgd forward handle {number} accept"))
        assert events[-1]["detail"] == "chain forward"

    def test_the_tables_of_others_are_left_alone(self, world):
        looked = world.daemon.output
        world.gateway("nft", "add table inet others { chain forward { type filter hook forward priority 5; }; }")
        tampered(world, "table", nft("delete table inet wgd"))
        assert world.gateway("nft", "list", "table", "inet", "others")
        world.gateway("nft", "delete", "table", "inet", "others")
        assert "others" not in world.daemon.output.removeprefix(looked)


@FAMILIES
class TestRouting:
    @pytest.mark.parametrize("priority", [7780, 7781, 7782, 7783])
    def test_a_deleted_rule_is_put_back(self, world, family, priority):
        (event,) = tampered(world, "rule", ("ip", OPTIONS[family], "rule", "del", "priority", str(priority)))
        assert event["detail"] == f"routing rule {priority} (IPv{'46'[family]}) is missing"

    def test_a_rule_that_says_it_is_ours_is_removed(self, world, family):
        words = ("ip", OPTIONS[family], "rule", "add", "priority", "7700", "lookup", "main", "protocol", "119")
        tampered(world, "rule", words)

    @pytest.mark.parametrize("table", ["7780", "7781"])
    def test_a_deleted_route_is_put_back(self, world, family, table):
        to = World.ADDRESSES["alice"][family]
        kind = ("prohibit",) if table == "7781" else ()
        tampered(world, "route", ("ip", OPTIONS[family], "route", "del", *kind, to, "table", table))

    def test_many_deleted_routes_are_one_event(self, world, family):
        (event,) = tampered(world, "route", ("ip", OPTIONS[family], "route", "flush", "table", "7781"))
        assert event["count"] == 2

    def test_a_route_put_in_the_place_of_ours_is_removed(self, world, family):
        to = World.ADDRESSES["alice"][family]
        tampered(world, "route", ("ip", OPTIONS[family], "route", "replace", to, "dev", "inner", "table", "7780"))

    def test_a_route_added_to_our_table_is_removed(self, world, family):
        via = World.LAN[family]
        tampered(world, "route", ("ip", OPTIONS[family], "route", "add", "default", "via", via, "table", "7780"))

    def test_forwarding_is_switched_on_again(self, world, family):
        switch = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")[family]
        tampered(world, "forwarding", ("sysctl", "-q", f"{switch}=0"))


class TestInterface:
    @FAMILIES
    def test_a_deleted_address_is_put_back(self, world, family):
        address = ("10.80.0.1/24", "fd80::1/64")[family]
        tampered(world, "address", ("ip", "address", "del", address, "dev", "wgd0"))

    def test_is_set_up_again_with_all_that_goes_with_it(self, world):
        (event,) = tampered(world, "link", ("ip", "link", "set", "wgd0", "down"))
        assert event["detail"] == "wgd0 is down"

    def test_that_went_down_for_a_moment_has_its_routes_back(self, world):
        tampered(world, "route", ("sh", "-c", "ip link set wgd0 down; ip link set wgd0 up"))


class TestFight:
    def test_against_somebody_who_deletes_the_table_again_and_again_ends_well_and_quietly(self, world):
        before, seen = held(world), len(world.lines())
        world.gateway("sh", "-c", "for _ in $(seq 20); do nft delete table inet wgd; sleep 0.15; done; true")
        wait_until("the table is put back", lambda: held(world) == before, SECONDS)
        events = [line for line in world.lines()[seen:] if line["event"] == "drift"]
        assert {(event["object"], event["action"]) for event in events} == {("table", "restored")}
        assert len(events) <= 4

    def test_our_own_reload_is_no_drift(self, world):
        seen = len(world.lines())
        world.configure(GRANTED.replace("[8080]", "[8080, 8081]"))
        world.daemon.reload()
        tampered(world, "table", nft("delete table inet wgd"))
        told = [(line["event"], line.get("object")) for line in world.lines()[seen:]]
        told = [each for each in told if each[0] in ("reloaded", "drift")]
        assert told == [("reloaded", None), ("reloaded", "rule"), ("reloaded", "rule"), ("drift", "table")]


class TestClient:
    """The client has no event log: what it put back is in its log."""

    @pytest.mark.parametrize(
        "words",
        [
            ("ip", "route", "del", "10.20.0.0/24"),
            ("ip", "-6", "route", "del", "fd20::/64"),
            ("ip", "address", "del", "10.80.0.2/32", "dev", "wgd-office"),
            ("ip", "address", "del", "fd80::2/128", "dev", "wgd-office"),
            ("ip", "link", "set", "wgd-office", "down"),
        ],
        ids=" ".join,
    )
    def test_puts_back_what_was_taken_away(self, world, words):
        def now():
            return [
                world.alice("ip", *option, "-o", "address", "show", "dev", "wgd-office") for option in ((), ("-6",))
            ] + [sorted(world.alice("ip", option, "route").splitlines()) for option in OPTIONS]

        def without_index(listed):
            return re.sub(r"pref \w+|valid_lft \w+|fe80::\S+", "", repr(listed))

        before = without_index(now())
        said = len(world.client.output)
        world.alice(*words)
        wait_until("all is put back", lambda: without_index(now()) == before, SECONDS)
        wait_until("it is said", lambda: world.client.output[said:].count("it is put back") == 1)


class TestAtTheWatchdogsPace:
    """What the kernel notifies nobody of, and what cannot be put back."""

    @pytest.fixture
    def granted(self, world):
        world.daemon.end()
        world.configure(GRANTED)
        world.daemon = world.serve()
        return world

    def drift(self, world, what, action):
        return wait_until(
            f"a drift event of {what}",
            lambda: [line for line in world.lines() if (line.get("object"), line.get("action")) == (what, action)],
        )

    def test_a_removed_peer_is_put_back(self, granted):
        granted.gateway("wg", "set", "wgd0", "peer", granted.keys["bob"], "remove")
        (event,) = self.drift(granted, "peer", "restored")
        assert event["detail"] == granted.keys["bob"]
        allowed_ips = granted.gateway("wg", "show", "wgd0", "allowed-ips")
        assert f"{granted.keys['bob']}\t10.80.0.3/32 fd80::3/128" in allowed_ips

    def test_an_interface_that_cannot_be_made_again_is_said_and_the_watchdog_goes_hungry(self, granted):
        wait_until("the watchdog is fed", lambda: "WATCHDOG=1" in granted.daemon.notified)
        granted.gateway("ip", "link", "delete", "wgd0")
        self.drift(granted, "link", "failed")
        failing = wait_until(
            "STATUS", lambda: [line for line in granted.daemon.notified if line.startswith("STATUS=failing")]
        )
        assert "wgd0" in failing[0]
        length = len(granted.daemon.notified)
        wait_until("more of it", lambda: len(granted.daemon.notified) > length + 2)
        assert "WATCHDOG=1" not in granted.daemon.notified[length:]
        granted.gateway("nft", "flush", "ruleset")
        wait_until(
            "the lock is put back all the same",
            lambda: granted.gateway.code("nft", "list", "table", "inet", "wgd") == 0,
        )
        failures = [line for line in granted.lines() if line.get("action") == "failed"]
        assert len(failures) <= 3

        granted.gateway.wireguard("wgd0")
        wait_until("the watchdog is fed again", lambda: granted.daemon.notified[-1] == "WATCHDOG=1")
        granted.alice("wg", "set", "wgd-office", "peer", granted.keys["gateway"], "remove")
        wait_until("a new session", lambda: granted.alice.gets(World.LAN[0]))
