"""YAML text -> a plain tree of dict, list and str that knows the line of everything in it.

The tree is built from libyaml's events, not from PyYAML's nodes: an event says whether a value was quoted, tagged or
anchored, no depth of nesting can exhaust a stack, and nothing is typed on the way (`no`, `007` and `1:20` stay text).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from wgd.config.shown import Path
from wgd.config.tree import QUOTE_ADDRESS, Builder, Marks, Tree, UnreadableError
from wgd.errors import ConfigError, Problem

MAX_BYTES = 64 * 1024 * 1024
"""A larger file is refused before it is parsed."""


@dataclass(frozen=True)
class SourceFile:
    """A config file that the caller has read.

    `path` is what problems call it; `name` is the path relative to the main file's folder (`server.d/alice.yaml`).
    """

    path: str
    name: str
    text: bytes


@dataclass(frozen=True)
class Document:
    """The content of one YAML file. An empty file is an empty mapping.

    `complete` is False when the text stops being readable somewhere: `tree` is empty then and `problems` says why.
    Problems of a complete document (a key given twice, say) leave a tree that can be checked further.
    """

    file: str
    tree: dict[str, Tree]
    marks: Marks = 1
    problems: tuple[Problem, ...] = ()
    complete: bool = True

    def line(self, path: Path) -> int:
        """Return the line, from 1, of the key or list item at `path`; of what is missing, the line of what holds it."""
        marks = self._marks(path)
        return marks if isinstance(marks, int) else marks[0]

    def _marks(self, path: Path) -> Marks:
        """Return the marks of `path`, or of the nearest thing that holds it."""
        marks = self.marks
        for step in path:
            if isinstance(marks, int):
                break
            members = marks[1]
            if isinstance(members, dict):
                found = members.get(step) if isinstance(step, str) else None
            else:
                found = members[step] if isinstance(step, int) and 0 <= step < len(members) else None
            if found is None:
                break
            marks = found
        return marks

    def item_lines(self, path: Path, count: int) -> list[int]:
        """Return the lines of the `count` members of the list at `path`."""
        marks = self._marks(path)
        if isinstance(marks, int):
            return [marks] * count
        members = marks[1].values() if isinstance(marks[1], dict) else marks[1]
        return [mark if isinstance(mark, int) else mark[0] for mark in members]


def parse(file: str, text: bytes) -> Document:
    """Return the document without any problem, or raise ConfigError with everything that is wrong with the YAML."""
    document = read(file, text)
    if document.problems:
        raise ConfigError(document.problems)
    return document


def read(file: str, text: bytes) -> Document:
    """Return the document together with its problems, so that the schema can add its own to them. Raises nothing."""
    builder = Builder(file)
    try:
        _check_bytes(builder, text)
        _build(builder, text)
    except UnreadableError:
        return Document(file, {}, 1, tuple(builder.problems), complete=False)
    tree, marks = builder.root
    if tree == "":
        return Document(file, {}, 1, tuple(builder.problems))
    if not isinstance(tree, dict):
        line = marks if isinstance(marks, int) else marks[0]
        builder.problem(line, "must be keys with values, as in 'authz_mode: enforce'")
        return Document(file, {}, 1, tuple(builder.problems), complete=False)
    return Document(file, tree, (1, marks[1]) if isinstance(marks, tuple) else 1, tuple(builder.problems))


def _check_bytes(builder: Builder, text: bytes) -> None:
    if len(text) > MAX_BYTES:
        builder.stop(
            1, f"is larger than {MAX_BYTES // 1024 // 1024} MiB: split it into drop-ins or check what wrote it"
        )
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        builder.stop(_line_at(text, error.start), "is not UTF-8 text from this line on")
    if (nul := text.find(b"\0")) >= 0:
        builder.stop(_line_at(text, nul), "holds a NUL byte: remove it")


def _line_at(text: bytes, offset: int) -> int:
    return text.count(b"\n", 0, offset) + 1


def _build(builder: Builder, text: bytes) -> None:
    events: Iterator[Any] = yaml.parse(text, Loader=yaml.CSafeLoader)
    try:
        for event in events:
            kind = type(event)
            if kind is yaml.ScalarEvent:
                builder.scalar(event)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                builder.open(event)
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                builder.close()
            elif kind is yaml.AliasEvent:
                builder.stop(event.start_mark.line + 1, "aliases (*name) are not supported: write the value out")
            elif kind is yaml.DocumentStartEvent:
                builder.begin(event.start_mark.line + 1)
    except yaml.reader.ReaderError as error:
        builder.stop(_line_at(text, error.position), "holds a control character, which YAML does not allow: remove it")
    except yaml.MarkedYAMLError as error:
        # Only the fixed phrase and the line: a snippet of the text could hold a key.
        line = error.problem_mark.line if error.problem_mark is not None else 0
        if any(problem.line == line + 1 and problem.text == QUOTE_ADDRESS for problem in builder.problems):
            raise UnreadableError from None
        builder.stop(line + 1, f"is not valid YAML: {error.problem}{_hint(text, line)}")


def _hint(text: bytes, line: int) -> str:
    lines = text.split(b"\n", line + 1)
    content = lines[line].split(b" #")[0] if line < len(lines) else b""
    if b"::" in content:
        return f"; {QUOTE_ADDRESS}"
    if content[: len(content) - len(content.lstrip())].count(b"\t"):
        return "; indent with spaces, not with tabs"
    return ""
