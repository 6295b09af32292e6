"""How fast `wgd-server events` finds lines in a gigabyte of log, beside grep -F and jq: megabytes per second of CPU."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from report import figure

from wgd.events import lines
from wgd.events.packet import Packet

BYTES = 1 << 30
JQ_BYTES = 1 << 25
"""What jq gets to read: it takes half a minute for the whole."""
LINES = 200_000
"""How many different lines there are; the log repeats them."""
CLIENTS = 200
ROUNDS = 3
MEGA = 1e6
START, STEP = 1_795_000_000_000_000_000, 1_000_000
"""The first line's time and what lies between two, in nanoseconds."""
HALFWAY = lines.timestamp(START + LINES // 2 * STEP)
KEYS = [f"{number:043d}=" for number in range(CLIENTS)]


def sample() -> bytes:
    """Return lines of flows and denials, IPv4 and IPv6, as the recorder writes them."""
    draw = random.Random(1)
    made = []
    for number in range(LINES):
        client, is_six = draw.randrange(CLIENTS), draw.random() < 0.3
        event, verdict = draw.choices([("open", "allow"), ("close", "allow"), ("deny", "deny")], [45, 45, 10])[0]
        ends = (f"fd80::{client + 2:x}", f"fd20::{draw.randrange(64):x}") if is_six else (
            f"10.80.0.{client + 2}", f"10.20.{draw.randrange(8)}.{draw.randrange(8)}"
        )  # fmt: skip
        source, destination = ((IPv6Address if is_six else IPv4Address)(end).packed for end in ends)
        packet = Packet(source, destination, 6, 0, draw.choice([80, 443, 8443]), None, 0)
        leading = lines.verdict_text(event, verdict) + lines.client_text(KEYS[client], f"client{client}")
        rule = "staff to the web[0]" if verdict == "allow" else None
        port = draw.randrange(32768, 61000)
        time = lines.time_text(START + number * STEP)
        parts = lines.flow_parts(leading, packet, rule, client_began=True)
        if event == "close":
            rest = f',"tx_packets":{port},"tx_bytes":{port * 90},"rx_packets":{port},"rx_bytes":{port * 900}'
            rest += f',"duration_ms":{port}'
        else:
            rest = f'{lines.interfaces_text("wgd0", "eth0")},"length":60'
        made.append(f"{time}{parts.before_source_port}{port}{parts.after_source_port}{rest}}}\n")
    return "".join(made).encode()


def cpu_seconds(command: list[str], output: Path) -> float:
    """Return the CPU time that a command takes; its output goes to a file: grep stops early when nobody reads."""
    before = os.times()
    with output.open("wb") as file:
        subprocess.run(command, stdout=file, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    subprocess.run(["bash", "-c", ". packaging/install-needed.sh && install_needed jq >&2"], check=True)
    with tempfile.TemporaryDirectory(prefix="wgd-bench-log-") as folder:
        log, part, output = (Path(folder, name) for name in ("events.jsonl", "part.jsonl", "output"))
        text = sample()
        with log.open("wb") as file:
            for _ in range(BYTES // len(text)):
                file.write(text)
        part.write_bytes(text[: text.rindex(b"\n", 0, JQ_BYTES) + 1])
        measure(log, part, output)


def measure(log: Path, part: Path, output: Path) -> None:
    """Print the figures for a log and the part of it that jq reads."""
    ours = [sys.executable, "-m", "wgd.cli.server", "events", "--log", str(log)]
    deny, client = '"verdict":"deny"', f'"client_id":"{KEYS[7]}"'
    cases = (
        ("--verdict deny", ["--verdict", "deny"], deny, '.verdict=="deny"'),
        ("--client KEY", ["--client", KEYS[7]], client, f'.client_id=="{KEYS[7]}"'),
        ("--event close", ["--event", "close"], '"event":"close"', '.event=="close"'),
        ("--to 10.20.3.0/24", ["--to", "10.20.3.0/24"], None, '.dst_ip|startswith("10.20.3.")'),
        ("--port 443", ["--port", "443"], None, ".dst_port==443"),
        ("--since TIME", ["--since", HALFWAY], None, f'.ts>="{HALFWAY}"'),
    )  # fmt: skip
    for name, options, needle, question in cases:
        found = {"ours": [], "table": [], "grep": [], "jq": []}
        for _ in range(ROUNDS):
            found["ours"].append(cpu_seconds([*ours, "--json", *options], output))
            if needle is not None:
                size = output.stat().st_size
                found["grep"].append(cpu_seconds(["grep", "-F", needle, str(log)], output))
                if output.stat().st_size != size:
                    raise SystemExit(f"{name}: grep finds {output.stat().st_size} bytes, events {size}")
            found["table"].append(cpu_seconds([*ours, *options], output))
            found["jq"].append(cpu_seconds(["jq", "-c", f"select({question})", str(part)], output))
        speed = {
            who: (part if who == "jq" else log).stat().st_size / MEGA / statistics.median(times)
            for who, times in found.items()
            if times
        }
        for peer in ("grep", "jq"):
            if peer in speed:
                figure("log", f"MB/s, events --json {name}", speed["ours"], speed[peer], peer)
        figure("log", f"MB/s, events {name}", speed["table"], None, None)


if __name__ == "__main__":
    main()
