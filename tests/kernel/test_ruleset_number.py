import os
import subprocess

import pytest
from pyroute2 import netns

from wgd.kernel.nft_number import ruleset_number


@pytest.fixture
def namespace():
    name = f"wgdt{os.getpid()}number"
    subprocess.run(["ip", "netns", "add", name], check=True)
    netns.pushns(name)
    yield name
    netns.popns()
    subprocess.run(["ip", "netns", "delete", name], check=True)


def test_every_change_of_any_table_gives_the_ruleset_another_number(namespace):
    def nft(text):
        subprocess.run(["ip", "netns", "exec", namespace, "nft", text], check=True)

    numbers = [ruleset_number()]
    for text in ("add table inet one", "add table ip two", "add set ip two s { type mark; }", "flush ruleset"):
        nft(text)
        numbers.append(ruleset_number())
    assert len(set(numbers)) == len(numbers)
    nft("list ruleset")
    assert ruleset_number() == numbers[-1]
