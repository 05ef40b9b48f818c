"""Which file of settings counts: the named one, or ours in the working folder; never a stranger's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pilotlight.cli.explain import explain_settings
from pilotlight.paths import LONGEST_STATE, SHORT_STATE, Paths, folder_of, private_folder
from pilotlight.settings import SettingsError, load
from pilotlight.settings_file import NO_FILE, _stranger, config_file


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PILOTLIGHT_") or name in ("DATABASE_URL", "SUDO_UID")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_one_that_everybody_may_write_is_not_read_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    file = Path("pilotlight.toml")
    file.write_text("[router]\nport = 1\n")
    file.chmod(0o666)
    assert load().router.port == 8443
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "everybody may write it" in said and "PILOTLIGHT_CONFIG=./pilotlight.toml" in said
    file.chmod(0o644)
    assert load().router.port == 1
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("owner", "mode", "we", "sudo", "strange"),
    [
        (1000, 0o644, 1000, "", False),
        (0, 0o644, 1000, "", False),
        (1001, 0o644, 1000, "", True),
        (1001, 0o644, 0, "", True),
        (1001, 0o644, 0, "1001", False),
        (1001, 0o644, 1000, "1001", True),
        (1000, 0o664, 1000, "", False),
        (1000, 0o666, 1000, "", True),
    ],
)
def test_who_may_write_it(tmp_path: Path, owner: int, mode: int, we: int, sudo: str, strange: bool) -> None:
    found = os.stat_result((0o100000 | mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))
    assert bool(_stranger(found, we, sudo)) is strange


def test_a_named_one_is_trusted_also_in_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[router]\ndomain = "höhle.example"\n', encoding="utf-8")
    (tmp_path / "mine.toml").chmod(0o666)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PILOTLIGHT_CONFIG", "~/mine.toml")
    assert load().router.domain == "höhle.example"


def test_a_process_that_is_told_everything_reads_none(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pilotlight.toml").write_text("no TOML")
    monkeypatch.setenv("PILOTLIGHT_CONFIG", NO_FILE)
    assert config_file(os.environ) is None
    assert load().router.port == 8443


def test_what_is_no_file_is_none() -> None:
    Path("pilotlight.toml").mkdir()
    assert load().router.port == 8443


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "relative"}, {"XDG_DATA_HOME": "not/absolute"}])
def test_a_user_without_a_home_is_told_what_to_give(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"HOME is not set.*--state"):
        folder_of(environ, 4_242_424, root=Path("/var/lib"), variable="XDG_DATA_HOME", below=".local/share")


def test_where_a_user_keeps_things() -> None:
    def found(environ: dict[str, str], uid: int) -> str:
        return str(folder_of(environ, uid, root=Path("/var/lib"), variable="XDG_DATA_HOME", below=".local/share"))

    assert found({"HOME": "/home/me"}, 4_242_424) == "/home/me/.local/share/pilotlight"
    assert found({"HOME": "/home/me", "XDG_DATA_HOME": "/data"}, 4_242_424) == "/data/pilotlight"
    assert found({"HOME": "/home/me"}, 0) == "/var/lib/pilotlight"


def test_a_folder_that_others_may_fill_is_not_trusted(tmp_path: Path) -> None:
    assert private_folder(tmp_path / "a" / "mine").stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "mine")
    for name in ("open", "link"):
        with pytest.raises(SettingsError, match="not ours alone"):
            private_folder(tmp_path / name)


def test_folders_are_told_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert load(snapshots={"origin": "~/store"}).snapshots.origin == "/home/me/store"
    assert load(snapshots={"origin": "store"}).snapshots.origin == str(tmp_path / "store")
    assert load(snapshots={"origin": "s3://bucket/~x"}).snapshots.origin == "s3://bucket/~x"
    assert load(state_dir="~/state").paths.state == Path("/home/me/state")
    with pytest.raises(SettingsError, match=r"~nobody-of-that-name.*whole path"):
        load(state_dir="~nobody-of-that-name/state")


def test_a_long_path_has_its_sockets_in_a_short_folder_of_the_same_name_for_all() -> None:
    long = Path("/home/students/2026/firstname.lastname-of-some-length/.local/share/pilotlight")
    assert SHORT_STATE < len(str(long)) <= LONGEST_STATE
    paths, again = Paths(long), Paths(long)
    assert paths.sockets == again.sockets != Paths(long / "x").sockets
    assert len(str(paths.replicas / "r01234567" / "01234567-89ab-cdef-0123-456789abcdef")) <= 107
    assert not paths.too_long and paths.run == long / "run"
    assert Paths(Path("/var/lib/pilotlight")).sockets == Path("/var/lib/pilotlight/run")


def test_a_file_of_others_is_told_of_once_where_each_setting_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    Path("pilotlight.toml").write_text("[router]\nport = 1\n")
    Path("pilotlight.toml").chmod(0o666)
    explain_settings(load(), set(), as_json=True)
    assert capsys.readouterr().err.count("is not read") == 1
