"""Varlink's messages: what is cut out of a stream, and what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgd.host.varlink import (
    Call,
    Messages,
    ProtocolError,
    VarlinkError,
    answer_bytes,
    call_bytes,
    error_bytes,
    parse_answer,
    parse_call,
)

LIMIT = 1000


def all_of(data: bytes) -> list[dict[str, object]]:
    messages = Messages(LIMIT)
    messages.add(data)
    return list(iter(messages.next, None))


@given(
    st.lists(st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.none())), max_size=4),
    st.lists(st.integers(0, 200), max_size=5),
)
def test_messages_are_the_same_however_the_stream_is_cut(sent: list[dict[str, object]], cuts: list[int]) -> None:
    stream = b"".join(json.dumps(message).encode() + b"\0" for message in sent)
    messages, received = Messages(10_000), []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(stream)], strict=True):
        messages.add(stream[start:end])
        received += list(iter(messages.next, None))
    assert received == sent


def test_a_half_message_is_none_yet() -> None:
    assert all_of(b'{"method": "a"') == []


@pytest.mark.parametrize("data", [b"x" * (LIMIT + 1), b"x" * (LIMIT + 1) + b"\0", b'{"a":"' + b"x" * LIMIT + b'"}\0'])
def test_a_message_that_is_too_long_is_refused_whether_it_ends_or_not(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="longer than 1000 bytes"):
        all_of(data)


def test_a_message_of_just_the_limit_is_taken() -> None:
    text = json.dumps({"a": "x" * (LIMIT - 9)})
    assert len(text) == LIMIT
    assert len(all_of(text.encode() + b"\0")) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"garbage\0",
        b"[1]\0",
        b"7\0",
        b"null\0",
        b'"\xff"\0',
        b'{"a":1\0',
        b"[" * 900 + b"\0",
        b'{"a":' * 150 + b"\0",
    ],
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="is not"):
        all_of(data)


@pytest.mark.parametrize(
    "message",
    [{}, {"method": 1}, {"method": None}, {"method": "a.B", "parameters": []}, {"method": "a.B", "oneway": 1}],
    ids=str,
)
def test_what_is_no_call_is_refused(message: dict[str, object]) -> None:
    with pytest.raises(ProtocolError, match="is not a method call"):
        parse_call(message)


def test_a_call_goes_there_and_back() -> None:
    call = Call("io.wgd.Server.Reload", {"confirm": 30}, oneway=True)
    (message,) = all_of(call_bytes(call))
    assert parse_call(message) == call
    assert call.interface == "io.wgd.Server"


def test_an_answer_goes_there_and_back() -> None:
    (message,) = all_of(answer_bytes({"ok": "ä\0"}))
    assert parse_answer(message) == {"ok": "ä\0"}


def test_an_error_is_raised_with_its_name_and_parameters() -> None:
    (message,) = all_of(error_bytes(VarlinkError("a.B", {"c": 1})))
    with pytest.raises(VarlinkError) as raised:
        parse_answer(message)
    assert (raised.value.name, raised.value.parameters) == ("a.B", {"c": 1})


@pytest.mark.parametrize("message", [{"error": 1}, {"parameters": 3}])
def test_what_is_no_answer_is_refused(message: dict[str, object]) -> None:
    with pytest.raises(ProtocolError, match="is not an answer"):
        parse_answer(message)
