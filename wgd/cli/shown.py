"""What the daemon answers, for people: aligned, and in colour on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wgd.events.words import amount, duration

GREEN, YELLOW, RED, BOLD, RESET = "\033[32m", "\033[33m", "\033[31m", "\033[1m", "\033[0m"
MARKS = {"added": ("+", GREEN), "removed": ("-", RED), "changed": ("~", YELLOW)}
LAST_DRIFTS = 5
WITH_PORTS = frozenset({"tcp", "udp", "sctp", "dccp", "udplite"})


class Painter:
    """Puts words in colour, or leaves them."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def __call__(self, text: str, colour: str) -> str:
        """Return `text` in a colour, one of the constants above."""
        return f"{colour}{text}{RESET}" if self._colour and text else text


def plan(changes: Sequence[Mapping[str, Any]], *, colour: bool) -> str:
    """Return the lines for what a reload would change."""
    if not changes:
        return "nothing to do: a reload would change nothing\n"
    paint = Painter(colour=colour)
    width = max(len(change["object"]) for change in changes)
    lines = []
    for change in changes:
        mark, its_colour = MARKS[change["action"]]
        lines.append(f"{paint(mark, its_colour)} {change['object']:{width}}  {change['detail']}")
    return "\n".join((*lines, "")) + _total(changes)


def _total(changes: Sequence[Mapping[str, Any]]) -> str:
    counts = {action: sum(change["action"] == action for change in changes) for action in MARKS}
    return ", ".join(f"{count} {action}" for action, count in counts.items() if count) + "\n"


def status(found: Mapping[str, Any], *, colour: bool) -> str:
    """Return the lines for what Status answers."""
    paint = Painter(colour=colour)
    now = time.time()
    return "\n".join((rows(list(_summary(found, paint, now))), *_peers(found["peers"], paint, now), ""))


def rows(named: Sequence[tuple[str, str]]) -> str:
    """Return a line for each name and text, aligned at the colon; a line without a name goes on with the one before."""
    width = max(len(name) for name, _ in named)
    return "".join(f"{name:>{width}}{':' if name else ' '} {text}\n" for name, text in named)


def interface_state(interface: Mapping[str, Any], paint: Painter) -> str:
    """Return an interface of Status in a few words."""
    state = paint("up", GREEN) if interface["up"] else paint("down", RED)
    mtu = f", MTU {interface['mtu']}" if interface["mtu"] is not None else ""
    return f"{paint(interface['name'], BOLD)} {state}, port {interface['listen_port'] or 'none'}{mtu}"


def _summary(found: Mapping[str, Any], paint: Painter, now: float) -> Iterator[tuple[str, str]]:
    yield "interface", interface_state(found["interface"], paint)
    yield "addresses", ", ".join(found["interface"]["addresses"]) or "none"
    yield "running", f"for {duration(now - found['started'])}, version {found['version']}"
    mode = found["authz_mode"]
    yield "mode", mode if mode == "enforce" else paint(f"{mode}: nothing is dropped", YELLOW)
    policy = found["policy"]
    yield (
        "policy",
        f"{policy['rules']} rules, {policy['allow']} allow entries, {policy['clients']} clients with a grant",
    )
    dropped = found["dropped"]
    yield "dropped", f"{dropped['denied']} packets denied, {dropped['spoofed']} with a forged client address"
    yield from _event_log(found["event_log"], paint)
    yield "drift", _drift(found, paint)
    for drift in found["drift"][-LAST_DRIFTS:]:
        ago = f"{duration(now - drift['ts'])} ago"
        yield "", f"{drift['action']} {ago}: {drift['object']} {drift['detail']}"
    yield from _neighbours(found["neighbours"], paint)
    if found["confirm_seconds"] is not None:
        yield "reload", paint(f"goes back in {found['confirm_seconds']} s unless confirmed", YELLOW)
    if found["failing"] is not None:
        yield "failing", paint(found["failing"], RED)


def _neighbours(neighbours: Sequence[Mapping[str, Any]], paint: Painter) -> Iterator[tuple[str, str]]:
    """Yield what others on the host do to the gateway's traffic, and the remedy for each."""
    for index, found in enumerate(neighbours):
        yield "" if index else "in the way", paint(f"{found['where']}: {found['effect']}", YELLOW)
        yield "", found["remedy"]


def _event_log(event_log: Mapping[str, Any] | None, paint: Painter) -> Iterator[tuple[str, str]]:
    if event_log is None:
        yield "event log", "off"
        return
    lost = f"{event_log['lost']} lost"
    lost = paint(lost, YELLOW) if event_log["lost"] else lost
    yield "event log", f"{event_log['path']}: {event_log['events']} events, {lost}"
    for name, what in (
        ("undecoded", "messages were not understood"),
        ("unresolved", "events are of a policy whose names were not known"),
        ("overruns", "times the kernel's queue was full"),
        ("unsent", "lines of the file are not in the journal"),
    ):
        if event_log[name]:
            yield "", paint(f"{event_log[name]} {what}", YELLOW)
    if event_log["refused"] is not None:
        yield "", paint(event_log["refused"], RED)


def _drift(found: Mapping[str, Any], paint: Painter) -> str:
    if not found["drift_restored"] and not found["drift_failed"]:
        return "none seen"
    failed = paint(f", {found['drift_failed']} times it could not be", RED) if found["drift_failed"] else ""
    return paint(f"{found['drift_restored']} changes of others put back", YELLOW) + failed


def explanation(found: Mapping[str, Any], *, colour: bool) -> str:
    """Return the lines for what Explain answers."""
    paint = Painter(colour=colour)
    allowed = found["config"]["verdict"] == "allow"
    if not found["agree"]:
        verdict = paint("config and kernel disagree", YELLOW)
    else:
        verdict = paint("allowed", GREEN) if allowed else paint("denied", RED)
    ends = [found["client"], found["destination"]]
    lines = [f"{verdict}: {' to '.join(reversed(ends) if found['incoming'] else ends)}{_traffic(found)}"]
    for name in ("config", "kernel"):
        answer = found[name]
        by = f", by {answer['rule']}" if answer["rule"] is not None else ""
        lines.append(f"  {name}: {answer['verdict']}{by}")
        lines += [f"          {reason}" for reason in answer["reasons"]]
    for neighbour in found["neighbours"]:
        lines.append(f"  {paint('in the way', YELLOW)}: {neighbour['where']}: {neighbour['effect']}")
        lines.append(f"          {neighbour['remedy']}")
    if found["authz_mode"] == "observe":
        lines.append("  observe: nothing is dropped now; this is what enforce would do")
    return "\n".join((*lines, ""))


def _traffic(found: Mapping[str, Any]) -> str:
    """Return the protocol and port of the question; without them it is about all of them."""
    if found["protocol"] is None:
        return ", every protocol"
    port = "" if found["port"] is None else f" port {found['port']}"
    every = ", every port" if found["port"] is None and found["protocol"] in WITH_PORTS else ""
    return f", {found['protocol']}{port}{every}"


def _peers(peers: Sequence[Mapping[str, Any]], paint: Painter, now: float) -> Iterator[str]:
    if not peers:
        yield "no peers"
        return
    table = [("PEER", "ENDPOINT", "HANDSHAKE", "FROM PEER", "TO PEER")]
    table += [
        (
            peer["name"] or peer["public_key"],
            peer["endpoint"] or "-",
            f"{duration(now - peer['last_handshake'])} ago" if peer["last_handshake"] else "never",
            amount(peer["rx_bytes"]),
            amount(peer["tx_bytes"]),
        )
        for peer in peers
    ]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    colours = [BOLD, *(GREEN if peer["live"] else "" for peer in peers)]
    for row, colour in zip(table, colours, strict=True):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        if colour:
            cells[0] = paint(cells[0], colour)
        yield "  ".join(cells).rstrip()
