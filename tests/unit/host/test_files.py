import os
from itertools import product
from pathlib import Path

import pytest

from wgd.errors import HostError
from wgd.host import files
from wgd.host.files import private_key_path, read_key, read_server_sources, read_source

KEY = "aGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gMTI="
RAW = b"hello hello hello hello hello 12"
ROOT, OURS, OTHERS = 0, 1000, 1001


def key_file(folder: Path, content: str = KEY, mode: int = 0o600) -> Path:
    path = folder / "private.key"
    path.touch(mode=0o600)
    path.write_text(content)
    path.chmod(mode)
    return path


class TestConfigFiles:
    def test_a_file_is_read_under_its_name(self, tmp_path: Path) -> None:
        path = tmp_path / "server.yaml"
        path.write_bytes(b"a: 1\n")
        source = read_source(path)
        assert (source.path, source.name, source.text) == (str(path), "server.yaml", b"a: 1\n")

    def test_drop_ins_follow_the_main_file_in_the_order_of_their_names(self, tmp_path: Path) -> None:
        folder = tmp_path / "server.d"
        folder.mkdir()
        for name in ("20-b.yaml", "10-a.yaml", "README", "30-c.yaml~", ".hidden.yaml", "40-d.yml"):
            (folder / name).touch()
        (tmp_path / "server.yaml").touch()
        found = read_server_sources(tmp_path / "server.yaml")
        assert [source.name for source in found] == ["server.yaml", "server.d/10-a.yaml", "server.d/20-b.yaml"]

    def test_the_folder_of_drop_ins_is_named_after_the_main_file(self, tmp_path: Path) -> None:
        (tmp_path / "server.d").mkdir()
        (tmp_path / "server.d/a.yaml").touch()
        (tmp_path / "other.yaml").touch()
        assert [source.name for source in read_server_sources(tmp_path / "other.yaml")] == ["other.yaml"]

    def test_a_missing_file_is_named_with_the_systems_reason(self, tmp_path: Path) -> None:
        with pytest.raises(HostError, match=r"absent\.yaml: cannot be read: No such file or directory"):
            read_server_sources(tmp_path / "absent.yaml")

    def test_a_drop_in_that_cannot_be_read_is_an_error_and_not_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "server.yaml").touch()
        (tmp_path / "server.d").mkdir()
        (tmp_path / "server.d/a.yaml").symlink_to("nowhere")
        with pytest.raises(HostError, match=r"server\.d/a\.yaml: cannot be read"):
            read_server_sources(tmp_path / "server.yaml")

    def test_a_drop_in_folder_that_is_none_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "server.yaml").touch()
        (tmp_path / "server.d").touch()
        with pytest.raises(HostError, match=r"server\.d: cannot be read: Not a directory"):
            read_server_sources(tmp_path / "server.yaml")

    @pytest.mark.parametrize("path", ["/", "."])
    def test_a_folder_without_a_name_is_refused_in_words(self, path: str) -> None:
        with pytest.raises(HostError, match="is a folder"):
            read_server_sources(Path(path))

    def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(files, "MAX_CONFIG_BYTES", 1 << 20)
        path = tmp_path / "server.yaml"
        path.write_bytes(bytes(1 << 20))
        assert len(read_source(path).text) == 1 << 20
        path.write_bytes(bytes((1 << 20) + 1))
        with pytest.raises(HostError, match="is larger than 1 MiB"):
            read_source(path)

    def test_a_file_without_an_end_is_refused_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "MAX_CONFIG_BYTES", 1 << 20)
        with pytest.raises(HostError, match="is larger than 1 MiB"):
            read_source(Path("/dev/zero"))


class TestKeyFiles:
    def test_a_key_is_read_with_or_without_a_line_end(self, tmp_path: Path) -> None:
        assert read_key(key_file(tmp_path)).raw == RAW
        assert read_key(key_file(tmp_path, f"{KEY}\n")).raw == RAW

    @pytest.mark.parametrize("mode", [0o400, 0o600, 0o640, 0o440])
    def test_a_key_of_the_daemons_own_group_is_accepted(self, tmp_path: Path, mode: int) -> None:
        path = key_file(tmp_path, mode=mode)
        os.chown(path, -1, os.getegid())
        assert read_key(path).raw == RAW

    @pytest.mark.parametrize("bit", [0o001, 0o002, 0o004])
    def test_a_key_that_everybody_can_touch_is_refused(self, tmp_path: Path, bit: int) -> None:
        with pytest.raises(HostError, match="by everybody; chmod 0640"):
            read_key(key_file(tmp_path, mode=0o600 | bit))

    @pytest.mark.parametrize("content", ["", "not a key", KEY[:-4], KEY + KEY, f"{KEY}x", "é" * 44, "A" * 5000])
    def test_a_file_without_a_key_is_refused_and_its_content_is_not_shown(self, tmp_path: Path, content: str) -> None:
        with pytest.raises(HostError, match=r"holds no WireGuard key: .*; make one with wg genkey") as raised:
            read_key(key_file(tmp_path, content))
        assert not content or content not in str(raised.value)
        assert raised.value.__cause__ is None

    def test_a_missing_key_is_named_with_the_systems_reason(self, tmp_path: Path) -> None:
        with pytest.raises(HostError, match=r"absent\.key: key file cannot be read: No such file or directory"):
            read_key(tmp_path / "absent.key")

    def test_a_folder_is_no_key(self, tmp_path: Path) -> None:
        with pytest.raises(HostError, match="Is a directory"):
            read_key(tmp_path)

    def test_a_pipe_that_nobody_writes_to_is_refused_and_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe", 0o600)
        with pytest.raises(HostError, match="is not a regular file"):
            read_key(tmp_path / "pipe")

    def test_a_device_is_no_key(self) -> None:
        with pytest.raises(HostError, match="is not a regular file"):
            read_key(Path("/dev/null"))

    @pytest.mark.parametrize(
        ("owner", "group", "mode"), product((ROOT, OURS, OTHERS), (ROOT, OURS, OTHERS), (0o600, 0o640, 0o660, 0o604))
    )
    def test_who_may_own_and_read_a_key(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, group: int, mode: int
    ) -> None:
        path = key_file(tmp_path, mode=mode)
        status = path.stat()
        monkeypatch.setattr(os, "geteuid", lambda: OURS)
        monkeypatch.setattr(os, "getegid", lambda: OURS)
        monkeypatch.setattr(os, "fstat", lambda _: os.stat_result((*status[:4], owner, group, *status[6:])))
        open_to_others = mode & 0o007 or (mode & 0o070 and group == OTHERS)
        if owner == OTHERS or open_to_others:
            with pytest.raises(HostError):
                read_key(path)
        else:
            assert read_key(path).raw == RAW


class TestWhereThePrivateKeyIs:
    def test_the_configured_file_counts_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
        assert private_key_path("/etc/wgd/server.key") == Path("/etc/wgd/server.key")

    def test_without_one_it_is_the_units_credential(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
        assert private_key_path(None) == Path("/run/credentials/x/private.key")

    def test_without_either_the_operator_is_told_both_ways(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        with pytest.raises(HostError, match=r"interface\.private_key_file: .*LoadCredential=private\.key"):
            private_key_path(None)
