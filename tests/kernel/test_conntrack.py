"""The marks of real conntrack entries: what taking generations out of them leaves."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest
from pyroute2 import netns
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

from wgd.kernel.conntrack import forget_generations
from wgd.policy.ruleset import GENERATION_MASK, GENERATION_SHIFT, RECORDED_FORWARDED

NAMESPACE = f"wgdt{os.getpid()}ct"
KEPT_BITS = RECORDED_FORWARDED | 0x00345678
GENERATIONS = {9001: 0, 9002: 1, 9003: 15, 9004: 16, 9005: 31}


@pytest.fixture
def flows() -> Iterator[None]:
    """A namespace with one UDP flow a port and family, each with a mark; other bits are in every mark."""
    marks = ", ".join(
        f"{port} : 0x{generation << GENERATION_SHIFT | KEPT_BITS:08x}" for port, generation in GENERATIONS.items()
    )
    ruleset = (
        "table inet t { chain c { type filter hook output priority 0;"
        f" ct mark set udp dport map {{ {marks} }}; }}; }}"
    )
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    netns.pushns(NAMESPACE)
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["nft", ruleset], check=True)
        with contextlib.ExitStack() as opened:
            for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                for port in GENERATIONS:
                    sender = opened.enter_context(socket.socket(family, socket.SOCK_DGRAM))
                    sender.sendto(b"", (host, port))
            yield
    finally:
        netns.popns()
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)


def generations() -> dict[int, set[int]]:
    """Return the generation in each flow's mark, by port, over both families; all other bits are there."""
    found: dict[int, set[int]] = {port: set() for port in GENERATIONS}
    with NFCTSocket() as door:
        for message in door.dump():
            proto = message.get_attr("CTA_TUPLE_ORIG").get_attr("CTA_TUPLE_PROTO")
            if proto.get_attr("CTA_PROTO_NUM") != socket.IPPROTO_UDP:
                continue
            mark = message.get_attr("CTA_MARK")
            assert mark & ~GENERATION_MASK == KEPT_BITS
            found[proto.get_attr("CTA_PROTO_DST_PORT")].add((mark & GENERATION_MASK) >> GENERATION_SHIFT)
    return found


def expected(*forgotten: int) -> dict[int, set[int]]:
    return {port: {0 if generation in forgotten else generation} for port, generation in GENERATIONS.items()}


@pytest.mark.usefixtures("flows")
def test_a_half_is_forgotten_and_all_other_bits_stay() -> None:
    assert generations() == expected()
    forget_generations(upper=True)
    assert generations() == expected(16, 31)
    forget_generations(upper=False)
    assert generations() == expected(1, 15, 16, 31)
