"""How the ends of flows are counted, which the kernel does not number: what was taken, told, and had no room."""

from __future__ import annotations

import errno
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from flow_messages import flow

from wgd.daemon import sources as module
from wgd.daemon.sources import FlowEnds
from wgd.daemon.tally import FLOW_ENDS, Tally, open_tally
from wgd.events.flow_decoder import FlowDecoder
from wgd.events.names_book import NamesBook

FULL = OSError(errno.ENOBUFS, "No buffer space available")


class Socket:
    """A socket with these datagrams and errors in its queue; `dropped` is what the kernel has counted."""

    def __init__(self, *queued: bytes | OSError) -> None:
        self.queued = list(queued)
        self.dropped = 0

    def setblocking(self, _: object) -> None:
        """Do nothing: it never blocks."""

    def recv_into(self, view: memoryview) -> int:
        if not self.queued:
            raise BlockingIOError
        found = self.queued.pop(0)
        if isinstance(found, OSError):
            raise found
        view[: len(found)] = found
        return len(found)


@pytest.fixture
def tally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module.flow_ends, "dropped", lambda opened: opened.dropped)
    descriptor = open_tally(tmp_path / "tally")
    yield Tally(descriptor)
    os.close(descriptor)


def source(opened: Socket, tally: Tally, accounted: int = 0) -> FlowEnds:
    return FlowEnds(opened, FLOW_ENDS, FlowDecoder(NamesBook(), accounted), tally)  # type: ignore[arg-type]


def events(made: FlowEnds) -> tuple[list[Any], int]:
    """Return the events of the next batch, of lost ones how many and why, and how many it says are lost."""
    batch = made.receive(bytearray(1 << 18))
    assert batch is not None
    found = [json.loads(line) for line in batch.text.splitlines()]
    return [(one["count"], one["reason"]) if one["event"] == "lost" else one["event"] for one in found], batch.lost


def test_everything_that_is_queued_comes_at_once_and_then_nothing(tally: Tally) -> None:
    made = source(Socket(flow(), flow(protocol=1), flow("fd80::2", "fd20::10")), tally)
    assert events(made) == (["close"] * 3, 0)
    assert made.receive(bytearray(1 << 18)) is None
    assert tally.taken == 3


def test_more_than_fits_the_buffer_comes_in_several_batches(tally: Tally) -> None:
    made = source(Socket(*[flow()] * 1000), tally)
    batches = []
    while (batch := made.receive(bytearray(1 << 14))) is not None:
        batches.append(batch.events)
    assert sum(batches) == tally.taken == 1000
    assert len(batches) > 1


def test_what_had_no_room_is_lost_and_counted_once(tally: Tally) -> None:
    opened = Socket(FULL, flow(), flow())
    opened.dropped = 5
    made = source(opened, tally)
    made._reason = "overrun"
    assert events(made) == ([(5, "overrun"), "close", "close"], 5)
    assert made.overran == 1
    opened.queued = [flow()]
    assert events(made) == (["close"], 0)
    opened.dropped = 7
    assert events(made) == ([(2, "overrun")], 2)


def test_what_a_recorder_had_taken_and_not_told_is_lost_with_it(tally: Tally) -> None:
    first = source(Socket(flow(), flow()), tally)
    events(first)
    accounted = first.decoder.next_sequence
    tally.taken += 3
    second = source(Socket(flow()), tally, accounted)
    assert events(second) == ([(3, "restart"), "close"], 3)
    assert events(source(Socket(flow()), tally, second.decoder.next_sequence)) == (["close"], 0)


def test_counts_that_no_longer_fit_32_bits_go_on(tally: Tally) -> None:
    last = (1 << 32) - 1
    tally.taken = last
    opened = Socket(flow(), flow())
    opened.dropped = 1
    assert events(source(opened, tally, last << 32 | last)) == ([(2, "restart"), "close", "close"], 2)


def test_what_is_no_flow_is_taken_and_not_lost(tally: Tally) -> None:
    made = source(Socket(struct.pack("=IHHII", 16, 0x0999, 0, 0, 0), flow()), tally)
    batch = made.receive(bytearray(1 << 18))
    assert batch is not None
    assert (batch.events, batch.undecoded, batch.lost) == (1, 1, 0)
