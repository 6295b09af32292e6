"""The socket on which the kernel tells of the end of recorded flows: which, and what of it is counted."""

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest
from pyroute2 import NFCTSocket, netns

from wgd.events.flow_message import EndedFlow, walk
from wgd.kernel import flow_ends
from wgd.kernel.conntrack import end_recorded_flows, release_recorded_flows
from wgd.policy.ruleset import RECORDED_DELIVERED, RECORDED_FORWARDED

NAMESPACE = f"wgdt{os.getpid()}ends"
OTHER_BITS = 0x05345678
MARKS = {9001: OTHER_BITS, 9002: RECORDED_FORWARDED | OTHER_BITS, 9003: RECORDED_DELIVERED}
HOSTS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
FIRST_SOURCE_PORT = 20000
RECORDED_PORTS = [9002, 9002, 9003, 9003]


@pytest.fixture
def ends() -> Iterator[socket.socket]:
    """The socket, in a namespace in which the flows to some ports are recorded."""
    marks = ", ".join(f"{port} : 0x{mark:08x}" for port, mark in MARKS.items())
    ruleset = (
        "table inet t { chain c { type filter hook output priority 0;"
        f" ct mark set udp dport map {{ {marks} }}; }}; }}"
    )
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    netns.pushns(NAMESPACE)
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["nft", ruleset], check=True)
        with flow_ends.open_flow_ends() as opened:
            yield opened
    finally:
        netns.popns()
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)


def begin(*ports: int, times: int = 1) -> None:
    """Begin flows of both families to each port, of one datagram each."""
    for family, host in HOSTS:
        for port in ports:
            for number in range(times):
                with socket.socket(family, socket.SOCK_DGRAM) as sender:
                    sender.bind((host, FIRST_SOURCE_PORT + number))
                    sender.sendto(b"", (host, port))


def marks() -> list[int]:
    """Return the marks of all IPv4 flows."""
    with NFCTSocket() as door:
        return sorted(message.get_attr("CTA_MARK") for message in door.dump())


def flush() -> None:
    with NFCTSocket() as door:
        door.flush()


def told(ends: socket.socket) -> list[EndedFlow]:
    """Return everything that is queued; the kernel queues it before it answers who has ended the flows."""
    found = []
    while True:
        try:
            flow = walk(ends.recv(flow_ends.RECEIVE_BYTES))
        except BlockingIOError:
            return found
        assert flow is not None
        found.append(flow)


def ports(ends: socket.socket) -> list[int | None]:
    return sorted(flow.destination_port or 0 for flow in told(ends))


def test_only_recorded_flows_are_told_of(ends: socket.socket) -> None:
    begin(*MARKS)
    assert told(ends) == []
    flush()
    assert ports(ends) == RECORDED_PORTS
    assert flow_ends.dropped(ends) == 0


def test_ending_the_recorded_flows_leaves_all_others(ends: socket.socket) -> None:
    begin(*MARKS)
    end_recorded_flows()
    assert ports(ends) == RECORDED_PORTS
    assert marks() == [OTHER_BITS]


def test_a_released_flow_lives_on_and_is_told_of_by_the_one_who_released_it(ends: socket.socket) -> None:
    begin(*MARKS)
    released = [walk(message) for message in release_recorded_flows()]
    assert sorted(flow.destination_port or 0 for flow in released if flow) == RECORDED_PORTS
    assert marks() == [0, OTHER_BITS, OTHER_BITS]
    assert release_recorded_flows() == ()
    flush()
    assert told(ends) == []


def test_what_has_no_room_is_counted_to_the_last_one(ends: socket.socket) -> None:
    ends.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    begin(9001, 9002, times=200)
    flush()
    with pytest.raises(OSError, match="No buffer space"):
        ends.recv(flow_ends.RECEIVE_BYTES)
    read = len(told(ends))
    assert 0 < read < 400
    assert read + flow_ends.dropped(ends) == 400
    begin(9002)
    flush()
    assert len(told(ends)) == 2
    assert read + flow_ends.dropped(ends) == 400
