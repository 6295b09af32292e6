"""What is measured against what: the processes that read NFLOG groups and append a line for each event to a file."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from paths import within
from world import wait_until

from wgd.daemon.recording import Recording
from wgd.daemon.sources import Handed, Kind
from wgd.daemon.tally import open_tally
from wgd.kernel.nflog import BUFFER_BYTES, FLUSH_SECONDS, QUEUE_THRESHOLD, RECEIVE_BUFFER_BYTES, open_nflog
from wgd.policy.names import Names

CPUCLOCK_SCHED = 2
QUIET_SECONDS, GIVE_UP_SECONDS = 0.3, 30.0
"""A reader that does nothing for so long has most likely written all, or certainly: the kernel holds an event back for
0.1 s at most, but the machine or its disk may be busy."""
LOST = b',"event":"lost",'
STDIO_LINES = 20
"""At most so many of ulogd2's lines are in a buffer of stdio."""
PLUGINS = "inppkt_NFLOG", "raw2packet_BASE", "filter_IFINDEX", "filter_IP2STR", "output_JSON"
BUFFER_SIZE = (
    f"netlink_socket_buffer_size={RECEIVE_BUFFER_BYTES}",
    f"netlink_socket_buffer_maxsize={2 * RECEIVE_BUFFER_BYTES}",
)
STACK = "NFLOG,base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,json1:JSON"


class Reader(NamedTuple):
    """A process and the file to which it appends; it may keep some lines until others follow."""

    pid: int
    path: Path
    kept: int = 0

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has taken, the kernel's part included (clock_getcpuclockid(3))."""
        return time.clock_gettime(~self.pid << 3 | CPUCLOCK_SCHED)

    def take(self, expected: int) -> list[bytes]:
        """Wait until it has written so many events, or no more; return their lines, and empty the file."""
        quiet = 0.0
        while True:
            quiet += self._wait_until_quiet()
            lines = [line for line in self.path.read_bytes().split(b"\n")[:-1] if LOST not in line]
            if len(lines) >= expected - self.kept or quiet > GIVE_UP_SECONDS:
                os.truncate(self.path, 0)
                return lines

    def _wait_until_quiet(self) -> float:
        """Wait until it has done nothing for QUIET_SECONDS."""
        seen, since = self._spent(), time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            time.sleep(0.02)
            now = self._spent()
            if now != seen:
                seen, since = now, time.monotonic()
        return QUIET_SECONDS

    def _spent(self) -> tuple[int, float]:
        return self.path.stat().st_size, round(self.cpu_seconds(), 3)


@contextmanager
def ours(namespace: str, groups: Sequence[int], names: Names, folder: Path) -> Iterator[Reader]:
    """Run the recorder as the daemon runs it."""
    path = folder / "ours.jsonl"
    with within(namespace):
        handed = [Handed(Kind.NFLOG, open_nflog(group)) for group in groups]
        recording = Recording(open_tally(folder / "tally"), handed, path, names)
        # The names of interfaces are those of the network that it is in.
        recording.start()
    try:
        yield Reader(recording.pid or 0, path)
    finally:
        recording.stop()


@contextmanager
def ulogd2(namespace: str, groups: Sequence[int], folder: Path) -> Iterator[Reader]:
    """Run ulogd2 with what its documentation offers for speed.

    That is: batches of the same size and age as ours, a receive buffer like ours, and no flush after each line.
    """
    lines = []
    for group in groups:
        lines += [f"[log{group}]", f"group={group}", f"bufsize={BUFFER_BYTES}", f"netlink_qthreshold={QUEUE_THRESHOLD}"]
        lines += [f"netlink_qtimeout={round(FLUSH_SECONDS * 100)}"]
        # The size is not taken unless it is less than the largest.
        lines += BUFFER_SIZE
    with run_ulogd2(namespace, PLUGINS, [f"log{group}:{STACK}" for group in groups], lines, folder) as reader:
        yield reader


@contextmanager
def run_ulogd2(
    namespace: str, plugins: Sequence[str], stacks: Sequence[str], sections: Sequence[str], folder: Path
) -> Iterator[Reader]:
    """Run ulogd2 with these plugins, stacks that end in `json1:JSON`, and sections of its configuration."""
    (library,) = Path("/usr/lib").glob("*/ulogd")
    path, log = folder / "theirs.json", folder / "ulogd.log"
    lines = [
        *("[global]", f'logfile="{log}"', *(f'plugin="{library}/ulogd_{name}.so"' for name in plugins)),
        *(f"stack={stack}" for stack in stacks),
        *("[json1]", f'file="{path}"', "sync=0"),
    ]
    configuration = folder / "ulogd.conf"
    configuration.write_text("\n".join((*lines, *sections)) + "\n")
    with within(namespace):
        process = subprocess.Popen(["/usr/sbin/ulogd", "-c", str(configuration)], stdin=subprocess.DEVNULL)
    try:
        wait_until("ulogd2's file", lambda: process.poll() is not None or path.exists())
        if process.poll() is not None:
            raise RuntimeError(f"ulogd2 ended with {process.returncode}: {log.read_text()[-500:]}")
        yield Reader(process.pid, path, STDIO_LINES)
    finally:
        process.kill()
        process.wait()
