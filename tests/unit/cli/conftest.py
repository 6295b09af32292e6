"""A daemon that answers what a test wants."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from answering_daemon import Daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "control")
    yield made
    made.close()
