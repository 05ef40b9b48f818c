"""Pins from the command line: given by a beginning or whole, shown, taken back, refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from pilotlight.cli.snapshot.store import list_snapshots, pin_snapshots, unpin_snapshots
from pilotlight.settings import Settings
from snapshots.pack import pack
from snapshots.pins import pinned
from snapshots.store.disk import remove_folder
from tests.model_folders import TOKENIZER, safetensors, write

ABSENT = "sha256:" + "a" * 64


def test_pins_are_set_shown_and_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(state_dir=tmp_path / "state")
    settings.paths.make()
    store, staged = settings.paths.snapshots, settings.paths.staged
    config = {"architectures": ["LlamaForCausalLM"]}
    model = write(
        tmp_path / "m", {"config.json": config, "tokenizer.json": TOKENIZER, "model.safetensors": safetensors(["x"])}
    )
    digest = pack(model, store).digest
    try:
        pin_snapshots(settings, [digest[7:15], ABSENT], as_json=False)
        assert capsys.readouterr().out.split() == [digest, ABSENT]
        assert pinned(staged) == {digest, ABSENT}
        list_snapshots(settings, as_json=True)
        here, coming = json.loads(capsys.readouterr().out)
        assert (here["digest"], here["pinned"], coming) == (
            digest,
            True,
            {"digest": ABSENT, "error": "not here yet", "pinned": True},
        )
        list_snapshots(settings, as_json=False)
        shown = capsys.readouterr().out.splitlines()
        assert [
            line.startswith(of) and line.endswith("pinned")
            for line, of in zip(shown[1:], (digest, ABSENT), strict=True)
        ] == [True] * 2
        with pytest.raises(typer.Exit):
            unpin_snapshots(settings, ["a", "b" * 64], as_json=False)
        assert "no pinned snapshot bbb" in capsys.readouterr().err
        assert pinned(staged) == {digest, ABSENT}  # all or none
        unpin_snapshots(settings, ["a", digest], as_json=True)
        assert json.loads(capsys.readouterr().out) == [{"digest": each, "pinned": False} for each in (ABSENT, digest)]
        assert pinned(staged) == frozenset()
        with pytest.raises(typer.Exit):
            pin_snapshots(settings, [digest, "b"], as_json=False)
        assert "snapshot ls" in capsys.readouterr().err
        assert pinned(staged) == frozenset()
        list_snapshots(settings, as_json=True)
        assert not json.loads(capsys.readouterr().out)[0]["pinned"]
    finally:
        remove_folder(store)
