"""A thin layer over voluptuous: sections whose problems are all found, and told in our own words with file and line."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import voluptuous

from wgd.config.shown import Path, dotted
from wgd.config.text import Document
from wgd.config.tree import Tree
from wgd.errors import Problem
from wgd.model import Place

T = TypeVar("T")
EMPTY_LIST = "is an empty list: give a value or remove the key"
Validator = Callable[[Tree], Any]


class RefusedError(voluptuous.Invalid):  # type: ignore[misc]  # voluptuous has no types on Debian 12
    """A value that cannot be taken; the text is a sentence for the operator. `path` is relative to the value."""

    def __init__(self, text: str, path: Path = ()) -> None:
        super().__init__(text, path=list(path))


class _UnknownKeyError(RefusedError):
    """A key that the section does not have."""

    def __init__(self) -> None:
        super().__init__("unknown key")


def _unknown(_value: Tree) -> None:
    raise _UnknownKeyError


class Section:
    """A mapping with these keys, each with the validator of its value, as voluptuous checks it.

    Calling it returns the values of the keys that are given, or raises voluptuous.MultipleInvalid with all that is
    wrong. An empty value (`logging:` with nothing below) is an empty mapping.
    """

    def __init__(self, fields: Mapping[str, Validator], required: Collection[str] = ()) -> None:
        self.fields = fields
        keys: dict[Any, Any] = {
            voluptuous.Required(name) if name in required else voluptuous.Optional(name): validator
            for name, validator in fields.items()
        }
        keys[voluptuous.Extra] = _unknown
        self._schema = voluptuous.Schema(keys)

    def __call__(self, value: Tree) -> dict[str, Any]:
        """Return the values of the keys that are given; raise voluptuous.MultipleInvalid."""
        values: dict[str, Any] = self._schema(mapping(value))
        return values

    def text_of(self, error: voluptuous.Invalid) -> str:
        """Return our words for an error of this section."""
        if isinstance(error, _UnknownKeyError):
            near = difflib.get_close_matches(str(error.path[-1]), self.fields, 1)
            return (
                f"unknown key; did you mean {near[0]}?" if near else f"unknown key; known are {', '.join(self.fields)}"
            )
        if isinstance(error, voluptuous.RequiredFieldInvalid):
            return "is required"
        return str(error.msg)


def mapping(value: Tree) -> dict[str, Tree]:
    """Return a mapping; an empty value counts as one."""
    if isinstance(value, dict):
        return value
    if value == "":
        return {}
    raise RefusedError("must be keys with values")


def sequence(value: Tree) -> list[Tree]:
    """Return a list; an empty value counts as one."""
    if isinstance(value, list):
        return value
    if value == "":
        return []
    raise RefusedError("must be a list")


def unsupported(_value: Tree) -> None:
    """Refuse a key that the schema knows and that does nothing yet."""
    raise RefusedError("is not supported yet: remove it")


def each(items: Iterable[Tree], validator: Callable[[Tree], T]) -> list[T]:
    """Return every item validated; raise voluptuous.MultipleInvalid with the problems of all items."""
    values: list[T] = []
    errors: list[voluptuous.Invalid] = []
    for index, item in enumerate(items):
        try:
            values.append(validator(item))
        except voluptuous.Invalid as error:
            error.prepend([index])
            errors += flat(error)
    if errors:
        raise voluptuous.MultipleInvalid(errors)
    return values


def flat(error: voluptuous.Invalid) -> list[voluptuous.Invalid]:
    """Return the single errors that an error is made of."""
    return list(error.errors) if isinstance(error, voluptuous.MultipleInvalid) else [error]


def path_of(error: voluptuous.Invalid) -> list[str | int]:
    """Return an error's path; voluptuous names a missing key by its marker."""
    return [step.schema if isinstance(step, voluptuous.Marker) else step for step in error.path]


def some(value: Tree) -> Tree:
    """Return one value or a list of at least one as it is; `Reader.items` validates what is in it."""
    if isinstance(value, list) and not value:
        raise RefusedError(EMPTY_LIST)
    return value


def one_or_more(validator: Callable[[Tree], T]) -> Callable[[Tree], list[T]]:
    """Return a validator of one value or a list of at least one."""

    def validate(value: Tree) -> list[T]:
        if not isinstance(value, list):
            return [validator(value)]
        if not value:
            raise RefusedError(EMPTY_LIST)
        return each(value, validator)

    return validate


class Reader:
    """Reads the parts of one document with their validators and gathers every problem on the way."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = list(document.problems)

    def problem(self, path: Path, text: str) -> None:
        """Note a problem at `path`."""
        self.problems.append(Problem(self.document.file, self.document.line(path), dotted(path), text))

    def place(self, path: Path) -> Place:
        """Return where `path` is written."""
        return Place(self.document.file, self.document.line(path), dotted(path))

    def section(self, section: Section, value: Tree, path: Path) -> dict[str, Any]:
        """Return the values of the keys that are right; what is wrong with the others is noted."""
        try:
            return section(value)
        except voluptuous.Invalid as invalid:
            errors = flat(invalid)
        for error in errors:
            self.problem([*path, *path_of(error)], section.text_of(error))
        if not isinstance(value, dict):
            return {}
        wrong = {path_of(error)[0] for error in errors}
        return {key: section.fields[key](item) for key, item in value.items() if key not in wrong}

    def value(self, validator: Callable[[Tree], T], value: Tree, path: Path) -> T | None:
        """Return the value, or None when it is wrong and that has been noted."""
        try:
            return validator(value)
        except voluptuous.Invalid as invalid:
            for error in flat(invalid):
                self.problem([*path, *path_of(error)], str(error.msg))
        return None

    def items(self, validator: Callable[[Tree], T], value: Tree, path: Path) -> list[tuple[T, Place]]:
        """Return what is right in one value or a list, each with its place; what is wrong is noted."""
        paths = [(*path, index) for index in range(len(value))] if isinstance(value, list) else [path]
        listed = value if isinstance(value, list) else [value]
        found = [(self.value(validator, item, where), where) for item, where in zip(listed, paths, strict=True)]
        return [(item, self.place(where)) for item, where in found if item is not None]
