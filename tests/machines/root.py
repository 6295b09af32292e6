"""Root file systems that machines start from: made by mmdebstrap, once a run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

# No test depends on what a crash of the host would leave of a scratch directory.
DPKG_OPTIONS = ("force-unsafe-io", "path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/locale/*")
ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")


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
    """Make a root with Debian's essential packages, apt and `packages` at `place`, which must not be there yet."""
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
        str(place),
    )
    # Every machine writes its own; the host's resolver is nothing to a machine that cannot reach it.
    for name in ("etc/machine-id", "etc/hostname", "etc/resolv.conf"):
        (place / name).unlink(missing_ok=True)


def run_in(root: Path, *command: str) -> None:
    """Run a command in a root that has not booted, with this host's network and as a process tree of its own."""
    resolver = root / "etc/resolv.conf"
    shutil.copyfile("/etc/resolv.conf", resolver)
    try:
        quietly(
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={root}/proc"),
            *("chroot", str(root), "env", "-i", *ENVIRONMENT, *command),
        )
    finally:
        resolver.unlink()
