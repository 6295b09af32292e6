"""The recorder run for real, with datagram sockets in the place of the kernel's."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from event_schema import checked
from flow_messages import flow
from nflog_messages import ALICE, DONE, config, message, numbered, some_names

from wgd.daemon.recorder_process import ENVIRONMENT
from wgd.daemon.recording import Recording
from wgd.daemon.sources import Handed, Kind
from wgd.daemon.tally import open_tally
from wgd.errors import HostError
from wgd.model import AllowRule, Policy, Rule
from wgd.policy.names import Names, names

# The recorder asks the real kernel for interface names: every namespace has `lo`, as number 1.
ONE: dict[str, Any] = {"indev": 1, "outdev": None}


class Bench:
    """A recording whose `kernel` sockets the test writes messages to."""

    def __init__(self, path: Path, scratch: Path | None = None) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
        self.kernel = [pair[0] for pair in pairs]
        self.path = path
        handed = [Handed(Kind.NFLOG, pair[1]) for pair in pairs]
        self.recording = Recording(
            open_tally((scratch or path.parent) / "tally"), handed, path, replace(some_names(), interface="lo")
        )

    def close(self) -> None:
        self.recording.stop()
        for end in self.kernel:
            end.close()

    def events(self) -> list[str]:
        return [entry["event"] for entry in checked(self.path.read_bytes())]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def kill(recording: Recording) -> None:
    """Kill the recorder and wait until the daemon's side can see it."""
    pid = recording.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("wgd.daemon.recording.RESTART_SECONDS", 0.0)
    made = Bench(tmp_path / "events.jsonl")
    made.recording.start()
    yield made
    made.close()


def test_messages_of_both_groups_become_lines_and_counts(bench: Bench) -> None:
    bench.kernel[0].send(numbered([ONE, ONE]) + DONE)
    bench.kernel[1].send(numbered([ONE]) + DONE)
    counters = bench.recording.settle()
    assert counters == (3, 0, 0, 0, 0, 0)
    assert [entry["client"] for entry in checked(bench.path.read_bytes())] == ["alice"] * 3


def test_lines_of_the_gateway_are_written(bench: Bench) -> None:
    bench.recording.event("started")
    bench.recording.event("drift", object="table", action="restored", detail="inet wgd", count=1)
    bench.recording.settle()
    assert bench.events() == ["started", "drift"]


def test_new_names_are_known_before_a_packet_is_logged_with_them(bench: Bench) -> None:
    bench.recording.names(Names("00000001", "wgd0"))
    bench.kernel[0].send(numbered([{**ONE, "prefix": "open allow 00000001"}, ONE]))
    assert bench.recording.settle().unresolved == 0
    assert [entry.get("client") for entry in checked(bench.path.read_bytes())] == [None, "alice"]


def test_a_killed_recorder_is_replaced_on_the_same_sockets(bench: Bench) -> None:
    bench.kernel[0].send(numbered([ONE]))
    bench.recording.settle()
    kill(bench.recording)
    bench.kernel[0].send(message(**ONE, sequence=1))
    bench.recording.handle()
    assert bench.recording.settle() == (2, 0, 0, 0, 0, 0)
    assert bench.events() == ["open", "open"]


def test_what_a_killed_recorder_had_read_and_not_written_is_counted(bench: Bench) -> None:
    bench.kernel[0].send(numbered([ONE]))
    bench.recording.settle()
    kill(bench.recording)
    bench.kernel[0].send(message(**ONE, sequence=4))
    bench.recording.handle()
    assert bench.recording.settle() == (2, 3, 0, 0, 0, 0)
    entries = checked(bench.path.read_bytes())
    assert [(entry["event"], entry.get("count"), entry.get("reason")) for entry in entries] == [
        ("open", None, None),
        ("lost", 3, "restart"),
        ("open", None, None),
    ]


def test_a_replacement_knows_all_names_and_the_lines_that_nobody_took(bench: Bench) -> None:
    bench.recording.names(Names("00000001", "wgd0"))
    kill(bench.recording)
    bench.recording.event("reloaded")
    bench.kernel[0].send(numbered([ONE, {**ONE, "prefix": "open allow 00000001"}]))
    assert bench.recording.settle().unresolved == 0
    assert sorted(bench.events()) == ["open", "open", "reloaded"]


def test_death_can_be_seen_on_a_descriptor_that_stays_the_same(bench: Bench) -> None:
    descriptor = bench.recording.fileno()
    first = bench.recording.pid
    kill(bench.recording)
    bench.recording.handle()
    bench.recording.settle()
    assert bench.recording.fileno() == descriptor
    assert bench.recording.pid not in (None, first)


def test_a_recorder_that_hangs_is_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgd.daemon.recording.ANSWER_SECONDS", 0.2)
    first = bench.recording.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    bench.recording.settle()
    assert bench.recording.pid not in (None, first)
    assert not Path(f"/proc/{first}").exists()


def test_one_that_dies_at_once_is_not_started_again_until_the_next_check(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wgd.daemon.recording.RESTART_SECONDS", 60.0)
    kill(bench.recording)
    bench.recording.handle()
    assert bench.recording.pid is None
    bench.recording.check()
    assert bench.recording.pid is not None


def test_a_check_says_when_no_recorder_can_be_started(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(bench.recording)
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    with pytest.raises(HostError, match="cannot be started"):
        bench.recording.check()


def test_after_a_rename_reopening_goes_on_in_a_new_file(bench: Bench) -> None:
    bench.recording.event("started")
    bench.recording.settle()
    old = bench.path.rename(bench.path.with_suffix(".1"))
    bench.recording.reopen()
    bench.recording.event("stopped")
    bench.recording.settle()
    assert [entry["event"] for entry in checked(old.read_bytes())] == ["started"]
    assert bench.events() == ["stopped"]


def test_a_file_that_takes_no_lines_is_reported_and_recovers_by_itself(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    assert bench.recording.pid is not None
    limit = resource.prlimit(bench.recording.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    bench.kernel[0].send(numbered([ONE, ONE]))
    counters = bench.recording.settle()
    assert (counters.events, counters.lost) == (0, 2)
    assert bench.recording.refused is not None
    assert "cannot be written to: File too large" in caplog.text
    resource.prlimit(bench.recording.pid, resource.RLIMIT_FSIZE, limit)
    wait_for(lambda: bool(bench.path.read_bytes()))
    bench.recording.settle()
    assert bench.recording.refused is None
    (entry,) = checked(bench.path.read_bytes())
    assert (entry["count"], entry["reason"]) == (2, "disk_full")


def test_stopping_writes_what_is_queued_and_ends_the_process(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "events.jsonl")
    bench.recording.start()
    pid = bench.recording.pid
    bench.kernel[0].send(numbered([ONE] * 40))
    bench.recording.event("stopped")
    bench.close()
    assert bench.recording.counters().events == 40
    assert len(bench.events()) == 41
    assert not Path(f"/proc/{pid}").exists()


def test_the_signals_that_a_manager_sends_to_all_processes_do_not_end_it(bench: Bench) -> None:
    pid = bench.recording.pid
    assert pid is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        os.kill(pid, number)
    bench.kernel[0].send(numbered([ONE]))
    assert bench.recording.settle().events == 1
    assert bench.recording.pid == pid


def test_a_start_that_cannot_open_the_file_says_so_and_leaves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path / "none" / "events.jsonl", tmp_path)
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(HostError, match=f"the directory {tmp_path}/none does not exist"),
    ):
        bench.recording.start()
    assert bench.recording.pid is None
    assert not caplog.records
    for end in bench.kernel:
        end.close()


def test_the_recorder_has_no_privilege_and_nothing_of_the_daemons_environment(
    bench: Bench,
) -> None:
    process = Path(f"/proc/{bench.recording.pid}")
    pairs = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"]
    if os.geteuid() == 0:
        sets.append("CapBnd")
    assert {int(pairs[name], 16) for name in sets} == {0}
    assert pairs["NoNewPrivs"] == "1"
    environment = (process / "environ").read_text().removesuffix("\0").split("\0")
    assert environment == [f"{name}={value}" for name, value in ENVIRONMENT.items()]


def test_the_recorder_imports_only_what_it_needs() -> None:
    script = "import sys, wgd.daemon.recorder; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    heavy = {"pyroute2", "yaml", "voluptuous", "nftables", "systemd", "logging", "subprocess", "asyncio"}
    assert not heavy.intersection(modules)


def test_the_recorder_opens_nothing_outside_the_directory_of_its_log(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for path, works in ((tmp_path / "other.jsonl", True), (tmp_path.parent / "other.jsonl", False)):
        error = bench.recording._ask("open", path=str(path), must=False)
        assert (error is None) == works, error
        assert path.exists() == works


def test_a_move_to_another_directory_loses_nothing(bench: Bench, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "events.jsonl"
    elsewhere.parent.mkdir()
    bench.recording.event("started")
    bench.kernel[0].send(numbered([ONE]))
    first = bench.recording.pid
    bench.recording.move(elsewhere)
    bench.kernel[0].send(message(**ONE, sequence=1))
    assert bench.recording.settle() == (2, 0, 0, 0, 0, 0)
    assert bench.recording.pid != first
    assert bench.events() + [entry["event"] for entry in checked(elsewhere.read_bytes())] == ["started", "open", "open"]


def test_a_move_that_is_refused_loses_nothing_either(bench: Bench, tmp_path: Path) -> None:
    bench.kernel[0].send(numbered([ONE]))
    with pytest.raises(HostError, match="none does not exist"):
        bench.recording.move(tmp_path / "none" / "events.jsonl")
    bench.kernel[0].send(message(**ONE, sequence=1))
    assert bench.recording.settle() == (2, 0, 0, 0, 0, 0)
    assert bench.events() == ["open", "open"]


def test_a_directory_that_is_made_anew_is_written_to_after_the_next_check(bench: Bench) -> None:
    before = bench.path.parent.rename(bench.path.parent.with_suffix(".old"))
    bench.path.parent.mkdir()
    bench.recording.check()
    bench.kernel[0].send(numbered([ONE]))
    bench.recording.settle()
    assert bench.events() == ["open"]
    assert not (before / bench.path.name).read_bytes()


def test_that_there_is_no_landlock_is_told_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        bench.recording._take({"unrestricted": True})
    assert [record.message for record in caplog.records if "no Landlock" in record.message] == [caplog.messages[-1]]


def test_flows_that_begin_after_a_reload_was_refused_are_named_by_the_policy_that_stayed(bench: Bench) -> None:
    def names_called(rule: str) -> Names:
        known = replace(config(), policy=Policy((Rule(rule, (ALICE,), (AllowRule(ip_network("10.20.0.0/16")),)),)))
        return replace(names(known, rule), interface="lo")

    for rule in ("before", "in force"):
        bench.recording.names(names_called(rule))
    stayed = bench.recording.newest
    bench.recording.names(names_called("refused"))
    bench.recording.names_again(stayed)
    bench.recording.close_flows([flow(times=(time.time_ns(), None), kind=0x0100)])
    assert [entry["rule"] for entry in checked(bench.path.read_bytes())] == ["in force[0]"]
