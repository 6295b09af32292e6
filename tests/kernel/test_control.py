"""The commands that ask the daemon over its control socket, as an operator runs them on the gateway."""

import contextlib
import json
import re
import socket
import subprocess

import pytest
from flow import made_in, reaches
from world import PYTHON, World, lasting, wait_until

from wgd.host import control
from wgd.host.varlink import VarlinkError

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
PORT = 9000
FIRST = """
  rules:
    - name: web
      client_id: alice
      allow:
        - {to: 10.20.0.10, proto: tcp, ports: [8080]}
        - {to: 'fd20::10', proto: tcp, ports: [8080]}
"""
SECOND = (
    FIRST
    + """
    - name: more
      client_id: alice
      allow:
        - {to: 10.20.0.11, proto: tcp, ports: [9000]}
        - {to: 'fd20::11', proto: tcp, ports: [9000]}
"""
)


@pytest.fixture(scope="module")
def world(world_factory):
    with world_factory() as made:
        made.configure(FIRST)
        made.daemon = made.serve()
        made.connect(made.alice)
        yield made


@pytest.fixture
def first(world):
    """The world with its gateway serving the first policy, whatever the test before left."""
    world.configure(FIRST)
    if world.daemon.code is None:
        with contextlib.suppress(VarlinkError):
            call(world, "Confirm")
        call(world, "Reload")
    else:
        world.daemon = world.serve()
    return world


def ask(world, *words):
    """Run a wgd-server command on the gateway."""
    command = world.gateway.inside(PYTHON, "-m", "wgd.cli.server", *words)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def call(world, method):
    """Call a method at once, without the time that a command needs to begin."""
    return control.ask(socket_of(world), "wgd-server", f"io.wgd.Server.{method}", {}, 30)


def raw_call(world, method, group):
    """Call a method as nobody with that group, by a program that needs nothing but Python; return the whole answer."""
    program = (
        "import json, socket, sys\n"
        "try:\n"
        "    connection = socket.socket(socket.AF_UNIX)\n"
        "    connection.connect('/run/wgd-server/control')\n"
        "    connection.sendall(sys.argv[1].encode() + bytes(1))\n"
        "    answer = b''\n"
        "    while not answer.endswith(bytes(1)):\n"
        "        answer += connection.recv(65536)\n"
        "    print(answer[:-1].decode())\n"
        "except OSError as error:\n"
        "    print(json.dumps({'error': str(error)}))\n"
    )
    nobody = ("setpriv", "--reuid=65534", f"--regid={group}", "--clear-groups")
    message = json.dumps({"method": f"io.wgd.Server.{method}"})
    return json.loads(world.gateway(*nobody, PYTHON, "-c", program, message))


def status(world):
    return call(world, "Status")["status"]


def socket_of(world):
    return world.gateway.run_dir("wgd-server/control")


def opened(world, family):
    return reaches(world.alice, world.lan, World.OTHER[family], PORT)


class TestReload:
    @FAMILIES
    def test_waits_and_is_0_when_it_is_applied(self, first, family):
        assert not opened(first, family)
        first.configure(SECOND)
        done = ask(first, "reload")
        assert (done.returncode, done.stdout, done.stderr) == (0, "reloaded\n", "")
        assert opened(first, family)

    def test_is_1_with_the_reasons_and_changes_nothing_when_it_is_refused(self, first):
        before = lasting(first.gateway("nft", "-a", "list", "ruleset"))
        first.configure(
            SECOND + "    - {client_id: nobody, allow: [10.20.0.0/24]}\n    - {client_id: alice, allow: [x]}\n"
        )
        done = ask(first, "reload")
        assert done.returncode == 1
        problems = [line for line in done.stderr.splitlines() if line.startswith(f"{first.server_yaml}:")]
        assert len(problems) == 2
        assert lasting(first.gateway("nft", "-a", "list", "ruleset")) == before

    def test_is_4_without_a_daemon(self, first):
        first.daemon.kill()
        done = ask(first, "reload")
        assert (done.returncode, done.stdout) == (4, "")
        assert "no wgd-server runs here" in done.stderr


class TestReloadThatFailsOnTheWay:
    """A step in the middle fails, after ruleset and routing rules were changed: everything is as it was."""

    def shown(self, world):
        node = world.gateway
        return {
            "nftables": self.table(world),
            "rules": node("ip", "-4", "rule") + node("ip", "-6", "rule"),
            "addresses": node("ip", "-o", "address", "show", "dev", "wgd0"),
            "routes": node("ip", "-4", "route", "show", "table", "all")
            + node("ip", "-6", "route", "show", "table", "all"),
            "peers": sorted(node("wg", "show", "wgd0", "allowed-ips").splitlines()),
            "port": node("wg", "show", "wgd0", "listen-port"),
            "forwarding": node("sysctl", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"),
        }

    def table(self, world):
        """Return the lines of the table in an order of their own, and without the generation: it moves on."""
        text = lasting(world.gateway("nft", "--stateless", "list", "ruleset"))
        return sorted(re.sub(r"0x[0-9a-f]{2}(000000|ffffff)", "generation", text).splitlines())

    def move_to_another_port(self, world):
        world.configure(SECOND, mode="observe")
        world.server_yaml.write_text(world.server_yaml.read_text().replace("listen_port: 51820", "listen_port: 51999"))

    def test_goes_back_and_names_the_step(self, first):
        before = self.shown(first)
        self.move_to_another_port(first)
        with made_in(first.gateway, socket.AF_INET6, socket.SOCK_DGRAM) as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            holder.bind(("::", 51999))
            done = ask(first, "reload")
        assert done.returncode == 1
        assert "while setting the peers" in done.stderr
        assert self.shown(first) == before
        assert first.alice.gets(World.LAN[0])
        assert not opened(first, 0)

    def test_is_applied_when_nothing_is_in_the_way(self, first):
        """The control: the same reload, and the port is free."""
        before = self.shown(first)
        self.move_to_another_port(first)
        assert ask(first, "reload").returncode == 0
        after = self.shown(first)
        assert {name for name in before if before[name] != after[name]} == {"nftables", "rules", "port"}


class TestConfirm:
    def test_keeps_the_new_config(self, first):
        first.configure(SECOND)
        assert "wgd-server confirm" in ask(first, "reload", "--confirm", "2").stdout
        assert ask(first, "confirm").returncode == 0
        assert status(first)["confirm_seconds"] is None
        assert ask(first, "confirm").returncode == 1, "there is nothing left to confirm"

    @FAMILIES
    def test_that_does_not_come_goes_back_by_itself(self, first, family):
        count = first.daemon.output.count("went back")
        first.configure(SECOND)
        assert ask(first, "reload", "--confirm", "3").returncode == 0
        assert opened(first, family)
        wait_until("the way back", lambda: first.daemon.output.count("went back") > count)
        assert not opened(first, family)
        assert first.alice.gets(World.LAN[family]), "what the config before granted goes on"

    def test_is_not_given_by_another_reload(self, first):
        first.configure(SECOND)
        ask(first, "reload", "--confirm", "3")
        assert "reloaded" in first.daemon.reload()
        count = first.daemon.output.count("went back")
        assert status(first)["confirm_seconds"] is not None
        wait_until("the way back", lambda: first.daemon.output.count("went back") > count)
        assert not opened(first, 0)


class TestPlan:
    def test_says_what_a_reload_would_change_and_changes_nothing(self, first):
        before = lasting(first.gateway("nft", "-a", "list", "ruleset"))
        first.configure(SECOND, mode="observe")
        done = ask(first, "plan")
        assert done.returncode == 0
        assert "+ policy  more[0]: alice to 10.20.0.11/32 tcp 9000\n" in done.stdout
        assert "authz_mode: enforce -> observe" in done.stdout
        assert "- rule" in done.stdout
        assert lasting(first.gateway("nft", "-a", "list", "ruleset")) == before

    def test_of_the_config_in_force_says_that_there_is_nothing_to_do(self, first):
        done = ask(first, "plan")
        assert (done.returncode, done.stdout) == (0, "nothing to do: a reload would change nothing\n")

    def test_of_a_bad_config_is_1_with_the_problems(self, first):
        first.configure(FIRST, mode="strict")
        done = ask(first, "plan")
        assert done.returncode == 1
        assert "authz_mode" in done.stderr


class TestStatus:
    def test_shows_interface_peers_policy_and_what_was_dropped(self, first):
        assert not opened(first, 0)
        found = json.loads(ask(first, "status", "--json").stdout)
        assert found["interface"] == {
            "name": "wgd0", "addresses": ["10.80.0.1/24", "fd80::1/64"], "listen_port": 51820, "mtu": 1420, "up": True
        }  # fmt: skip
        alice, bob = found["peers"]
        assert (alice["name"], alice["live"], alice["public_key"]) == ("alice", True, first.keys["alice"])
        assert alice["endpoint"].startswith("192.0.2.2:")
        assert alice["rx_bytes"] > 0
        assert (bob["name"], bob["live"], bob["last_handshake"]) == ("bob", False, None)
        assert found["policy"] == {"rules": 1, "allow": 2, "clients": 1}
        assert found["dropped"]["denied"] > 0
        assert found["event_log"]["lost"] == 0
        assert found["event_log"]["events"] > 0

    def test_shows_the_same_to_a_person(self, first):
        done = ask(first, "status")
        assert done.returncode == 0
        assert "interface: wgd0 up, port 51820" in done.stdout
        assert "\nalice " in done.stdout
        assert "\033" not in done.stdout

    def test_counts_what_was_put_back(self, first):
        before = status(first)["drift_restored"]
        first.gateway("ip", "rule", "del", "priority", "7780")
        wait_until(
            "drift in the status",
            lambda: status(first)["drift_restored"] > before,
        )
        assert "routing rule 7780" in ask(first, "status").stdout

    def test_never_shows_a_key_that_is_secret(self, first):
        private = (first.scratch / "gateway.key").read_text().strip()
        assert private not in ask(first, "status", "--json").stdout


class TestExplain:
    @FAMILIES
    def test_says_what_really_happens(self, first, family):
        for to, port in ((World.LAN[family], 8080), (World.LAN[family], PORT), (World.OTHER[family], 8080)):
            done = ask(first, "explain", "alice", to, "--port", str(port))
            passes = reaches(first.alice, first.lan, to, port) if port == PORT else first.alice.gets(to, port)
            assert done.returncode == (0 if passes else 1), done.stdout + done.stderr
        assert "by web[" in ask(first, "explain", "alice", World.LAN[family], "--port", "8080").stdout

    @FAMILIES
    def test_says_what_the_network_may_begin(self, first, family):
        allowed = f"{{from: '{World.LAN[family]}', proto: tcp, ports: [{PORT}]}}"
        first.configure(FIRST + f"    - {{name: back, client_id: alice, allow: [], allow_from: [{allowed}]}}\n")
        assert ask(first, "reload").returncode == 0
        alice = World.ADDRESSES["alice"][family]
        for source, port in ((World.LAN[family], PORT), (World.LAN[family], PORT + 1), (World.OTHER[family], PORT)):
            done = ask(first, "explain", "alice", "--from", source, "--port", str(port))
            passes = reaches(first.lan, first.alice, alice, port, source)
            assert done.returncode == (0 if passes else 1), done.stdout + done.stderr
        assert ask(first, "explain", "alice", "--from", World.INNER[family], "--port", "9").returncode == 0

    @FAMILIES
    def test_knows_the_gateways_own_addresses(self, first, family):
        first.configure(FIRST + "    - {client_id: alice, allow: [10.20.0.0/24, 'fd20::/64']}\n")
        assert ask(first, "reload").returncode == 0
        done = ask(first, "explain", "alice", World.INNER[family], "--port", str(PORT))
        assert done.returncode == 1
        assert "an address of the gateway itself" in done.stdout
        assert not reaches(first.alice, first.gateway, World.INNER[family], PORT)
        assert ask(first, "explain", "alice", World.OTHER[family]).returncode == 0
        assert ask(first, "explain", "alice", World.TUNNEL[family], "--proto", "icmp").returncode == 0

    def test_takes_a_public_key_and_answers_json(self, first):
        done = ask(first, "explain", first.keys["alice"], World.LAN[0], "--port", "8080", "--json")
        found = json.loads(done.stdout)
        assert (found["client"], found["agree"], found["config"]["rule"]) == ("alice", True, "web[0]")

    @pytest.mark.parametrize("to", ["10.99.0.1", "fd99::1"])
    def test_is_3_when_the_kernel_does_not_do_what_the_config_says(self, first, to):
        first.configure(FIRST + f"    - {{client_id: alice, allow: ['{to}']}}\n")
        assert ask(first, "reload").returncode == 0
        done = ask(first, "explain", "alice", to, "--port", "80")
        assert done.returncode == 3, done.stdout + done.stderr
        assert "config: allow" in done.stdout
        assert "Network is unreachable" in done.stdout

    def test_of_nobody_is_4(self, first):
        assert ask(first, "explain", "nobody", World.LAN[0]).returncode == 4


class TestSocket:
    def test_is_for_owner_and_group_alone(self, first):
        assert socket_of(first).stat().st_mode & 0o777 == 0o660

    def test_lets_its_group_read_and_change_nothing(self, first):
        assert "parameters" in raw_call(first, "Status", group=0)
        refused = raw_call(first, "Reload", group=0)
        assert refused["error"] == "org.varlink.service.PermissionDenied"
        assert "parameters" in raw_call(first, "Plan", group=0)

    def test_lets_nobody_else_in(self, first):
        assert "Permission denied" in raw_call(first, "Status", group=65534)["error"]

    def test_of_a_killed_daemon_is_replaced(self, first):
        first.daemon.kill()
        assert socket_of(first).is_socket()
        first.daemon = first.serve()
        assert ask(first, "status").returncode == 0

    def test_is_gone_after_a_stop(self, first):
        first.daemon.end()
        assert not socket_of(first).exists()
        assert ask(first, "status").returncode == 4

    def test_of_a_live_daemon_refuses_a_second_one(self, first):
        before = lasting(first.gateway("nft", "--handle", "--stateless", "list", "ruleset"))
        second = first.gateway.service("-m", "wgd.cli.server", "run", "--config", str(first.server_yaml))
        assert second.wait() == 1
        assert "another daemon already runs" in second.output
        assert ask(first, "status").returncode == 0
        assert lasting(first.gateway("nft", "--handle", "--stateless", "list", "ruleset")) == before

    def test_held_by_silence_and_garbage_answers_all_the_same(self, first):
        held = []
        try:
            for number in range(200):
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                held.append(connection)
                connection.connect(str(socket_of(first)))
                connection.send((b"", b"garbage\0", b'{"method":', b"x" * 5000)[number % 4])
            assert ask(first, "status").returncode == 0
            assert ask(first, "reload").returncode == 0
        finally:
            for connection in held:
                connection.close()
