"""Puts libyaml's events together to a tree of dict, list and str, and a second tree with the lines of the first."""

from __future__ import annotations

from typing import Any, NoReturn

import yaml

from wgd.config.shown import dotted
from wgd.errors import Problem

MAX_DEPTH = 32
"""Mappings and lists inside each other; the deepest that the schema knows is 6."""

Tree = str | list["Tree"] | dict[str, "Tree"]
Marks = int | tuple[int, "list[Marks] | dict[str, Marks]"]
"""The line of a scalar or of what is written on one line, else the line of a list or mapping and its members' marks."""

QUOTE_ADDRESS = 'an IPv6 address with :: needs quotes here, as in "fd80::1/64"'


class UnreadableError(Exception):
    """Stops the reading; the problem is in the builder."""


class _Frame:
    """A list or mapping that is still open; `key` is the mapping's key that waits for its value."""

    __slots__ = ("flow", "key", "key_line", "line", "marks", "on_one_line", "value")

    def __init__(self, *, mapping: bool, line: int, flow: bool) -> None:
        self.value: dict[str, Tree] | list[Tree] = {} if mapping else []
        self.marks: dict[str, Marks] | list[Marks] = {} if mapping else []
        self.line = line
        self.flow = flow
        self.key: str | None = None
        self.key_line = 0
        self.on_one_line = True


class Builder:
    """Puts events together to a tree and its marks."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.root: tuple[Tree, Marks] = ("", 1)
        self.documents = 0
        self.stack: list[_Frame] = []

    def problem(self, line: int, text: str, path: str = "") -> None:
        """Note a problem and go on."""
        self.problems.append(Problem(self.file, line, path, text))

    def stop(self, line: int, text: str) -> NoReturn:
        """Note a problem that leaves nothing to go on with."""
        self.problem(line, text, self.here())
        raise UnreadableError

    def here(self) -> str:
        """Return the dotted path of the value that comes next."""
        path: list[str | int] = []
        for frame in self.stack:
            if isinstance(frame.value, list):
                path.append(len(frame.value))
            elif frame.key is not None:
                path.append(frame.key)
        return dotted(path)

    def begin(self, line: int) -> None:
        """Take the start of a document; there is one only."""
        self.documents += 1
        if self.documents > 1:
            self.stop(line, "begins a second YAML document: remove the '---' line or use a file of its own")

    def scalar(self, event: Any) -> None:
        """Take a scalar: a mapping's next key, or a value."""
        line = event.start_mark.line + 1
        text: str = event.value
        plain = not event.style
        if event.anchor is not None or event.tag is not None:
            self._decoration(event, line)
        frame = self.stack[-1] if self.stack else None
        if frame is not None and isinstance(frame.value, dict) and frame.key is None:
            if plain and (text.endswith(":") or "::" in text):
                self.stop(line, QUOTE_ADDRESS)
            frame.key = text
            frame.key_line = line
            return
        if plain and "::" in text and frame is not None and frame.flow and isinstance(frame.value, list):
            self.problem(line, QUOTE_ADDRESS, self.here())
        self._put(text, line)

    def open(self, event: Any) -> None:
        """Take the start of a list or mapping."""
        line = event.start_mark.line + 1
        parent = self.stack[-1] if self.stack else None
        if parent is not None and isinstance(parent.value, dict):
            if parent.key is None:
                self.stop(line, f"a key must be plain text, not a list or mapping; {QUOTE_ADDRESS}")
            line = parent.key_line
        if event.anchor is not None or event.tag is not None:
            self._decoration(event, line)
        if len(self.stack) == MAX_DEPTH:
            self.problem(line, f"is nested more than {MAX_DEPTH} levels deep")
            raise UnreadableError
        self.stack.append(_Frame(mapping=type(event) is yaml.MappingStartEvent, line=line, flow=bool(event.flow_style)))

    def close(self) -> None:
        """Take the end of the innermost list or mapping."""
        frame = self.stack.pop()
        self._put(frame.value, frame.line if frame.on_one_line else (frame.line, frame.marks))

    def _put(self, value: Tree, marks: Marks) -> None:
        if not self.stack:
            self.root = (value, marks)
            return
        frame = self.stack[-1]
        if isinstance(frame.value, list) and isinstance(frame.marks, list):
            frame.value.append(value)
            frame.marks.append(marks)
            frame.on_one_line &= marks == frame.line
        elif isinstance(frame.value, dict) and isinstance(frame.marks, dict) and frame.key is not None:
            if frame.key in frame.value:
                first = frame.marks[frame.key]
                first_line = first if isinstance(first, int) else first[0]
                self.problem(frame.key_line, f"is given twice, first in line {first_line}: keep one", self.here())
            else:
                frame.value[frame.key] = value
                frame.marks[frame.key] = marks = frame.key_line if isinstance(marks, int) else marks
                frame.on_one_line &= marks == frame.line
            frame.key = None

    def _decoration(self, event: Any, line: int) -> None:
        if event.anchor is not None:
            self.problem(line, "anchors (&name) are not supported: remove it", self.here())
        if event.tag is not None:
            self.problem(line, "tags (!name) are not supported: remove it", self.here())
