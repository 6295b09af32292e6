"""The log's files under the real logrotate, deletion and a full disk, while flows go on: nothing is lost or doubled."""

import grp
import os
import stat

import pytest
from test_accounting import POLICY as FLOWS_POLICY
from test_accounting import Flows, counted, settle, told
from world import wait_until


@pytest.fixture
def world(world_factory):
    """A gateway whose log is alone on a small disk, in a folder of group adm."""
    with world_factory() as made:
        made.gateway("mkdir", "/run/log")
        made.gateway("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", "/run/log")
        made.gateway("chgrp", "adm", "/run/log")
        made.gateway("chmod", "2750", "/run/log")
        made.configure(FLOWS_POLICY)
        made.server_yaml.write_text(made.server_yaml.read_text().replace(str(made.events), "/run/log/events.jsonl"))
        made.events = made.gateway.run_dir("log/events.jsonl")
        made.daemon = made.serve()
        made.connect(made.alice)
        yield made


def logrotate(world, *directives):
    """Rotate the log once, as the packaged config does with other directives."""
    config = world.scratch / "logrotate.conf"
    listed = "\n    ".join(("rotate 20", "missingok", *directives))
    config.write_text(f"/run/log/events.jsonl {{\n    su root adm\n    {listed}\n}}\n")
    config.chmod(0o644)
    world.gateway("logrotate", "--force", "--state", f"{world.scratch}/logrotate.state", str(config))


def unique(world):
    """Every flow is told once: no two lines of an `open` have the same source and time."""
    opened = [(line["ts"], line["src_ip"], line["src_port"]) for line in lines(world) if line["event"] == "open"]
    return len(opened) == len(set(opened))


def lines(world):
    before = world.events
    found = []
    for path in sorted(before.parent.glob(f"{before.name}*")):
        world.events = path
        found += world.lines()
    world.events = before
    return found


@pytest.mark.parametrize(
    "directives",
    [
        ("nocreate", "postrotate", "    kill -USR1 $PID", "endscript"),
        ("create 0640 root adm", "postrotate", "    kill -USR1 $PID", "endscript"),
        ("copytruncate",),
    ],
    ids=["rename", "rename and create", "copytruncate"],
)
def test_logrotate_loses_and_doubles_nothing(world, directives):
    flows = Flows(world, 1500)
    for number in range(3):
        flows.wait_for(400 * (number + 1))
        logrotate(world, *(each.replace("$PID", str(world.daemon.pid)) for each in directives))
        wait_until("lines in the new file", lambda: world.events.exists() and world.events.stat().st_size)
    flows.end()
    assert settle(world) == {}
    assert unique(world)
    assert len(list(world.events.parent.glob("events.jsonl*"))) == 4


def test_files_are_for_owner_and_group_adm(world):
    found = world.events.stat()
    assert (stat.S_IMODE(found.st_mode), grp.getgrgid(found.st_gid).gr_name) == (0o640, "adm")


def test_a_deleted_file_is_made_anew_and_nothing_else_is_lost(world):
    flows = Flows(world, 1000)
    flows.wait_for(400)
    with world.events.open("rb") as deleted:
        world.events.unlink()
        flows.end()
        settle_with(world, deleted)
    assert world.events.exists()


def settle_with(world, deleted):
    """Wait until lines and losses agree with the counters, the lines of a deleted file included."""

    def agrees():
        deleted.seek(0)
        gone = deleted.read().splitlines()
        kept, lost = told(world)
        assert not lost
        return kept + sum(b'"event":"open"' in line for line in gone) == counted(world)

    wait_until("agreement", agrees, 10)


def test_a_full_disk_drops_and_counts_and_recovers_by_itself(world):
    filler = world.events.with_name("filler")
    filler.write_bytes(b"x" * (os.statvfs(world.events.parent).f_bavail * os.statvfs(world.events.parent).f_bsize))
    Flows(world, 500).end()
    wait_until("a status that says so", lambda: "No space left" in " ".join(world.daemon.notified))
    assert "No space left on device; events are counted" in world.daemon.output
    filler.unlink()
    wait_until("the log's own recovery", lambda: "takes lines again" in world.daemon.output)
    Flows(world, 100).end()
    lost = settle(world)
    assert lost.keys() == {"disk_full"}
    assert lost["disk_full"] > 100
    assert told(world)[0] > 100
    assert unique(world)
