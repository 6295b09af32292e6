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


@pytest.fixture(scope="module")
def serving(world_factory):
    """A context manager that makes a world with its gateway serving a policy, and both clients connected to it."""

    @contextlib.contextmanager
    def make(policy):
        with world_factory() as made:
            made.configure(policy)
            made.daemon = made.serve()
            made.connect(made.alice)
            made.connect(made.bob)
            yield made

    return make
