"""Flag > environment > file > default; what is wrong is named; folders get the modes an unprivileged Postgres needs."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from pilotlight.settings import Paths, SettingsError, load


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PILOTLIGHT_") or name == "DATABASE_URL"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().router.port == 8443
    Path("pilotlight.toml").write_text("[router]\nport = 1\nworkers = 3\n")
    assert load().router.port == 1
    monkeypatch.setenv("PILOTLIGHT_ROUTER__PORT", "2")
    assert load().router.port == 2
    settings = load(router={"port": 3})
    assert (settings.router.port, settings.router.workers) == (3, 3)


def test_database_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://everybody")
    assert load().database_url == "postgresql://everybody"
    monkeypatch.setenv("PILOTLIGHT_DATABASE_URL", "postgresql://ours")
    assert load().database_url == "postgresql://ours"
    assert load(database_url="postgresql://flag").database_url == "postgresql://flag"
    assert load(database_url=None).database_url == "postgresql://ours"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PILOTLIGHT_ROUTER__PORT", "eighty", r"router\.port.*eighty"),
        ("PILOTLIGHT_ROUTER__PORT", "0", r"router\.port.*0"),
        ("PILOTLIGHT_ROUTER__PROT", "1", r"router\.prot"),
        ("PILOTLIGHT_ROUTER", "{", "router"),
        ("PILOTLIGHT_CONFIG", "nowhere.toml", "nowhere.toml"),
    ],
)
def test_what_is_malformed_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=says):
        load()


def test_a_malformed_file_is_named() -> None:
    Path("pilotlight.toml").write_text("port = = 1")
    with pytest.raises(SettingsError, match=r"pilotlight\.toml is not TOML"):
        load()


def test_an_unknown_section_is_named() -> None:
    Path("pilotlight.toml").write_text("[ruter]\nport = 1")
    with pytest.raises(SettingsError, match="ruter"):
        load()


def test_a_password_is_not_repeated() -> None:
    Path("pilotlight.toml").write_text('database_url = ["postgresql://a:secret@b/c"]')
    with pytest.raises(SettingsError, match="database_url") as caught:
        load()
    assert "secret" not in str(caught.value)


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert load(state_dir="~/state").paths.state == Path("/home/someone/state")
    assert load(state_dir="state").paths.state == Path.cwd() / "state"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_modes_of_new_folders(tmp_path: Path, umask: int) -> None:
    paths = Paths(tmp_path / "new" / "state")
    before = os.umask(umask)
    try:
        paths.make()
        paths.make()
    finally:
        os.umask(before)
    modes = {
        folder: stat.S_IMODE(folder.stat().st_mode)
        for folder in [paths.state.parent, *paths.state.rglob("*"), paths.state]
    }
    assert modes[paths.state] == modes[paths.run] == 0o711
    assert modes[paths.state.parent] == 0o755
    assert {mode for folder, mode in modes.items() if folder not in (paths.state, paths.run, paths.state.parent)} == {
        0o700
    }


def test_folders_that_were_there_keep_their_mode(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o750)
    before = {folder: folder.stat().st_mode for folder in (tmp_path, state)}
    Paths(state).make()
    assert {folder: folder.stat().st_mode for folder in before} == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"router": {"prot": 1}}, "router.prot: there is no such setting; router.port may be meant"),
        ({"port": 9443}, "port: there is no such setting; router.port may be meant"),
        ({"colours": {"url": "postgresql://u:secret@h/d"}}, "the sections are router, activator, "),
    ],
)
def test_a_setting_there_is_not_is_told_with_the_one_that_may_be_meant(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as told:
        load(**given)
    assert said in str(told.value) and "secret" not in str(told.value)
