"""Every line of every test is held against the schema that ships."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA = json.loads(files("wgd.events").joinpath("schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)
KEYS = list(SCHEMA["properties"])


def checked(text: bytes) -> list[dict[str, Any]]:
    """Return the objects of some lines; each is whole, valid, and has its keys in the documented order."""
    assert not text or text.endswith(b"\n")
    found = []
    for line in text.splitlines(keepends=True):
        assert line.endswith(b"\n")
        entry = json.loads(line)
        VALIDATOR.validate(entry)
        assert list(entry) == [key for key in KEYS if key in entry]
        found.append(entry)
    return found
