"""What the packages are made of."""

import re
from pathlib import Path

from wgd import __version__

PACKAGING = Path(__file__).parents[2] / "packaging"


def test_the_packages_have_the_version_of_the_program() -> None:
    first_line = (PACKAGING / "debian/changelog").read_text().splitlines()[0]
    assert re.match(r"wgd \((.*)\) ", first_line)[1] == __version__
