"""The commands as an operator runs them: exit codes, and what is said where."""

from pathlib import Path

import pytest
from command import run

KEY = "aGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gMTI="
SERVER = """\
interface:
  name: wgd0
  address: 10.80.0.1/24
  listen_port: 51820
  private_key_file: FOLDER/server.key
authz_mode: enforce
peers:
  - {name: alice, public_key: "YWxpY2UuLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4=", allowed_ips: 10.80.0.2/32}
policy:
  rules:
    - {name: web, client_id: alice, allow: [{to: 10.20.0.10, proto: tcp, ports: 443}]}
  tests:
    - {client_id: alice, to: 10.20.0.10, proto: tcp, port: 443, expect: allow}
"""
CLIENT = """\
interface:
  address: 10.80.0.2/32
  private_key_file: FOLDER/office.key
server:
  public_key: "YWxpY2UuLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4="
  endpoint: gw.example.org:51820
  allowed_ips: 10.20.0.0/24
"""
TEN_MISTAKES = """\
interface:
  name: a-name-that-is-too-long
  address: 10.80.0.0/24
  listen_port: 65536
authz_mode: strict
loging_enabled: true
peers:
  - {name: alice, public_key: short, allowed_ips: 10.80.0.2/24}
  - {name: bob, public_key: "YWxpY2UuLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4uLi4="}
policy:
  rules:
    - client_id: carol
      allow:
        - {to: 10.20.0.10, proto: tcp, ports: 90-80}
"""
MISTAKEN = {
    (2, "interface.name"),
    (3, "interface.address"),
    (4, "interface.listen_port"),
    (5, "authz_mode"),
    (6, "loging_enabled"),
    (8, "peers[0].public_key"),
    (8, "peers[0].allowed_ips"),
    (9, "peers[1].allowed_ips"),
    (12, "policy.rules[0].client_id"),
    (14, "policy.rules[0].allow[0].ports"),
}


def written(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text.replace("FOLDER", str(folder)))
    return str(path)


class TestCheck:
    @pytest.mark.parametrize(
        ("words", "text"), [(["server", "check"], SERVER), (["client", "check", "office"], CLIENT)]
    )
    def test_a_good_config_is_0_and_silence(self, tmp_path: Path, words: list[str], text: str) -> None:
        done = run(*words, "--config", written(tmp_path, text))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_a_rule_that_has_ended_is_0_and_a_warning(self, tmp_path: Path) -> None:
        """Else a gateway could not start again after the end of any of its rules."""
        ended = SERVER.replace("alice, allow: [", "alice, until: 2020-01-01T00:00:00Z, allow: [")
        path = written(tmp_path, ended)
        done = run("server", "check", "--config", path)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == f"{path}:11: policy.rules[0].until: is in the past: the rule grants nothing\n"

    @pytest.mark.parametrize("words", [["server", "check"], ["client", "check", "office"]])
    def test_a_file_that_cannot_be_read_is_4_and_never_no(self, words: list[str]) -> None:
        done = run(*words, "--config", "/nowhere/config.yaml")
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr == "/nowhere/config.yaml: cannot be read: No such file or directory\n"

    @pytest.mark.parametrize("path", ["/", ".", ""])
    def test_a_folder_is_4_too(self, path: str) -> None:
        done = run("server", "check", "--config", path)
        assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)

    def test_ten_mistakes_are_1_and_ten_lines_with_file_line_and_key(self, tmp_path: Path) -> None:
        path = written(tmp_path, TEN_MISTAKES)
        done = run("server", "check", "--config", path)
        found = set()
        for line in done.stdout.splitlines():
            file, number, key, _ = line.split(":", 3)
            assert file == path
            found.add((int(number), key.strip()))
        assert (done.returncode, done.stderr) == (1, "")
        assert found == MISTAKEN
        assert len(done.stdout.splitlines()) == 10

    def test_a_failed_policy_test_is_1_and_named(self, tmp_path: Path) -> None:
        path = written(tmp_path, SERVER.replace("expect: allow", "expect: deny"))
        done = run("server", "check", "--config", path)
        assert done.returncode == 1
        assert done.stdout == f"{path}:13: policy.tests[0]: expects deny, but alice may: rule web[0]\n"

    def test_a_mistake_of_a_drop_in_is_told_with_its_own_file(self, tmp_path: Path) -> None:
        path = written(tmp_path, SERVER)
        (tmp_path / "config.d").mkdir()
        (tmp_path / "config.d/bob.yaml").write_text("peers:\n  - {name: bob}\n")
        done = run("server", "check", "--config", path)
        assert done.returncode == 1
        assert all(line.startswith(f"{tmp_path}/config.d/bob.yaml:2: ") for line in done.stdout.splitlines())

    def test_the_keys_need_not_be_readable(self, tmp_path: Path) -> None:
        assert not (tmp_path / "server.key").exists()
        assert run("server", "check", "--config", written(tmp_path, SERVER)).returncode == 0


class TestRunBeforeAnythingIsTouched:
    @pytest.mark.parametrize("words", [["server", "run"], ["client", "run", "office"]])
    def test_a_config_that_cannot_be_read_is_78(self, words: list[str]) -> None:
        done = run(*words, "--config", "/nowhere/config.yaml")
        assert done.returncode == 78
        assert "/nowhere/config.yaml: cannot be read: No such file or directory\n" in done.stderr

    def test_a_bad_config_is_78_with_the_lines_that_check_gives(self, tmp_path: Path) -> None:
        path = written(tmp_path, TEN_MISTAKES)
        done = run("server", "run", "--config", path)
        assert (done.returncode, done.stdout) == (78, "")
        assert done.stderr == run("server", "check", "--config", path).stdout

    def test_a_clients_bad_config_is_78(self, tmp_path: Path) -> None:
        done = run("client", "run", "office", "--config", written(tmp_path, CLIENT.replace(":51820", "")))
        assert done.returncode == 78
        assert ":6: server.endpoint: must be HOST:PORT" in done.stderr

    @pytest.mark.parametrize(
        ("words", "text", "name"),
        [(["server", "run"], SERVER, "server.key"), (["client", "run", "office"], CLIENT, "office.key")],
        ids=["server", "client"],
    )
    def test_a_key_file_that_is_missing_exposed_or_no_key_is_78_and_never_shown(
        self, tmp_path: Path, words: list[str], text: str, name: str
    ) -> None:
        path, key = written(tmp_path, text), tmp_path / name
        missing = run(*words, "--config", path)
        key.write_text(KEY)
        key.chmod(0o644)
        exposed = run(*words, "--config", path)
        key.chmod(0o600)
        key.write_text(KEY[1:])
        broken = run(*words, "--config", path)
        assert [done.returncode for done in (missing, exposed, broken)] == [78, 78, 78]
        assert "No such file or directory" in missing.stderr
        assert "can be read or written by everybody" in exposed.stderr
        assert "holds no WireGuard key" in broken.stderr
        assert not [done for done in (exposed, broken) if KEY[1:] in done.stderr + done.stdout]


class TestUsage:
    @pytest.mark.parametrize(
        "words",
        [
            ["server"],
            ["server", "chekc"],
            ["server", "check", "--confg"],
            ["server", "check", "--config"],
            ["client"],
            ["client", "check"],
            ["client", "check", "../server"],
            ["client", "check", ".hidden"],
            ["client", "check", "x" * 64],
            ["client", "check", ""],
        ],
        ids=" ".join,
    )
    def test_wrong_usage_is_2_with_a_word_on_stderr(self, words: list[str]) -> None:
        done = run(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"wgd-{words[0]}" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("program", ["server", "client"])
    def test_version_and_help_are_0(self, program: str) -> None:
        version, help_text = run(program, "--version"), run(program, "--help")
        assert (version.returncode, help_text.returncode) == (0, 0)
        assert version.stdout.startswith(f"wgd-{program} ")
        assert "example:" in help_text.stdout

    @pytest.mark.parametrize(
        "words",
        [
            *(
                ["server", command]
                for command in ("run", "check", "events", "status", "plan", "reload", "confirm", "explain")
            ),
            *(["client", command] for command in ("run", "check")),
        ],
        ids=" ".join,
    )
    def test_every_command_has_help_with_an_example(self, words: list[str]) -> None:
        done = run(*words, "--help")
        assert done.returncode == 0
        assert f"example:\n  wgd-{words[0]} {words[1]}" in done.stdout
