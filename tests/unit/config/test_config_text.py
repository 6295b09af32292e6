"""YAML text to a plain tree with lines."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgd.config.text import MAX_BYTES, Document, parse, read
from wgd.errors import ConfigError


def problems(text: str | bytes) -> list[str]:
    content = text.encode() if isinstance(text, str) else text
    return [str(problem) for problem in read("f", content).problems]


@pytest.mark.parametrize("word", ["no", "007", "1:20", "~", "null", "1e3", "0x1F", "2027-01-01", "=", "<<"])
def test_scalars_stay_the_text_that_was_written(word: str) -> None:
    assert parse("f", f"a: {word}\n".encode()).tree == {"a": word}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\ufeff"])
def test_an_empty_file_is_an_empty_mapping(text: str) -> None:
    document = parse("f", text.encode())
    assert document.tree == {}
    assert document.line(("authz_mode",)) == 1


@pytest.fixture
def document() -> Document:
    first = b"a: 1\nb:\n  c: 2\n  d:\n    - x\n    - {e: 1,\n       f: 2}\n    - \n      g: [1, 2]\n"
    return parse("f", first + b"h:\n  text\nm: [1,\n  2]\n")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 1),
        (("a",), 1),
        (("b",), 2),
        (("b", "c"), 3),
        (("b", "d"), 4),
        (("b", "d", 0), 5),
        (("b", "d", 1), 6),
        (("b", "d", 1, "e"), 6),
        (("b", "d", 1, "f"), 7),
        (("b", "d", 2), 9),
        (("b", "d", 2, "g", 1), 9),
        (("h",), 10),
        (("m", 0), 12),
        (("m", 1), 13),
    ],
)
def test_line_is_that_of_the_key_or_item(document: Document, path: tuple[str | int, ...], line: int) -> None:
    assert document.line(path) == line


@pytest.mark.parametrize(
    ("path", "line"),
    [(("zzz",), 1), (("b", "zzz"), 2), (("b", "d", 99), 4), (("b", "d", "x"), 4), (("a", "zzz"), 1), (("b", 0), 2)],
)
def test_line_of_what_is_missing_is_that_of_what_would_hold_it(
    document: Document, path: tuple[str | int, ...], line: int
) -> None:
    assert document.line(path) == line


def test_item_lines_gives_every_items_line(document: Document) -> None:
    assert document.item_lines(("b", "d"), 3) == [5, 6, 9]
    assert document.item_lines(("b", "d", 2, "g"), 2) == [9, 9]


def test_a_key_given_twice_is_told_with_both_lines_and_the_first_value_stays() -> None:
    document = read("f", b"a:\n  b: 1\n  c: 2\n  b: 3\n")
    assert [str(problem) for problem in document.problems] == ["f:4: a.b: is given twice, first in line 2: keep one"]
    assert document.tree == {"a": {"b": "1", "c": "2"}}


def test_a_key_given_twice_is_found_in_a_flow_mapping_and_with_other_quotes() -> None:
    assert problems("{a: 1, 'a': 2}\n") == ["f:1: a: is given twice, first in line 1: keep one"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [::1/128]", 1),
        ("a: [10.0.0.1/24, ::1]", 1),
        ("a: [\n  10.0.0.1/24,\n  ::/0\n]", 3),
        ("a: [fd80::2/128]", 1),
        ("a: [\n  10.0.0.1/24,\n  fd80::1/64]", 3),
        ("a: [fd80::]", 1),
        ("a: [fd80::, 10.0.0.1]", 1),
        ("a: [[fd80::1]:51820]", 1),
        ("a: [fd80::1]:51820", 1),
        ("a: {to: ::/0}", 1),
        ("a: {to: fd80::}", 1),
        ("a:\n  to: fd80::", 2),
        ("a:\n  - 10.0.0.1\n  - fd80::\n", 3),
        ("a:\n  - ::\n", 2),
    ],
)
def test_an_unquoted_address_that_yaml_may_misread_is_asked_to_be_quoted(text: str, line: int) -> None:
    (problem,) = problems(text)
    assert problem.startswith(f"f:{line}: ")
    assert 'needs quotes here, as in "fd80::1/64"' in problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: [\"fd80::1/64\", '::/0']", ["fd80::1/64", "::/0"]),
        ("a:\n  - fd80::1/64\n  - ::/0\n", ["fd80::1/64", "::/0"]),
        ("a: ::1/128", "::1/128"),
        ("a: {to: fd20::/64, proto: icmp}", {"to": "fd20::/64", "proto": "icmp"}),
        ("a: [10.0.0.1:51820]", ["10.0.0.1:51820"]),
    ],
)
def test_an_address_that_yaml_reads_as_meant_is_taken(text: str, value: object) -> None:
    assert parse("f", text.encode()).tree == {"a": value}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &x 1", "f:1: a: anchors (&name) are not supported: remove it"),
        ("a:\n  - *x", "f:2: a[0]: aliases (*name) are not supported: write the value out"),
        ("a: !!int 1", "f:1: a: tags (!name) are not supported: remove it"),
        ("a: !x {b: 1}", "f:1: a: tags (!name) are not supported: remove it"),
        ("a: &x {b: 1}", "f:1: a: anchors (&name) are not supported: remove it"),
        ("a: 1\n---\nb: 1", "f:2: begins a second YAML document: remove the '---' line or use a file of its own"),
        ("a:\n\tb: 1", "f:2: a: is not valid YAML: found character that cannot start any token; indent with spaces"),
        ("a:\n  b: [1,\n  c: 2\nd: 3\n", "f:4: a.b[2]: is not valid YAML: did not find expected ',' or ']'"),
        ("- a", "f:1: must be keys with values, as in 'authz_mode: enforce'"),
        ("just text", "f:1: must be keys with values, as in 'authz_mode: enforce'"),
        ("a: 1\nb: \x07", "f:2: holds a control character, which YAML does not allow: remove it"),
        ("a: 1\nb: \x00", "f:2: holds a NUL byte: remove it"),
    ],
)
def test_yaml_beyond_plain_keys_and_values_is_refused_with_its_line(text: str, expected: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(expected)


def test_text_that_is_not_utf8_is_refused_with_its_line() -> None:
    assert problems(b"a: 1\nb: \xff\n") == ["f:2: is not UTF-8 text from this line on"]


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " + "{b: " * 100_000, "- " * 100_000, "? " * 10_000])
def test_deep_nesting_is_a_problem_and_not_a_crash(text: str) -> None:
    assert len(problems(text)) == 1


def test_nesting_beyond_any_use_is_named() -> None:
    assert problems("a: " + "[" * 40 + "]" * 40) == ["f:1: is nested more than 32 levels deep"]
    assert problems("a: " + "[" * 31 + "]" * 31) == []


def test_a_file_above_the_limit_is_refused_before_it_is_parsed() -> None:
    assert problems(b"[" * (MAX_BYTES + 1)) == [
        "f:1: is larger than 64 MiB: split it into drop-ins or check what wrote it"
    ]


def test_a_syntax_error_never_shows_the_text() -> None:
    secret = "cHJpdmF0ZSBrZXkgcHJpdmF0ZSBrZXkgcHJpdmF0ZSBrZXk="
    for text in (f"a: '{secret}", f"a: {secret}: b", f"{secret}: [", f"a: [{secret}\n{secret}: 1", f"a: *{secret}"):
        (problem,) = problems(text)
        assert secret[:8] not in problem


def test_parse_raises_what_read_only_notes() -> None:
    with pytest.raises(ConfigError, match=r"f:2: a: is given twice"):
        parse("f", b"a: 1\na: 2\n")


yaml_like = st.text(alphabet="ab:-[]{},&*!?|>'\"#%@` \n\t0\0\u2028\x85\ufeffé", max_size=60)


@settings(max_examples=300)
@given(st.binary(max_size=60) | yaml_like.map(str.encode))
def test_no_bytes_make_parse_raise_anything_but_a_config_error(text: bytes) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse("f", text).tree, dict)
