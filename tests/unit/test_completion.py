"""The shells' completion says what the parsers say, and works."""

import runpy
import subprocess
from pathlib import Path

import pytest

COMPLETION = Path(__file__).parents[2] / "packaging/completion"


def generated() -> dict[Path, str]:
    return dict(runpy.run_path(str(COMPLETION / "generate.py"))["files"]())


def completed(*words: str, connections: Path) -> list[str]:
    """Return what bash offers at the end of a command line."""
    script = (COMPLETION / "bash" / words[0]).read_text().replace("/etc/wgd/client", str(connections))
    script += 'compopt() { :; }\nCOMP_WORDS=("$@")\nCOMP_CWORD=$(($# - 1))\n'
    script += f'_{words[0].replace("-", "_")}\nprintf "%s\\n" "${{COMPREPLY[@]}}"\n'
    done = subprocess.run(["bash", "-euc", script, "bash", *words], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


def test_every_file_is_what_the_parsers_make_of_it() -> None:
    made = generated()
    there = {path for folder in ("bash", "zsh", "fish") for path in (COMPLETION / folder).iterdir()}
    assert there == set(made)
    stale = [str(path) for path, text in made.items() if path.read_text() != text]
    assert stale == [], "run /usr/bin/python3 packaging/completion/generate.py"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["wgd-server", "re"], ["reload"]),
        (["wgd-server", "reload", "--c"], ["--confirm"]),
        (["wgd-server", "events", "--verdict", "d"], ["deny"]),
        (["wgd-server", "run", "--config", "/etc/hostn"], ["/etc/hostname"]),
        (["wgd-server", "reload", "--confirm", ""], []),
        (["wgd-server", "nonsense", "--c"], []),
        (["wgd-client", "run", "o"], ["office"]),
        (["wgd-client", "reload", ""], ["--help", "home", "office"]),
        (["wgd-protected-resource", "--l"], ["--listen"]),
    ],
)
def test_bash_offers_what_fits(words: list[str], offered: list[str], tmp_path: Path) -> None:
    for name in ("office.yaml", "home.yaml", "home.key"):
        (tmp_path / name).touch()
    assert completed(*words, connections=tmp_path) == offered
