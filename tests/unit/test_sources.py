"""Every file of the repository: linters, types, and what must not be in it.

./tests/run installs the linters that Debian 12 lacks and names their folder in $WGD_LINT.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
MOST_LINES = 400

# Written so that these patterns do not match themselves.
MARKER = re.compile(r"\b(?:TO[D]O|FIX[M]E|X[X]X)\b")
# An absolute path: not the rest of one that begins with a variable, as in "$image"/root/x or {image}/root/x.
MACHINE_PATH = re.compile(r"""(?:^|[\s=:(\[,<`]|(?<![\w})])["'])/(?:work|root|home|Users)/\w""")
REGISTRY = re.compile(
    r"\b(?:pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|crates\.io|proxy\.golang\.org|(?:deb|snapshot)\.debian\.org)\b"
)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def repository_files() -> list[Path]:
    """Return every file that is in the repository or that `git add --all` would put there.

    The checkout may belong to somebody other than root, who runs the tests.
    """
    listed = run("git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    assert listed.returncode == 0, f"the sources are listed by git: {listed.stderr}"
    paths = [CHECKOUT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def first_line(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as lines:
        return lines.readline()


FILES = repository_files()
PYTHON = [str(path) for path in FILES if path.suffix == ".py" or re.match(r"#!.*python", first_line(path))]
SHELL = [str(path) for path in FILES if path.suffix == ".sh" or re.match(r"#!.*\b(?:ba|da)?sh\b", first_line(path))]


def places(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(CHECKOUT)}:{number}: {line.strip()}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]


def passes(*command: str) -> None:
    result = run(*command)
    assert result.returncode == 0, f"{Path(command[0]).name} says:\n{result.stdout}{result.stderr}"


@pytest.fixture
def linter_path() -> Path:
    """The folder with the linters' programs."""
    folder = os.environ.get("WGD_LINT")
    assert folder, (
        "no linters here ($WGD_LINT is not set): run the tests by `sudo ./tests/run unit`, which installs them"
    )
    return Path(folder)


def test_ruff_finds_nothing(linter_path: Path) -> None:
    passes(f"{linter_path}/ruff", "check", "--no-cache", "--output-format=concise", "--quiet", *PYTHON)


def test_every_file_is_formatted_as_ruff_does_it(linter_path: Path) -> None:
    passes(f"{linter_path}/ruff", "format", "--check", "--no-cache", *PYTHON)


def test_the_types_of_the_package_hold(linter_path: Path) -> None:
    passes(f"{linter_path}/mypy", f"--cache-dir={os.devnull}", "wgd")


def test_shellcheck_finds_nothing() -> None:
    passes("shellcheck", "--external-sources", *SHELL)


def test_the_files_are_found_that_the_linters_shall_see() -> None:
    assert str(CHECKOUT / "wgd/model.py") in PYTHON
    assert __file__ in PYTHON
    assert {str(CHECKOUT / "tests/run"), str(CHECKOUT / "packaging/install-needed.sh")} <= set(SHELL)


@pytest.mark.parametrize("pattern", [MARKER, MACHINE_PATH, REGISTRY], ids=["marker", "machine-path", "registry"])
def test_no_file_holds_a_left_over_marker_a_path_of_one_machine_or_a_registry(pattern: re.Pattern[str]) -> None:
    assert places(pattern) == []


@pytest.mark.parametrize(
    ("pattern", "parts"),
    [
        (MARKER, ("# TO", "DO: later")),
        (MACHINE_PATH, ("see /ho", "me/alice/notes")),
        (MACHINE_PATH, ('open("/wo', 'rk/main")')),
        (REGISTRY, ("https://py", "pi.org/simple")),
    ],
)
def test_the_patterns_find_what_they_are_for(pattern: re.Pattern[str], parts: tuple[str, str]) -> None:
    assert pattern.search("".join(parts))


def test_no_module_is_longer_than_one_can_read() -> None:
    modules = [path for path in FILES if path.suffix == ".py" and path.is_relative_to(CHECKOUT / "wgd")]
    lengths = {str(path.relative_to(CHECKOUT)): len(path.read_text().splitlines()) for path in modules}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}
