"""Fixtures of the kernel lane."""

import contextlib

import pytest
from world import world


@pytest.fixture(scope="module")
def world_factory(tmp_path_factory):
    """A context manager that makes a world in a scratch directory of its own."""

    @contextlib.contextmanager
    def make():
        with world(tmp_path_factory.mktemp("world")) as made:
            yield made

    return make
