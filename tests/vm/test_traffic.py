"""Traffic through the kernel's own WireGuard: Debian's wg-quick as the client, with a split and with a full tunnel."""

import pytest

from tests.machines.household import (
    ALLOWED,
    ALLOWED_ELSEWHERE,
    DENIED,
    DENIED_ELSEWHERE,
    PORT,
)
from tests.machines.machine import wait_until

EVERYTHING = ("0.0.0.0/0", "::/0")


def lines(household, event, address):
    return household.events(event=event, client="alice", dst_ip=address, dst_port=PORT, proto="tcp")


def host(url):
    """The address in a URL, as an event has it."""
    return url.removeprefix("http://").removesuffix(f":{PORT}/").strip("[]")


def test_a_split_tunnel_leads_to_what_is_granted_and_to_nothing_else(split):
    split.assert_enforced()
    assert not any(split.fetch(url) for url in ALLOWED_ELSEWHERE)


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_every_flow_and_every_denial_has_its_line(split, family):
    opened, denied = host(ALLOWED[family]), host(DENIED[family])
    before = len(lines(split, "open", opened)), len(lines(split, "deny", denied))
    split.assert_enforced(ALLOWED[family : family + 1], DENIED[family : family + 1])
    wait_until("a line for the flow", lambda: len(lines(split, "open", opened)) == before[0] + 1)
    wait_until("a line for the denial", lambda: len(lines(split, "deny", denied)) > before[1])
    assert lines(split, "open", opened)[-1]["rule"] == f"alice to the resource[{family}]"
    assert lines(split, "open", opened)[-1]["verdict"] == "allow"
    assert lines(split, "deny", denied)[-1]["verdict"] == "deny"
    assert lines(split, "deny", opened) == lines(split, "open", denied) == []


def test_a_full_tunnel_leads_everywhere_and_is_enforced_there_too(household):
    with household.wg_quick(*EVERYTHING):
        wait_until("the client gets through", lambda: household.fetch(ALLOWED[0]))
        household.assert_enforced(ALLOWED + ALLOWED_ELSEWHERE, DENIED_ELSEWHERE)
    for url in ALLOWED_ELSEWHERE:
        wait_until("a line for the flow", lambda url=url: lines(household, "open", host(url)))
    for url in DENIED_ELSEWHERE:
        wait_until("a line for the denial", lambda url=url: lines(household, "deny", host(url)))
