"""Flows that are recorded, and what a node itself counts of them, beside what the log says."""

import contextlib
import json

POLICY = """
  rules:
    - name: out
      client_id: alice
      allow:
        - 10.20.0.0/24
        - 'fd20::/64'
        - {to: 10.80.0.3, proto: udp}
        - {to: 'fd80::3', proto: udp}
        - {to: 10.20.0.1, proto: udp}
        - {to: 'fd20::1', proto: udp}
    - name: in
      client_id: alice
      allow_from: [{from: 10.20.0.10, proto: udp}, {from: 'fd20::10', proto: udp}]
    - name: for now
      client_id: bob
      allow: [{to: 10.20.0.10, proto: udp}, {to: 'fd20::10', proto: udp}]
      until: 2099-01-01T00:00:00Z
"""
COUNTED = ("tx_packets", "tx_bytes", "rx_packets", "rx_bytes")
SAME = ("verdict", "client_id", "client", "src_ip", "src_port", "dst_ip", "dst_port", "proto", "icmp_type", "rule")


class Counters:
    """What a node itself counts of the traffic between it and a port of somebody else."""

    def __init__(self, node, port):
        self._node = node
        node(
            *("nft", "-f", "-"),
            text=f"""table inet count {{
                counter sent {{ }}
                counter received {{ }}
                chain out {{
                    type filter hook output priority 300;
                    th dport {port} counter name sent
                }}
                chain in {{
                    type filter hook input priority -300;
                    th sport {port} counter name received
                }}
            }}""",
        )

    def read(self):
        listed = json.loads(self._node("nft", "-j", "list", "counters", "table", "inet", "count"))["nftables"]
        found = {entry["counter"]["name"]: entry["counter"] for entry in listed if "counter" in entry}
        return [found[name][what] for name in ("sent", "received") for what in ("packets", "bytes")]


@contextlib.contextmanager
def counted_by(node, port):
    try:
        yield Counters(node, port)
    finally:
        node("nft", "delete", "table", "inet", "count")


def talk(flow):
    """Say something in both directions, of different length."""
    assert flow is not None
    assert flow.passes()
    assert flow.passes(back=True)
    assert flow.passes(back=True)


def lines_of(world, event, **fields):
    return [line for line in world.lines() if line["event"] == event and fields.items() <= line.items()]


def one_close(world, **fields):
    """End every flow, and return the only close with these fields; it names the flow as the only open does."""
    # An admin does this; what was counted until then is what the close says.
    world.gateway("conntrack", "-F")
    close = world.event(event="close", **fields)
    world.event(event="open", **fields)
    opened, *later = lines_of(world, "open", **fields)
    # The acknowledgement that a TCP end still owes begins a flow of its own: the kernel picks it up in the middle.
    assert not later or opened["proto"] == "tcp"
    closed, *later = lines_of(world, "close", **fields)
    assert closed == close
    assert not later or opened["proto"] == "tcp"
    assert {key: close.get(key) for key in SAME} == {key: opened.get(key) for key in SAME}
    assert close["duration_ms"] >= 0
    assert close["ts"] > opened["ts"]
    return close
