"""Traffic that goes on while something happens to the gateway: what was sent on one side, what came on the other.

Every hundredth of a second the client sends a datagram of a new flow to a port that is allowed and one to a port that
is not, and has one line of a long conversation answered. The programs end when their standard input does.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from tests.machines.container import Container
from tests.machines.machine import wait_until
from tests.machines.office import ALLOWED_PORT, DENIED_PORT, EVENTS, TALK_PORT, Office

ADDRESS = "10.20.0.10"
HELPERS = """
import json, select, socket, sys, time
def over(seconds): return bool(select.select([sys.stdin], [], [], seconds)[0])
"""
RECEIVER = (
    HELPERS
    + """
ports = [int(port) for port in sys.argv[1:3]]
heard = {}
for port in ports:
    heard[port] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    heard[port].bind(("", port))
listener = socket.create_server(("", int(sys.argv[3])))
print("ready", flush=True)
talking = None
counts = dict.fromkeys(ports, 0)
while True:
    watched = [sys.stdin, listener, *heard.values(), *([talking] if talking else [])]
    ready = select.select(watched, [], [])[0]
    for port, one in heard.items():
        if one in ready:
            one.recv(64)
            counts[port] += 1
    if listener in ready:
        talking = listener.accept()[0]
    elif talking in ready:
        talking.sendall(talking.recv(64))
    if sys.stdin in ready:
        break
print(json.dumps({"allowed": counts[ports[0]], "denied": counts[ports[1]]}))
"""
)
SENDER = (
    HELPERS
    + """
address, allowed, denied, talk = sys.argv[1], *map(int, sys.argv[2:5])
talking = socket.create_connection((address, talk), timeout=30)
sent = lines = 0
# No flow has the ports of another, nor of one of an earlier call: that would be the same flow.
first = int(time.time() * 100)
print("ready", flush=True)
while not over(0.01):
    for port in allowed, denied:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.bind(("", 10000 + (first + sent) % 20000))
            one.sendto(b"x", (address, port))
    sent += 1
    talking.sendall(b"x")
    lines += len(talking.recv(1))
print(json.dumps({"sent": sent, "lines": lines}))
"""
)


@dataclass
class Seen:
    """What came of the traffic; filled in when it is over."""

    sent: int = 0
    lines: int = 0
    allowed: int = 0
    denied: int = 0


@contextlib.contextmanager
def running(machine: Container, program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Have a program run on a machine during the block, from when it says that it is ready."""
    with machine.start("python3", "-c", program, *arguments) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", f"traffic on {machine.name} does not start"
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def traffic(office: Office) -> Iterator[Seen]:
    """Have traffic go on during the block, and fill in what is yielded when it is over."""
    ports = (str(ALLOWED_PORT), str(DENIED_PORT), str(TALK_PORT))
    seen = Seen()
    with (
        running(office.resource, RECEIVER, *ports) as receiver,
        running(office.client, SENDER, ADDRESS, *ports) as sender,
    ):
        yield seen
        for process in (sender, receiver):
            vars(seen).update(json.loads(process.communicate("over\n")[0]))


def accounted(office: Office, log: str = EVENTS) -> int:
    """Return how many flows to the allowed port an event log tells of, those that it says it has lost included."""
    lost = sum(line["count"] for line in office.events(log, event="lost") if line["reason"] != "rate_limit")
    return len(office.events(log, event="open", dst_port=ALLOWED_PORT)) + lost


def settled(office: Office, expected: int) -> int:
    """Return the same once it is what is expected; where it does not become that, what it is then."""
    with contextlib.suppress(AssertionError):
        wait_until("the log tells of every flow", lambda: accounted(office) >= expected, 15)
    return accounted(office)
