"""`wgd-server events` as an operator runs it: on a terminal, through a pipe, over rotations."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from command import command_line, environment, run
from hypothesis import given
from hypothesis import strategies as st

from wgd.cli.event_table import EventTable, cut
from wgd.cli.events import configured_log
from wgd.cli.server import main

KEY = "YWxpY2UuLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4="
FLOW = {
    "ts": "2020-11-25T14:20:52.123456Z", "event": "open", "verdict": "allow", "client_id": KEY, "client": "alice",
    "src_ip": "10.80.0.2", "src_port": 40112, "dst_ip": "10.20.0.10", "dst_port": 443, "proto": "tcp",
    "rule": "web[0]", "in_iface": "wgd0", "out_iface": "eth0", "length": 60,
}  # fmt: skip
DENIED = {key: value for key, value in FLOW.items() if key != "rule"} | {"event": "deny", "verdict": "deny"}
LOST = {"ts": "2020-11-25T14:20:53.000000Z", "event": "lost", "count": 17, "reason": "overrun"}
HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e\n"


def line(entry: dict[str, Any], **members: Any) -> str:
    return json.dumps(entry | members, separators=(",", ":"), ensure_ascii=False) + "\n"


INCOMPLETE = "17 events are missing in this log, perhaps some of these (--event lost shows where)\n"
THREE = line(FLOW) + line(DENIED, client="bob") + line(LOST)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_text(THREE)
    return path


Events = Callable[..., str]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Events:
    """What `events` prints of a log in UTC when all is well; in this process, to be quick."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def shown(log: Path, *words: str) -> str:
        assert main(["events", "--log", str(log), "--utc", *words]) == 0
        sys.stdout.flush()
        printed = capfdbinary.readouterr()
        assert printed.err.decode() in ("", INCOMPLETE)
        return printed.out.decode()

    return shown


class TestForPeople:
    def test_columns_are_aligned_and_the_gateways_own_events_are_sentences(self, log: Path, events: Events) -> None:
        assert events(log).splitlines() == [
            "2020-11-25 14:20:52  open    alice  tcp  10.80.0.2:40112 -> 10.20.0.10:443  web[0]",
            "2020-11-25 14:20:52  deny    bob    tcp  10.80.0.2:40112 -> 10.20.0.10:443",
            "2020-11-25 14:20:53  lost    17 events are missing here: they came faster than they could be read",
        ]

    def test_times_are_in_the_hosts_zone_unless_utc_is_asked_for(self, log: Path) -> None:
        done = run("server", "events", "--log", str(log), "-n", "1", TZ="Asia/Tokyo")
        assert done.stdout.startswith("2020-11-25 23:20:53  lost")

    def test_a_time_that_the_hosts_zone_cannot_write_is_shown_as_it_stands(self) -> None:
        table = EventTable(lambda moment: moment.astimezone(timezone(timedelta(hours=9))), colour=False)
        for time in ("9999-12-31T23:59:59.000000Z", "0001-01-01T00:00:00+10:00", "soon"):
            assert table.render([line(LOST, ts=time).encode()]).startswith(time)

    def test_a_long_address_sticks_out_of_a_column_that_others_keep(self) -> None:
        table = EventTable(lambda moment: moment.astimezone(UTC), colour=False)
        long = "2001:db8:1111:2222:3333:4444:5555:6666"
        six = line(FLOW, src_ip=long, dst_ip=long)
        shown = table.render([text.encode() for text in (line(FLOW), six)])
        four, six = shown.splitlines()
        assert f"[{long}]:40112 -> [{long}]:443  web[0]" in six
        assert "10.80.0.2:40112          -> 10.20.0.10:443            web[0]" in four

    def test_what_is_no_json_is_shown_when_nothing_is_filtered_and_never_else(self, log: Path, events: Events) -> None:
        log.write_bytes(b"half a li\xff\x1b[2J\n" + line(FLOW).encode())
        assert events(log).splitlines()[0] == "half a li\ufffd\\x1b[2J"
        assert len(events(log, "--event", "open").splitlines()) == 1

    def test_nothing_that_stands_in_a_log_reaches_the_terminal_as_a_command(self, log: Path, events: Events) -> None:
        hostile = dict.fromkeys(FLOW, HOSTILE)
        log.write_text(line(hostile) + line(FLOW, client=HOSTILE, rule=HOSTILE) + HOSTILE)
        for shown in (events(log), on_terminal(log), on_terminal(log, "--json")):
            left = re.sub(r"\x1b\[[0-9;]*m", "", shown.replace("\r\n", "\n"))
            assert not [character for character in left if not character.isprintable() and character != "\n"]
            assert "owned" in left


@st.composite
def flow_lines(draw: st.DrawFn) -> bytes:
    """Return a line of a flow of our own form, or nearly."""
    event, verdict = draw(
        st.sampled_from([("open", "allow"), ("open", "would_deny"), ("close", "allow"), ("deny", "deny")])
    )
    entry: dict[str, Any] = {
        "ts": draw(st.sampled_from(["2020-11-25T14:20:52.123456Z", "2020-02-30T14:20:52.123456Z"]))
    }
    entry |= {"event": event, "verdict": verdict}
    if draw(st.booleans()):
        entry |= {"client_id": KEY, "client": draw(st.sampled_from(["alice", "bob", "x" * 30, "a b", HOSTILE]))}
    entry["src_ip"] = draw(st.sampled_from(["10.80.0.2", "fd80::2"]))
    ports = draw(st.booleans())
    entry |= {"src_port": draw(st.integers(0, 70000))} if ports else {}
    entry |= {"dst_ip": "fd20::10"} | ({"dst_port": 443} if ports else {})
    entry |= draw(st.sampled_from([{"proto": "tcp"}, {"proto": "icmpv6", "icmp_type": 128}, {}]))
    entry |= draw(st.sampled_from([{"rule": "web[0]"}, {"rule": "山田 to web[0]"}, {"rule": HOSTILE}, {}]))
    counts = {"tx_packets": 1, "tx_bytes": 2048, "rx_packets": 0, "rx_bytes": 0}
    entry |= draw(st.sampled_from([{"in_iface": "wgd0", "length": 60}, counts, {}]))
    entry |= draw(st.sampled_from([{"duration_ms": 350}, {}]))
    return line(entry).encode().rstrip(b"\n")


@given(st.lists(flow_lines(), min_size=1))
def test_what_is_remembered_of_lines_is_shown_as_if_each_were_parsed(lines: list[bytes]) -> None:
    table, parsing = (EventTable(lambda moment: moment.astimezone(UTC), colour=False) for _ in range(2))
    # A space keeps a line from being of our form.
    spaced = [line.replace(b'{"ts":', b'{"ts": ') for line in lines]
    assert table.render(lines) == parsing.render(spaced)


VALUES = st.none() | st.integers() | st.floats() | st.text() | st.sampled_from([HOSTILE, 10**400, [], {"a": [HOSTILE]}])
ANY_LINE = st.binary().map(lambda line: line.replace(b"\n", b"")) | st.dictionaries(
    st.sampled_from([*FLOW, "tx_bytes", "rx_bytes", "duration_ms", "count", "reason"]), VALUES
).map(lambda entry: json.dumps(entry).encode())


@given(st.lists(ANY_LINE), st.booleans(), st.none() | st.integers(1, 80))
def test_whatever_stands_in_a_line_one_printable_line_is_shown(
    lines: list[bytes],
    colour: bool,  # noqa: FBT001 hypothesis gives it by its place
    width: int | None,
) -> None:
    shown = EventTable(lambda moment: moment.astimezone(UTC), colour=colour).render(lines, width)
    found = re.sub(r"\x1b\[[0-9;]*m", "", shown).split("\n")
    assert len(found) == len(lines) + 1
    assert all(line.isprintable() for line in found)
    assert width is None or all(len(line.rstrip("…")) <= width for line in found if line.rstrip("…").isascii())


class TestTerminal:
    def test_is_in_colour_and_cut_to_its_width(self, log: Path) -> None:
        opened, denied, lost = on_terminal(log, columns=60).splitlines()
        assert opened == "2020-11-25 14:20:52  \x1b[32mopen\x1b[0m    alice  tcp  10.80.0.2:40112 ->…"
        assert "\x1b[31mdeny\x1b[0m" in denied
        assert "\x1b[31mlost\x1b[0m" in lost

    def test_no_color_leaves_the_colour_out(self, log: Path) -> None:
        assert "\x1b" not in on_terminal(log, NO_COLOR="1")

    def test_an_observed_denial_stands_out(self, log: Path) -> None:
        log.write_text(line(DENIED, event="open", verdict="would_deny"))
        assert "\x1b[33mopen\x1b[0m" in on_terminal(log)
        assert "enforce would drop it" in on_terminal(log)

    @pytest.mark.parametrize(
        ("text", "width", "expected"),
        [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("山田太郎", 8, "山田太郎"),
            ("山田太郎", 7, "山田太…"),
            ("e\u0301e", 2, "e\u0301e"),
        ],
    )
    def test_wide_letters_take_two_columns(self, text: str, width: int, expected: str) -> None:
        assert cut(text, width) == expected


class TestJson:
    def test_gives_the_lines_byte_for_byte(self, log: Path, events: Events) -> None:
        odd = line(FLOW, client="山田", event="deny").encode() + b'{ "event":  "deny", "x": 1.50 }\n'
        log.write_bytes(odd)
        assert events(log, "--json", "--event", "deny").encode() == odd

    @pytest.mark.parametrize(("words", "found"), [(["--verdict", "deny"], 1), (["-n", "1"], 2)])
    def test_reads_standard_input(self, words: list[str], found: int) -> None:
        done = run("server", "events", "--log", "-", "--json", *words, stdin=THREE)
        assert (done.returncode, done.stdout) == (0, THREE.splitlines(keepends=True)[found])


class TestFilters:
    @pytest.mark.parametrize(
        ("words", "found"),
        [
            ([], [0, 1, 2]),
            (["--client", "alice"], [0]),
            (["--client", "alice", "--client", "bob"], [0, 1]),
            (["--client", KEY], [0, 1]),
            (["--event", "lost"], [2]),
            (["--verdict", "deny"], [1]),
            (["--verdict", "deny", "--client", "alice"], []),
            (["--to", "10.20.0.0/24"], [0, 1]),
            (["--to", "fd20::/64"], []),
            (["--port", "400-500"], [0, 1]),
            (["--port", "80"], []),
            (["--since", "2020-11-25T14:20:53Z"], [2]),
            (["--until", "2020-11-25T14:20:52.5Z"], [0, 1]),
            (["--since", "-1h"], []),
            (["--since=-9999w"], [0, 1, 2]),
            (["-n", "1"], [2]),
            (["-n2"], [1, 2]),
            (["--lines", "all"], [0, 1, 2]),
            (["-n", "1", "--client", "alice"], [0]),
            (["-n", "0"], []),
        ],
        ids=str,
    )
    def test_each_shows_what_it_asks_for_and_nothing_is_no_failure(
        self, log: Path, events: Events, words: list[str], found: list[int]
    ) -> None:
        lines = THREE.splitlines(keepends=True)
        assert events(log, "--json", *words) == "".join(lines[number] for number in found)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ([], ""),
            (["--event", "lost"], ""),
            (["-n", "1"], ""),
            (["--client", "alice"], INCOMPLETE),
            (["--verdict", "deny"], INCOMPLETE),
            (["--until", "2020-11-25T14:20:52.9Z"], ""),
            (["--until", "2020-11-25T14:20:52.9Z", "--client", "alice"], ""),
            (["--since", "2020-11-25T14:20:53Z", "--client", "alice"], INCOMPLETE),
        ],
        ids=str,
    )
    def test_a_filter_does_not_hide_that_the_log_is_incomplete(self, log: Path, words: list[str], said: str) -> None:
        assert run("server", "events", "--log", str(log), *words).stderr == said

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--event", "opened"], "invalid choice"),
            (["--verdict", "allowed"], "invalid choice"),
            (["--to", "10.20.0.1/24"], "has a host part: write 10.20.0.0/24"),
            (["--to", "gw.example.org"], "is not an IP address"),
            (["--port", "0"], "must be from 1 to 65535"),
            (["--since", "soon"], "must be a time such as"),
            (["--since", "now", "--until", "-1h"], "--since must be before --until"),
            (["-n", "-1"], "must be a number of lines, or all"),
            (["-n", "few"], "must be a number of lines, or all"),
            (["-f", "--log", "-"], "--follow needs a file"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_wrong_usage_is_2_and_says_what_would_be_right(self, words: list[str], said: str) -> None:
        done = run("server", "events", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in " ".join(done.stderr.split())


class TestWhere:
    def test_the_config_says_where_even_while_the_rest_of_it_is_wrong(self, log: Path) -> None:
        config = log.with_name("server.yaml")
        config.write_text("peers: none\n")
        (log.parent / "server.d").mkdir()
        (log.parent / "server.d/log.yaml").write_text(f"logging: {{path: {log}}}\n")
        done = run("server", "events", "--config", str(config), "--json")
        assert (done.returncode, done.stdout, done.stderr) == (0, THREE, "")

    def test_a_config_that_is_no_yaml_is_4_with_its_problems(self, tmp_path: Path) -> None:
        config = tmp_path / "server.yaml"
        config.write_text("a: [\n")
        done = run("server", "events", "--config", str(config))
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.startswith(f"{config}:")

    def test_a_named_config_that_cannot_be_read_is_4(self) -> None:
        done = run("server", "events", "--config", "/nowhere/server.yaml")
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr == "/nowhere/server.yaml: cannot be read: No such file or directory\n"

    def test_without_a_config_that_may_be_read_it_is_the_usual_file_and_that_is_said(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        hidden = tmp_path / "hidden.yaml"
        assert configured_log(hidden, hidden) == Path("/var/log/wgd/events.jsonl")
        said = capsys.readouterr().err
        assert "cannot be read: No such file or directory; reading /var/log/wgd/events.jsonl (--log names" in said

    @pytest.mark.parametrize("name", ["missing.jsonl", ""])
    def test_a_log_that_cannot_be_read_is_4(self, tmp_path: Path, name: str) -> None:
        done = run("server", "events", "--log", str(tmp_path / name))
        assert (done.returncode, done.stdout) == (4, "")
        assert f"{tmp_path / name}: cannot be read" in done.stderr

    def test_rotated_files_come_first_and_a_damaged_one_is_4(self, log: Path, events: Events) -> None:
        log.with_name("events.jsonl.2.gz").write_bytes(gzip.compress(line(FLOW, client="first").encode()))
        log.with_name("events.jsonl.1").write_text(line(FLOW, client="second"))
        shown = events(log, "--json")
        assert shown == line(FLOW, client="first") + line(FLOW, client="second") + THREE
        assert events(log, "--json", "-n", "4") == line(FLOW, client="second") + THREE
        log.with_name("events.jsonl.3.gz").write_bytes(b"\x1f\x8b damaged")
        done = run("server", "events", "--log", str(log), "--json")
        assert done.returncode == 4
        assert "events.jsonl.3.gz: is damaged and cannot be read to its end" in done.stderr


class TestFollow:
    def test_shows_the_last_lines_then_each_new_one_over_a_rotation(self, log: Path) -> None:
        log.write_text("".join(line(FLOW, length=number) for number in range(15)))
        with following(log, "--json") as lines:
            assert [json.loads(next(lines))["length"] for _ in range(10)] == list(range(5, 15))
            append(log, length=15)
            assert json.loads(next(lines))["length"] == 15
            old = log.rename(log.with_name("events.jsonl.1"))
            append(old, length=16)
            append(log, length=17)
            assert [json.loads(next(lines))["length"] for _ in range(2)] == [16, 17]

    def test_filters_what_comes_too_and_waits_for_a_log_that_is_not_there_yet(self, log: Path) -> None:
        log.unlink()
        with following(log, "--json", "--client", "bob") as lines:
            append(log, length=1)
            append(log, length=2, client="bob")
            assert json.loads(next(lines))["length"] == 2

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_ends_without_a_word_at_the_signal_that_a_terminal_sends(self, log: Path, number: signal.Signals) -> None:
        with started(log, "-f") as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(number)
            assert process.wait(20) == -number
            assert process.stderr is not None
            assert process.stderr.read() == b""

    def test_a_reader_that_goes_away_is_no_error(self, log: Path) -> None:
        log.write_text(line(FLOW) * 20_000)
        with started(log) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.wait(20) == -signal.SIGPIPE
            assert process.stderr.read() == b""


def append(path: Path, **members: Any) -> None:
    with path.open("a") as file:
        file.write(line(FLOW, **members))


@contextmanager
def started(log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command_line("server", "events", "--log", str(log), *words),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd="/",
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def following(log: Path, *words: str) -> Iterator[Iterator[bytes]]:
    with started(log, "-f", *words) as process:
        assert process.stdout is not None
        yield iter(process.stdout)


def on_terminal(log: Path, *words: str, columns: int = 200, **variables: str) -> str:
    """Return what `events` prints on a terminal of this width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    usual = {name: value for name, value in environment().items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        command_line("server", "events", "--log", str(log), "--utc", *words),
        stdout=theirs, env=usual | {"TERM": "xterm"} | variables, cwd="/",
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    # Reading a terminal whose other end is closed fails with EIO.
    with process, os.fdopen(ours, "rb", buffering=0) as terminal:
        while more := _read_or_nothing(terminal.read):
            shown += more
    assert process.returncode == 0
    return shown.decode().replace("\r\n", "\n")


def _read_or_nothing(read: Callable[[int], bytes | None]) -> bytes | None:
    try:
        return read(1 << 16)
    except OSError:
        return None
