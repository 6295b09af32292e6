"""What conntrack is told, and what is put back: with what the gateway does with a plan, on a kernel in small."""

from dataclasses import replace

import pytest
from test_forwarding import AUTO, Gateway, host

from wgd.model import Logging, Record
from wgd.plan.flow_accounting import COUNTS, EVENTS, TIMES

FLOWS = replace(AUTO, logging=Logging(enabled=True))
OTHERS = [AUTO, replace(AUTO, logging=Logging(enabled=True, record=Record.PACKETS))]


def told(gateway: Gateway) -> tuple[str, str, str]:
    return gateway.kernel[COUNTS], gateway.kernel[TIMES], gateway.kernel[EVENTS]


def fresh(*values: str) -> Gateway:
    return Gateway(host() | dict(zip((COUNTS, TIMES, EVENTS), values, strict=True)))


@pytest.mark.parametrize(
    ("before", "during"),
    [(("0", "0", "2"), ("1", "1", "2")), (("1", "0", "1"), ("1", "1", "1")), (("0", "1", "0"), ("1", "1", "1"))],
)
def test_flows_are_accounted_and_everything_is_put_back(
    before: tuple[str, str, str], during: tuple[str, str, str]
) -> None:
    gateway = fresh(*before)
    gateway.apply(FLOWS)
    assert told(gateway) == during
    assert gateway.apply(FLOWS) == {}
    gateway.stop()
    assert told(gateway) == before


@pytest.mark.parametrize("config", OTHERS, ids=["no log", "packets"])
def test_without_flows_in_the_log_nothing_is_touched(config: object) -> None:
    gateway = fresh("0", "0", "0")
    gateway.apply(config)  # type: ignore[arg-type]
    assert told(gateway) == ("0", "0", "0")


@pytest.mark.parametrize("config", OTHERS, ids=["no log", "packets"])
def test_a_reload_without_flows_puts_back_only_what_was_changed(config: object) -> None:
    gateway = fresh("1", "0", "2")
    gateway.apply(FLOWS)
    gateway.apply(config)  # type: ignore[arg-type]
    assert told(gateway) == ("1", "0", "2")
    assert gateway.kernel["ipv4/ip_forward"] == "1"
    gateway.kernel[TIMES] = "1"
    gateway.stop()
    assert told(gateway) == ("1", "1", "2")


def test_a_host_without_conntrack_is_asked_for_nothing() -> None:
    gateway = Gateway(host())
    assert not {COUNTS, TIMES, EVENTS} & gateway.apply(FLOWS).keys()
