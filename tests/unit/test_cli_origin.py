"""A digest may be deployed where a node can have it: from the store of this installation, or from its origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from pilotlight.cli.packing import find_snapshot
from pilotlight.settings import SettingsError, load
from snapshots.pack import pack
from tests.fakes_cli import ran
from tests.model_folders import TOKENIZER, safetensors, write


@pytest.fixture
def digest(tmp_path: Path) -> str:
    """A snapshot at an origin that is a folder."""
    files: dict[str, bytes | dict[str, Any]] = {
        "config.json": {"architectures": ["LlamaForCausalLM"]},
        "tokenizer.json": TOKENIZER,
        "model.safetensors": safetensors(["x"], 8),
    }
    return pack(write(tmp_path / "model", files), tmp_path / "origin").digest


def test_it_is_found_here_or_at_the_origin(tmp_path: Path, digest: str) -> None:
    state = tmp_path / "state"
    assert find_snapshot(load(state_dir=state, snapshots={"origin": str(tmp_path / "origin")}), digest).digest == digest
    pack(tmp_path / "model", state / "snapshots")
    assert find_snapshot(load(state_dir=state), digest).digest == digest


def test_what_is_nowhere_is_one_line(tmp_path: Path, digest: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        find_snapshot(load(state_dir=tmp_path / "state"), digest)
    assert "`pilotlight snapshot pack FOLDER` puts it there" in capsys.readouterr().err
    with pytest.raises(typer.Exit):
        find_snapshot(
            load(state_dir=tmp_path / "state", snapshots={"origin": str(tmp_path / "origin")}), "sha256:" + "a" * 64
        )
    assert "push it there first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give --model (a folder, or hf://ORG/NAME) or --digest"),
        (
            ("--model", "m", "--digest", "sha256:" + "a" * 64),
            "give one of --model (a folder, or hf://ORG/NAME) and --digest",
        ),
    ],
)
def test_a_deployment_is_of_one_model_or_changes_something(options: tuple[str, ...], said: str) -> None:
    done = ran("deploy", "x", *options)
    assert done.exit_code == 2
    assert said in done.stderr


def test_an_origin_is_a_bucket_or_a_folder() -> None:
    with pytest.raises(SettingsError, match=r"snapshots\.origin.*s3://BUCKET/PREFIX, or the path of a folder"):
        load(snapshots={"origin": "gs://bucket"})
    assert load(snapshots={"origin": "s3://bucket/prefix"}).snapshots.origin == "s3://bucket/prefix"
