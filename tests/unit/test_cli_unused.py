"""snapshot rm and prune: what serves, is pinned, or could be rolled back to stays, also while nobody can be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from pilotlight.cli.api import Unreachable
from pilotlight.cli.snapshot import prune
from pilotlight.cli.snapshot.prune import MOST_REVISIONS, needs, why_not
from pilotlight.settings import Settings, load
from snapshots.manifest import folder_name
from snapshots.pins import pin
from tests.fakes_cli import Call, Said, answered, prepared

SERVES, COMES, EARLIER, PINNED, FREE = (f"sha256:{digit * 64}" for digit in "12345")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = prepared(load(state_dir=tmp_path / "state"))
    for digest in (SERVES, COMES, EARLIER, PINNED, FREE):
        for parent in (found.paths.snapshots, found.paths.baked):
            folder = parent / folder_name(digest)
            folder.mkdir()
            (folder / "model.safetensors").write_bytes(b"x" * 5000)
            folder.chmod(0o555)
        (found.paths.staged / folder_name(digest)).symlink_to(found.paths.snapshots / folder_name(digest))
    pin(found.paths.staged, PINNED)
    return found


def answers(call: Call) -> Said:
    if call.path.endswith("/endpoints"):
        return Said({"data": [{"name": "chat", "digest": SERVES, "next": {"digest": COMES}}]})
    return Said({"data": [{"number": 2, "digest": SERVES}, {"number": 1, "digest": EARLIER}]})


@pytest.fixture(autouse=True)
def there(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "Api", lambda paths: answered(settings, answers))


def left(settings: Settings) -> set[str]:
    """What is in the store; its copies and links are there where it is."""
    stored = {entry.name for entry in settings.paths.snapshots.iterdir() if entry.name.startswith("sha256-")}
    assert stored == {entry.name for entry in settings.paths.baked.iterdir()}
    assert stored == {entry.name for entry in settings.paths.staged.iterdir() if entry.is_symlink()}
    return stored


def but(*gone: str) -> set[str]:
    return {folder_name(digest) for digest in (SERVES, COMES, EARLIER, PINNED, FREE) if digest not in gone}


def test_prune_removes_what_nobody_needs_and_says_what_it_freed(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    prune.prune(settings, history=False, dry_run=True, as_json=False)
    out, said = capsys.readouterr()
    assert out == f"{FREE}\n" and "nothing has been removed" in said and left(settings) == but()
    prune.prune(settings, history=False, dry_run=False, as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert row["digest"] == FREE and row["bytes"] >= 10_000 and row["removed"] and left(settings) == but(FREE)
    prune.prune(settings, history=True, dry_run=False, as_json=False)
    assert left(settings) == but(FREE, EARLIER)
    prune.prune(settings, history=True, dry_run=False, as_json=False)
    assert "nothing to remove" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("digest", "force", "said"),
    [
        (SERVES, False, "serves chat"),
        (SERVES, True, "serves chat"),
        (COMES, True, "serves chat"),
        (PINNED, True, "is pinned"),
        (EARLIER, False, "revision 1 of chat"),
    ],
)
def test_what_is_needed_is_not_removed_and_nothing_with_it(
    digest: str, force: bool, said: str, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit):
        prune.remove(settings, [FREE, digest], force=force, as_json=False)
    assert said in capsys.readouterr().err and left(settings) == but()


def test_rm_takes_beginnings_and_removes_an_earlier_one_where_that_is_said(settings: Settings) -> None:
    prune.remove(settings, ["5555", EARLIER], force=True, as_json=False)
    assert left(settings) == but(FREE, EARLIER)


def test_while_nobody_can_be_asked_only_force_removes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(paths: Any) -> Any:
        raise Unreachable("no answer")

    monkeypatch.setattr(prune, "Api", away)
    with pytest.raises(typer.Exit) as ended:
        prune.remove(settings, [FREE], force=False, as_json=False)
    assert ended.value.exit_code == 3 and "cannot know what endpoints need" in capsys.readouterr().err
    with pytest.raises(typer.Exit) as ended:
        prune.prune(settings, history=True, dry_run=False, as_json=False)
    assert ended.value.exit_code == 3 and left(settings) == but()
    prune.remove(settings, [FREE], force=True, as_json=False)
    assert left(settings) == but(FREE)


class Told:
    """An API with one endpoint, whose newest revisions have these numbers."""

    def __init__(self, *numbers: int) -> None:
        self.revisions = [{"digest": SERVES, "number": number} for number in numbers]

    def call(self, method: str, path: str, **_: Any) -> dict[str, Any]:
        return {
            "data": self.revisions if path.endswith("/revisions") else [{"name": "a", "digest": SERVES, "next": None}]
        }


@pytest.mark.parametrize(
    ("newest", "known"), [(MOST_REVISIONS - 1, True), (MOST_REVISIONS, True), (MOST_REVISIONS + 1, False)]
)
def test_what_old_revisions_need_that_are_not_told_is_not_guessed(newest: int, known: bool) -> None:
    api: Any = Told(*range(newest, max(0, newest - MOST_REVISIONS), -1))
    found = needs(api)
    assert (why_not(FREE, found, (), force=False) == "") == known
    assert why_not(FREE, found, (), force=True) == ""
