import os
import subprocess
from contextlib import closing

import pytest
from pyroute2 import netns

from wgd.kernel.nft import Nft


@pytest.fixture
def namespace():
    name = f"wgdt{os.getpid()}number"
    subprocess.run(["ip", "netns", "add", name], check=True)
    netns.pushns(name)
    yield name
    netns.popns()
    subprocess.run(["ip", "netns", "delete", name], check=True)


def test_every_change_of_any_table_gives_the_ruleset_the_next_number(namespace):
    def nft(text):
        subprocess.run(["ip", "netns", "exec", namespace, "nft", text], check=True)

    with closing(Nft()) as door:
        first = door.number()
        for changes, text in enumerate(
            ("add table inet one", "add table ip two", "add set ip two s { type mark; }", "flush ruleset"), 1
        ):
            nft(text)
            assert door.number() == first + changes
        nft("list ruleset")
        assert door.number() == first + changes
