"""Where a snapshot is from: told beside it, for people; nothing that serves depends on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots.errors import LineageError
from snapshots.lineage import MOST_STEPS, Step, file_of, newest_of, of_folder, parse, remember, steps
from tests.fakes_cli import ran
from tests.model_folders import TOKENIZER, safetensors, write

DIGEST = "sha256:" + "a" * 64
MODEL: dict[str, bytes | dict[str, Any]] = {
    "config.json": {"architectures": ["LlamaForCausalLM"]},
    "tokenizer.json": TOKENIZER,
    "model.safetensors": safetensors(["x"], 8),
}


def test_steps_are_kept_in_order_each_once_and_no_more_than_some(tmp_path: Path) -> None:
    assert steps(tmp_path, DIGEST) == ()
    for at in ("1", "2"):  # only the moment differs
        remember(tmp_path, DIGEST, Step(origin="hf://org/name", commit="c", at=at))
    assert [step.at for step in steps(tmp_path, DIGEST)] == ["1"]
    for number in range(MOST_STEPS):
        remember(tmp_path, DIGEST, Step(origin=f"/models/{number}"))
    assert [step.origin for step in steps(tmp_path, DIGEST)] == [f"/models/{number}" for number in range(MOST_STEPS)]


def test_what_a_later_release_says_besides_is_passed_over_and_damage_is_one_line(tmp_path: Path) -> None:
    remember(tmp_path, DIGEST, Step(origin="/m"))
    file = file_of(tmp_path, DIGEST)
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"signed": True, "steps": [said["steps"][0] | {"mood": "good"}]}))
    assert [step.origin for step in steps(tmp_path, DIGEST)] == ["/m"]
    file.write_text('{"steps": [{"origin')
    with pytest.raises(LineageError, match="remove it; the snapshot itself is not concerned"):
        steps(tmp_path, DIGEST)
    remember(tmp_path, DIGEST, Step(origin="/n"))
    assert [step.origin for step in steps(tmp_path, DIGEST)] == ["/n"]


@given(st.binary(max_size=300))
def test_a_file_of_any_bytes_is_steps_or_a_refusal(content: bytes) -> None:
    try:
        assert all(isinstance(step, Step) for step in parse(content, "x"))
    except LineageError:
        pass


def test_a_folder_of_the_hubs_own_tools_says_where_it_is_from(tmp_path: Path) -> None:
    cached = write(
        tmp_path / "models--org--name" / "snapshots" / ("c" * 40),
        {"README.md": b"---\nlicense: 'mit'\n---\nlicense: other\n"},
    )
    assert of_folder(cached) == Step(origin="hf://org/name", commit="c" * 40, licence="mit")
    plain = write(
        tmp_path / "plain", {".cache/huggingface/download/config.json.metadata": b"%s\netag\n1.0\n" % (b"d" * 40)}
    )
    assert of_folder(plain) == Step(origin=str(plain), commit="d" * 40)
    assert of_folder(tmp_path / "nowhere") == Step(origin=str(tmp_path / "nowhere"))


def test_show_tells_origin_licence_who_and_every_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", {**MODEL, "README.md": b"---\nlicense: apache-2.0\n---\n"})
    state = ["--state", str(tmp_path / "s")]
    digest = ran("snapshot", "pack", str(folder), *state).stdout.strip()
    told = ran("snapshot", "show", digest[:15], *state)
    assert told.exit_code == 0, told.stderr
    for said in (digest, str(folder), "apache-2.0", " by ", "model.safetensors"):
        assert said in told.stdout
    shown = json.loads(ran("snapshot", "show", digest, "--json", *state).stdout)
    assert shown["lineage"][0]["origin"] == str(folder)
    assert {file["path"] for file in shown["file_list"]} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert newest_of(tmp_path / "s" / "snapshots", str(folder)) == digest
    file_of(tmp_path / "s" / "snapshots", digest).write_text("no")
    told = ran("snapshot", "show", digest, *state)
    assert (told.exit_code, "cannot be read" in told.stderr, digest in told.stdout) == (0, True, True)


def test_the_model_that_comes_with_pilotlight_is_named_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = ["--state", str(tmp_path / "s")]
    digest = ran("snapshot", "pack", "pilotlight://demo", *state).stdout.strip()
    shown = json.loads(ran("snapshot", "show", digest, "--json", *state).stdout)
    assert shown["lineage"][0]["origin"] == "pilotlight://demo" and shown["architecture"] == "LlamaForCausalLM"


def test_lineage_goes_with_a_snapshot_from_store_to_store(tmp_path: Path) -> None:
    folder, there = write(tmp_path / "m", MODEL), tmp_path / "there"
    there.mkdir()
    first, second = ["--state", str(tmp_path / "a")], ["--state", str(tmp_path / "b")]
    digest = ran("snapshot", "pack", str(folder), *first).stdout.strip()
    assert ran("snapshot", "push", digest, str(there), *first).exit_code == 0
    assert ran("snapshot", "pull", str(there), digest, *second).exit_code == 0
    told = steps(tmp_path / "b" / "snapshots", digest)
    assert [(step.how, step.origin) for step in told] == [("packed", str(folder)), ("pulled", str(there))]
