"""Fixtures of the kernel lane."""

import contextlib
import os
import subprocess

import pytest
from pyroute2 import netns
from world import world

from wgd.kernel.nft import Nft


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


@pytest.fixture(scope="module")
def namespace():
    """The nftables of one namespace for the whole module."""
    name = f"wgdt{os.getpid()}nft"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        netns.pushns(name)
        try:
            with contextlib.closing(Nft()) as door:
                yield door
        finally:
            netns.popns()
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture
def nft(namespace):
    """The same, without our table."""
    namespace.delete()
    return namespace
