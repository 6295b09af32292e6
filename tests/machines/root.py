"""Root file systems that machines start from: made by mmdebstrap, once a run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

# No test depends on what a crash of the host would leave of a scratch directory.
DPKG_OPTIONS = ("force-unsafe-io", "path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/locale/*")


class MakingError(Exception):
    """A root, an image or a package could not be made; holds the last of what was printed."""


def quietly(*command: str, **options: object) -> None:
    """Run a command whose output matters only when it fails."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options
    )
    if done.returncode != 0:
        raise MakingError(f"{command[0]} failed:\n{done.stdout.decode(errors='replace')[-6000:]}")


def make_root(place: Path, suite: str, packages: tuple[str, ...], *options: str) -> None:
    """Make a root with Debian's essential packages, apt and `packages` at `place`, which must not be there yet.

    It appears under its name when it is whole.
    """
    making = place.with_name(f"{place.name}.making")
    try:
        quietly(
            "mmdebstrap",
            "--quiet",
            "--mode=root",
            "--variant=apt",
            f"--include={','.join(packages)}",
            "--aptopt=APT::Install-Recommends false",
            *(f"--dpkgopt={option}" for option in DPKG_OPTIONS),
            *options,
            suite,
            str(making),
        )
        # Every machine writes its own; the host's resolver is nothing to a machine that cannot reach it.
        for name in ("etc/machine-id", "etc/hostname", "etc/resolv.conf"):
            (making / name).unlink(missing_ok=True)
        making.rename(place)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def fetch(root: Path, packages: tuple[str, ...]) -> None:
    """Put what apt needs to install `packages` into the root's apt cache, and install nothing.

    A machine without a way out then installs by name as any other, and what a package forgot to depend on is missing.
    """
    resolver = root / "etc/resolv.conf"
    shutil.copyfile("/etc/resolv.conf", resolver)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (("update",), ("install", "--download-only", "--yes", *packages)):
            quietly("chroot", str(root), "apt-get", "-qq", *command, env=environment)
    finally:
        resolver.unlink()
