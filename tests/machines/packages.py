"""The packages under test: built by packaging/build, once a run for both lanes, and a root that can install them."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.machines.root import make_root, quietly, run_in

CHECKOUT = Path(__file__).parents[2]
REPOSITORY = "/srv/wgd"
PACKAGES = ("wgd-server", "wgd-client", "wgd-protected-resource")


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """Have one process at a time in the block, of those that name the same place."""
    with place.with_name(f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made_once(place: Path, make: Callable[[Path], None]) -> Path:
    """Return `place`, made by the first who asks: under another name until it is whole."""
    with alone(place):
        if not place.exists():
            making = place.with_name(f"{place.name}.making")
            try:
                make(making)
                making.rename(place)
            finally:
                shutil.rmtree(making, ignore_errors=True)
    return place


def repository(cache: Path, suite: str) -> Path:
    """Return the signed apt repository of a suite, for machines that have it at REPOSITORY."""

    def build(making: Path) -> None:
        quietly(
            *(str(CHECKOUT / "packaging/build"), "--suite", suite, "--output", str(making)),
            *("--uri", f"file:{REPOSITORY}", "--cache", str(cache / f"build-{suite}")),
        )

    return made_once(cache / f"wgd-{suite}", build)


def bare_root(cache: Path, suite: str, packages: tuple[str, ...], wanted: tuple[str, ...]) -> Path:
    """Return a root with `packages`, and with what apt needs to install ours and `wanted` by name.

    Nothing of that is installed: what a package forgot to depend on is missing on a machine without a way out.
    """

    def make(making: Path) -> None:
        make_root(making, suite, packages)
        shutil.copytree(repository(cache, suite), making / REPOSITORY.lstrip("/"))
        source = making / "etc/apt/sources.list.d/wgd.sources"
        shutil.copyfile(making / REPOSITORY.lstrip("/") / f"{suite}.sources", source)
        run_in(making, "apt-get", "-qq", "update")
        run_in(making, "apt-get", "-qq", "install", "--download-only", "--yes", *PACKAGES, *wanted)
        source.unlink()
        # The other sources are out of reach of a machine without a way out, and asking again does not change that.
        (making / "etc/apt/apt.conf.d/80retries").write_text('Acquire::Retries "0";\n')

    return made_once(cache / f"bare-{suite}", make)
