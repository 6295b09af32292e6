"""Promise 6: lines written plus losses recorded equal what the kernel's counters saw, whatever happens meanwhile."""

import json
import os
import signal
from pathlib import Path

import pytest
from kept import Kept
from world import PYTHON, wait_until

PORT = 7000
POLICY = f"""
  rules:
    - client_id: alice
      allow:
        - {{to: 10.20.0.0/24, proto: udp, ports: [{PORT}]}}
        - {{to: 'fd20::/64', proto: udp, ports: [{PORT}]}}
"""
FLOWS = """
import socket, sys, time
port, count = int(sys.argv[1]), int(sys.argv[2])
for _ in range(count):
    for family, to in ((socket.AF_INET, "10.20.0.10"), (socket.AF_INET6, "fd20::10")):
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", (to, port))
    time.sleep(0.0002)
"""


@pytest.fixture(scope="module")
def world(world_factory):
    with world_factory() as made:
        made.configure(POLICY)
        made.daemon = made.serve("--leave-up")
        made.connect(made.alice)
        # None of the test's flows ends meanwhile: one whose end nobody hears is a loss, too.
        made.gateway("sysctl", "-q", "net.netfilter.nf_conntrack_udp_timeout=600")
        yield made


class Flows:
    """New flows of both families, one datagram each, from alice to the LAN: each is an event."""

    def __init__(self, world, count, port=PORT):
        self.world = world
        self._before = counted(world)
        program = world.scratch / "flows.py"
        program.write_text(FLOWS)
        self.sender = world.alice.start(PYTHON, str(program), str(port), str(count))

    def wait_for(self, events):
        """Wait until the kernel has logged so many events more."""
        wait_until(f"{events} events", lambda: counted(self.world) >= self._before + events)

    def end(self):
        assert self.sender.wait() == 0, self.sender.output


def counters(world):
    listed = json.loads(world.gateway("nft", "-j", "list", "counters", "table", "inet", "wgd"))["nftables"]
    return {found["counter"]["name"]: found["counter"]["packets"] for found in listed if "counter" in found}


def counted(world):
    """How many packets the ruleset has logged, or denied without logging them."""
    found = counters(world)
    # Flows that have begun: their ends are accounted for apart (test_flow_lives.py).
    del found["recorded"]
    return sum(found.values())


def told(world):
    """How many packets the log has lines for, all its files together, and how many it says are lost, by reason."""
    lines, lost = 0, {}
    for path in log_files(world):
        for line in path.read_bytes().splitlines():
            entry = json.loads(line)
            if entry["event"] == "lost":
                lost[entry["reason"]] = lost.get(entry["reason"], 0) + entry["count"]
            else:
                lines += entry["event"] in ("open", "deny", "packet")
    return lines, lost


def log_files(world):
    return sorted(world.events.parent.glob(f"{world.events.name}*"))


def agrees(world):
    lines, lost = told(world)
    return lines + sum(lost.values()) == counted(world)


def settle(world):
    """Wait until the two agree, and see that they still do after the next comparisons; return the losses."""
    wait_until(f"agreement: {counters(world)} and {told(world)}", lambda: agrees(world), 10)
    fed = world.daemon.notified.count("WATCHDOG=1")
    wait_until("more comparisons", lambda: world.daemon.notified.count("WATCHDOG=1") > fed + 2)
    assert agrees(world), f"{counters(world)} and {told(world)}"
    return told(world)[1]


def recorder(world):
    """The recorder's process id."""
    children = Path(f"/proc/{world.daemon.pid}/task/{world.daemon.pid}/children").read_text().split()
    (pid,) = (int(pid) for pid in children if "wgd.daemon.recorder" in Path(f"/proc/{pid}/cmdline").read_text())
    return pid


def test_every_event_is_a_line(world):
    before = counted(world)
    Flows(world, 500).end()
    assert settle(world) == {}
    assert counted(world) > before + 500


def test_a_recorder_that_is_killed_again_and_again(world):
    flows = Flows(world, 1500)
    for number in range(3):
        flows.wait_for(500 * (number + 1))
        wait_until("a recorder", lambda: recorder_is_there(world))
        pid = recorder(world)
        os.kill(pid, signal.SIGKILL)
        wait_until("another recorder", lambda pid=pid: recorder_is_there(world) and recorder(world) != pid)
    flows.end()
    assert settle(world).keys() <= {"restart"}


def recorder_is_there(world):
    try:
        recorder(world)
    except (OSError, ValueError):
        return False
    return True


def test_a_reload_with_other_names(world):
    flows = Flows(world, 1500)
    for number in range(3):
        flows.wait_for(500 * (number + 1))
        world.configure(POLICY.replace("- client_id", f"- name: rule {number}\n      client_id"))
        assert "reloaded" in world.daemon.reload()
    flows.end()
    before = told(world)[1]
    assert settle(world) == before, "a reload loses nothing"
    assert not [line for line in world.lines() if line["event"] == "open" and "client" not in line]


def test_a_killed_daemon(world):
    flows = Flows(world, 1500)
    flows.wait_for(500)
    world.daemon.kill()
    world.daemon = world.serve("--leave-up")
    flows.end()
    assert settle(world).keys() <= {"restart"}


def test_a_restart(world):
    flows = Flows(world, 1500)
    flows.wait_for(500)
    assert world.daemon.end() == 0
    world.daemon = world.serve("--leave-up")
    flows.end()
    assert settle(world).keys() <= {"restart"}


@pytest.fixture
def kept(world):
    """A service manager that keeps descriptors, from a start of the daemon on."""
    made = Kept()
    assert world.daemon.end() == 0
    world.daemon = world.serve("--leave-up", kept=made)
    yield made
    assert world.daemon.end() == 0
    made.close()
    world.daemon = world.serve("--leave-up")


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "killed"])
def test_what_is_logged_between_two_daemons_waits_where_the_manager_keeps_the_sockets(world, kept, end):
    assert sockets(kept) == ["flow-ends", "nflog-100", "nflog-101"]
    settle(world)
    before = told(world)[1]
    world.daemon.send(end)
    world.daemon.wait()
    wait_until("the end of the recorder", lambda: not recorders_of(world))
    flows = Flows(world, 300)
    flows.end()
    lines = told(world)[0]
    world.daemon = world.serve("--leave-up", kept=kept)
    assert settle(world) == before, "nothing is lost"
    assert told(world)[0] > lines + 300
    assert sockets(kept) == ["flow-ends", "nflog-100", "nflog-101"]


def sockets(kept):
    """Under which names the manager keeps something other than names."""
    return [name for name in kept.names() if not name.startswith("names-")]


def test_events_that_waited_for_the_next_daemon_are_told_by_the_policy_that_logged_them(world, kept):
    world.configure(POLICY.replace("- client_id", "- name: before\n      client_id"))
    assert "reloaded" in world.daemon.reload()
    world.daemon.kill()
    wait_until("the end of the recorder", lambda: not recorders_of(world))
    first = told(world)[0]
    flows = Flows(world, 100)
    flows.end()
    world.configure(POLICY.replace("- client_id", "- name: after\n      client_id"))
    world.daemon = world.serve("--leave-up", kept=kept)
    settle(world)
    opened = [line for line in world.lines() if line["event"] == "open"]
    waited = [line["rule"] for line in opened[-(told(world)[0] - first) :]]
    assert len(waited) > 100
    assert {rule.partition("[")[0] for rule in waited} == {"before"}
    Flows(world, 10).end()
    settle(world)
    assert [line["rule"] for line in world.lines() if line["event"] == "open"][-1].startswith("after[")


def test_the_manager_keeps_the_groups_that_are_in_use(world, kept):
    text = world.server_yaml.read_text()
    world.server_yaml.write_text(text.replace("logging: {", "logging: {nflog_group: 300, "))
    assert "reloaded" in world.daemon.reload()
    assert sockets(kept) == ["flow-ends", "nflog-300", "nflog-301"]
    world.server_yaml.write_text(text.replace("logging_enabled: true", "logging_enabled: false"))
    world.daemon.reload()
    assert kept.names() == []
    world.server_yaml.write_text(text)
    world.daemon.reload()
    assert sockets(kept) == ["flow-ends", "nflog-100", "nflog-101"]
    Flows(world, 100).end()
    settle(world)


def test_what_was_logged_while_there_was_no_daemon(world):
    world.daemon.kill()
    wait_until("the end of the recorder", lambda: not recorders_of(world))
    lost = told(world)[1].get("restart", 0)
    before = counted(world)
    Flows(world, 100).end()
    logged = counted(world) - before
    assert logged > 100
    world.daemon = world.serve("--leave-up")
    assert settle(world)["restart"] == lost + logged


def recorders_of(world):
    """The recorders, of whichever daemon, that write this world's log."""
    texts = map(_text, Path("/proc").glob("[0-9]*/cmdline"))
    return [text for text in texts if "wgd.daemon.recorder" in text and str(world.scratch) in text]


def _text(path):
    try:
        return path.read_text()
    except OSError:
        return ""


def test_a_rotation(world):
    flows = Flows(world, 1500)
    for number in range(3):
        flows.wait_for(500 * (number + 1))
        for old in reversed(log_files(world)[1:]):
            old.rename(f"{world.events}.{int(old.suffix[1:]) + 1}")
        world.events.rename(f"{world.events}.1")
        world.daemon.send(signal.SIGUSR1)
        wait_until("a new file", world.events.exists)
    flows.end()
    before = told(world)[1]
    assert settle(world) == before, "a rotation loses nothing"


def test_a_flushed_table(world):
    """Its counters begin at 0 again: nothing that was counted before is taken for lost."""
    Flows(world, 100).end()
    settle(world)
    before = told(world)
    world.gateway("nft", "flush", "ruleset")
    wait_until("the counters", lambda: "logged4" in world.gateway("nft", "list", "ruleset"))
    assert counted(world) == 0
    Flows(world, 100).end()
    fed = world.daemon.notified.count("WATCHDOG=1")
    wait_until("some comparisons", lambda: world.daemon.notified.count("WATCHDOG=1") > fed + 3)
    lines, lost = told(world)
    assert lost == before[1]
    assert lines - before[0] == counted(world)
