"""Every line of every test is held against the schema that ships."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA = json.loads(files("wgd.events").joinpath("schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)
KEYS = list(SCHEMA["properties"])
TIME = re.compile(SCHEMA["properties"]["ts"]["pattern"])
_valid: set[bytes] = set()
"""Lines without their time that were found valid: the validator is slow, and a burst's lines differ in nothing else."""


def checked(text: bytes) -> list[dict[str, Any]]:
    """Return the objects of some lines; each is whole, valid, and has its keys in the documented order."""
    assert not text or text.endswith(b"\n")
    found = []
    for line in text.split(b"\n")[:-1]:
        entry = json.loads(line)
        time, _, rest = line.partition(b",")
        assert time == b'{"ts":"%s"' % entry["ts"].encode()
        assert TIME.search(entry["ts"])
        if rest not in _valid:
            VALIDATOR.validate(entry)
            assert list(entry) == [key for key in KEYS if key in entry]
            _valid.add(rest)
        found.append(entry)
    return found


def check_logs(*folders: Path) -> None:
    """Check every event log in some folders, the rotated ones too; one may still be written to."""
    for path in {path for folder in folders for path in folder.glob("*.jsonl*")}:
        text = path.read_bytes()
        checked(text[: text.rfind(b"\n") + 1])
