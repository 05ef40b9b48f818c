"""Backups: what is in one and in which order, and what a file may not do that says it is one. The database's part:
tests/integration/test_database.py.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pilotlight import keys
from pilotlight.cli.backup import backup, restore
from pilotlight.cli.backup.backup import MANIFEST
from pilotlight.database.migrate import newest
from pilotlight.settings import Settings, load
from snapshots.manifest import folder_name
from snapshots.pins import pin
from snapshots.store.disk import remove_folder
from tests.fakes_cli import prepared

DIGEST = "sha256:" + "7" * 64
OURS = {"format": 1, "schema": newest(), "made_at": "2026-11-27T04:51:31+00:00", "database": False, "models": True}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: sockets lie below a state folder."""
    made = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
    yield made
    remove_folder(made)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An installation whose database is the operator's own."""
    found = prepared(load(state_dir=tmp_path / "state", database_url="postgresql://h/db"))
    paths = found.paths
    keys.ensure_pepper(paths)
    for file in (
        paths.spool / "w1.0.jsonl",
        paths.journal / "r1.jsonl",
        paths.spool / ".half",
        paths.snapshots / ".new-x" / "half",
    ):
        file.parent.mkdir(exist_ok=True)
        file.write_text(file.name)
    model = paths.snapshots / folder_name(DIGEST)
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    (paths.snapshots / "lineage").mkdir(exist_ok=True)
    (paths.snapshots / "lineage" / f"{folder_name(DIGEST)}.json").write_text("{}")
    pin(paths.staged, DIGEST)
    return found


def into(settings: Settings, folder: str = "new") -> Settings:
    return settings.model_copy(update={"state_dir": settings.paths.state.parent / folder})


def test_what_is_backed_up_is_there_after_a_restore(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "b.tar"
    backup.back_up(settings, file, models=True, as_json=False)
    assert "back it up with pg_dump" in capsys.readouterr().err and file.stat().st_mode & 0o777 == 0o600
    restore.restore(into(settings), file, as_json=False)
    old, new = settings.paths, into(settings).paths
    for path in (
        "secrets/key.pepper",
        "secrets/admin.key",
        "secrets/ca.key",
        "ca.pem",
        "spool/w1.0.jsonl",
        "journal/r1.jsonl",
    ):
        assert (new.state / path).read_bytes() == (old.state / path).read_bytes(), path
    model = new.snapshots / folder_name(DIGEST)
    assert (model / "model.safetensors").read_bytes() == b"weights" and model.stat().st_mode & 0o777 == 0o555
    assert (new.snapshots / "lineage" / f"{folder_name(DIGEST)}.json").exists() and list(new.staged.glob("*.pin"))
    assert not (new.spool / ".half").exists() and not (new.snapshots / ".new-x").exists()
    assert new.secrets.stat().st_mode & 0o777 == 0o700 and new.key_pepper.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir() if "new" in entry.name] == ["new"]


def test_usage_on_its_way_is_taken_before_the_database_and_models_only_where_asked_for(settings: Settings) -> None:
    names = list(backup._files(settings.paths, models=False))
    assert not any(name.startswith("snapshots") for name in names)
    assert names.index("spool/w1.0.jsonl") < len(names) and "secrets/database.password" not in names


def test_a_backup_that_cannot_be_written_leaves_the_one_before(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "b.tar"
    file.write_text("the one before")
    monkeypatch.setattr(backup, "_add_file", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(typer.Exit):
        backup.back_up(settings, file, models=False, as_json=False)
    assert file.read_text() == "the one before" and not list(tmp_path.glob(".b.tar*"))


def test_where_nothing_has_run_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    with pytest.raises(typer.Exit) as ended:
        backup.back_up(load(state_dir=tmp_path / "state"), tmp_path / "b.tar", models=False, as_json=False)
    assert ended.value.exit_code == 3 and not (tmp_path / "state").exists()


def archive(file: Path, *entries: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(file, "w") as made:
        for entry in entries:
            info = entry if isinstance(entry, tarfile.TarInfo) else tarfile.TarInfo(entry[0])
            content = b"" if isinstance(entry, tarfile.TarInfo) else entry[1]
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return file


def manifest(**changed: Any) -> tuple[str, bytes]:
    return "manifest.json", json.dumps(OURS | changed).encode()


def special(name: str, kind: bytes, target: str = "/etc/passwd") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([("x", b"")], "does not begin with manifest.json"),
        ([("manifest.json", b"{}")], "is damaged"),
        ([("manifest.json", b"[1]")], "is damaged"),
        ([("manifest.json", b"\xff")], "is damaged"),
        ([manifest(format=2)], "a later release made this backup"),
        ([manifest(schema="9999")], "a later release made this backup"),
        ([manifest(), ("../outside", b"x")], "is not a file that a backup has"),
        ([manifest(), ("/etc/cron.d/x", b"x")], "is not a file that a backup has"),
        ([manifest(), ("secrets/../../x", b"x")], "is not a file that a backup has"),
        ([manifest(), ("spool/..", b"x")], "is not a file that a backup has"),
        ([manifest(), (f"snapshots/sha256-{'7' * 64}/../../x", b"x")], "is not a file that a backup has"),
        ([manifest(), ("postgres/data/pg_hba.conf", b"x")], "is not a file that a backup has"),
        ([manifest(), special("ca.pem", tarfile.SYMTYPE)], "is not a file that a backup has"),
        ([manifest(), special("spool/x", tarfile.LNKTYPE)], "is not a file that a backup has"),
        ([manifest(), special("spool", tarfile.SYMTYPE)], "is not a file that a backup has"),
        ([manifest(), special("spool/x", tarfile.CHRTYPE)], "is not a file that a backup has"),
        ([manifest(), ("ca.pem", b"a"), ("ca.pem", b"b")], "cannot restore"),
        ([manifest(database=True)], "database.dump is missing"),
    ],
)
def test_what_is_no_backup_of_ours_leaves_nothing(
    entries: list[Any], said: str, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = sorted(tmp_path.iterdir())
    file = archive(tmp_path / "evil.tar", *entries)
    with pytest.raises(typer.Exit):
        restore.restore(into(settings), file, as_json=False)
    assert said in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == sorted([*there, file])


@pytest.mark.parametrize("said", ['{"format": Infinity}', "[" * 60000, '{"format": 1, "schema": null}'])
def test_a_manifest_that_is_none_is_told(said: str, settings: Settings, tmp_path: Path) -> None:
    file = archive(tmp_path / "odd.tar", (MANIFEST, said.encode()))
    with pytest.raises(typer.Exit):
        restore.restore(into(settings), file, as_json=False)
    assert not into(settings).paths.state.exists()


def test_a_file_with_holes_is_not_filled_in(settings: Settings, tmp_path: Path) -> None:
    """512 bytes that say they are 4 GiB."""
    from tests.fuzz.backup_files import WITH_HOLES

    file = tmp_path / "holes.tar"
    file.write_bytes(WITH_HOLES)
    with tarfile.open(file) as archive, pytest.raises(tarfile.ReadError, match="not a file that a backup has"):
        restore.unpack(archive, into(settings).paths, lambda text: None)


@pytest.mark.parametrize("left", [0, 100, 512, 1000, 2000])
def test_a_backup_that_is_cut_off_is_none(left: int, settings: Settings, tmp_path: Path) -> None:
    whole = archive(tmp_path / "cut.tar", manifest(), ("spool/w1.0.jsonl", b"x" * 5000))
    whole.write_bytes(whole.read_bytes()[:left])
    with pytest.raises(typer.Exit):
        restore.restore(into(settings), whole, as_json=False)
    assert not into(settings).paths.state.exists()


def test_nothing_is_restored_over_an_installation(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = archive(tmp_path / "b.tar", manifest())
    before = settings.paths.admin_key.read_bytes()
    with pytest.raises(typer.Exit):
        restore.restore(settings, file, as_json=False)
    assert "is not empty" in capsys.readouterr().err and settings.paths.admin_key.read_bytes() == before
    (tmp_path / "empty").mkdir()
    restore.restore(into(settings, "empty"), file, as_json=True)
    assert json.loads(capsys.readouterr().out)["models"] is True
