"""What was not packed here is held to what packing takes: pulled, staged and deployed by digest, before a byte of it is
used.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import typer

from pilotlight.cli.packing import find_snapshot
from pilotlight.settings import load
from snapshots import stage as staging
from snapshots.errors import SnapshotError
from snapshots.manifest import CHUNK, MANIFEST, Manifest, SnapshotFile, folder_name
from snapshots.stage import adopt, stage
from snapshots.transfer import Steps, pull, pull_from
from tests.fakes_snapshots import FakeOrigin
from tests.model_folders import LLAMA, PLAIN, Files, safetensors, write

CODE: dict[str, Any] = LLAMA | {"model_type": "mymodel", "auto_map": {"AutoModel": "modeling_evil.Evil"}}


def made_by_others(store: Path, files: Files, **claims: Any) -> str:
    """A snapshot whose every byte is what its manifest says, and its manifest what its digest says."""
    work = write(store / "work", files)
    listed = tuple(
        SnapshotFile(
            path=path, size=(work / path).stat().st_size, sha256=hashlib.sha256((work / path).read_bytes()).hexdigest()
        )
        for path in sorted(files)
    )
    said: dict[str, Any] = {
        "architecture": "LlamaForCausalLM",
        "dtype": "bfloat16",
        "tensors": 2,
        "tensor_bytes": 16,
    } | claims
    manifest = Manifest(**said, files=listed)
    (work / MANIFEST).write_bytes(manifest.canonical())
    work.rename(store / folder_name(manifest.digest))
    return manifest.digest


WITHOUT_TOKENIZER = {path: content for path, content in PLAIN.items() if path != "tokenizer.json"}
BY_NAME: list[tuple[str, Files, dict[str, Any], str]] = [
    ("code", PLAIN | {"config.json": CODE, "modeling_evil.py": b"import os"}, {}, r"'modeling_evil\.py'.*never takes.*snapshots\.model_code"),
    ("a pickle", PLAIN | {"pytorch_model.bin": b"\x80"}, {}, r"'pytorch_model\.bin', which packing never takes"),
    ("a pickle below", PLAIN | {"2_Dense/a.PT": b""}, {}, r"a\.PT"),
    ("a library", PLAIN | {"x.so": b""}, {}, r"x\.so"),
    ("no config", {"model.safetensors": safetensors(["a"])}, {}, "no config.json"),
    ("no weights", {"config.json": LLAMA}, {}, "no .safetensors"),
    ("weights twice", PLAIN | {"consolidated.safetensors": safetensors(["x"])}, {}, "would read instead"),
]  # fmt: skip
BY_CONTENT: list[tuple[str, Files, dict[str, Any], str]] = [
    ("code is asked for", PLAIN | {"config.json": CODE}, {}, "auto_map.*'mymodel'"),
    ("weights that are none", PLAIN | {"model.safetensors": b"x" * 100}, {}, "not a safetensors file"),
    ("cut weights", PLAIN | {"model.safetensors": safetensors(["a", "b"])[:-3]}, {}, "cut short"),
    ("an unknown architecture", PLAIN | {"config.json": LLAMA | {"architectures": ["Evil"]}}, {}, "does not know"),
    ("no tokenizer", WITHOUT_TOKENIZER, {}, "no tokenizer"),
    ("tokens without rows", PLAIN | {"config.json": LLAMA | {"vocab_size": 1}}, {}, "has 1 rows"),
    ("a vocabulary elsewhere", PLAIN | {"tokenizer_config.json": {"vocab": "root/.ssh/id"}}, {}, "'root/.ssh/id' as its 'vocab'"),
    ("merges elsewhere", PLAIN | {"tokenizer_config.json": {"merges": "/etc/shadow"}}, {}, "read as a file of this machine"),
    ("a module elsewhere", PLAIN | {"modules.json": b'[{"type": "x", "path": "../other"}]'}, {}, "'../other', which is not a folder"),
    ("a broken template", PLAIN | {"chat_template.jinja": b"{{"}, {}, "cannot be read"),
    ("an unknown quantization", PLAIN | {"config.json": LLAMA | {"quantization_config": {"quant_method": "exl2"}}}, {}, "'exl2'"),
    ("a lying size", PLAIN, {"tensor_bytes": 1}, "its manifest says.*2 tensors of 1 bytes.*2 of 16"),
    ("a lying architecture", PLAIN, {"architecture": "Qwen3ForCausalLM"}, "its files say 'LlamaForCausalLM'"),
]  # fmt: skip
ALL = BY_NAME + BY_CONTENT


@pytest.mark.parametrize(("files", "claims", "says"), [case[1:] for case in ALL], ids=[case[0] for case in ALL])
async def test_what_could_not_have_been_packed_is_refused_wherever_it_comes_from(
    tmp_path: Path, files: Files, claims: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    origin, store = tmp_path / "origin", tmp_path / "store"
    digest = made_by_others(origin, files, **claims)
    fake, begun = FakeOrigin(origin), list[Path]()
    with pytest.raises(SnapshotError, match=says):  # fetched
        await pull_from(fake, digest, store, steps=Steps(usable=begun.append))
    assert {entry.name for entry in store.iterdir()} == set(), "nothing is left of it"
    late = (
        "no tokenizer",
        "has 1 rows",
        "cannot be read",
        "'root/.ssh/id' as its 'vocab'",
        "read as a file of this machine",
    )
    assert not begun or says in late, (
        "no engine has seen it; what only a call would show is found before any is let through"
    )
    if (files, claims, says) in [case[1:] for case in BY_NAME]:
        assert not fake.reads
    with pytest.raises(SnapshotError, match=says):  # pulled
        await pull(str(origin), digest, store)
    with pytest.raises(SnapshotError, match=says):  # here already
        stage(origin, digest, tmp_path / "node")
    with pytest.raises(typer.Exit):  # deployed by digest
        find_snapshot(_with_store(tmp_path, origin), digest)
    assert capsys.readouterr().err.startswith(f"pilotlight: cannot use {digest[:19]}…")


def _with_store(tmp_path: Path, origin: Path) -> Any:
    """Settings of an installation whose own store this is."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "snapshots").symlink_to(origin)
    return load(state_dir=state)


async def test_a_machine_that_allows_code_takes_it_and_one_that_no_longer_does_refuses_it(tmp_path: Path) -> None:
    digest = made_by_others(tmp_path / "origin", PLAIN | {"config.json": CODE, "modeling_evil.py": b""})
    await pull(str(tmp_path / "origin"), digest, tmp_path / "store", code=True)
    stage(tmp_path / "store", digest, tmp_path / "node", code=True)
    adopt(tmp_path / "store" / folder_name(digest), tmp_path / "node", code=True)
    with pytest.raises(SnapshotError, match="modeling_evil"):
        stage(tmp_path / "store", digest, tmp_path / "node")


def test_what_an_older_release_has_verified_is_judged_and_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, evil = made_by_others(tmp_path, PLAIN), made_by_others(tmp_path, PLAIN | {"config.json": CODE})
    read: list[Path] = []
    for digest in (good, evil):
        monkeypatch.setattr(staging, "judge_contents", lambda *_, **__: None)
        stage(tmp_path, digest, tmp_path / "node")
        stamp = tmp_path / "node" / f"{folder_name(digest)}.stamp"
        old = {path: state for path, state in json.loads(stamp.read_text()).items() if path != staging.RULES}
        stamp.write_text(json.dumps(old))
    monkeypatch.undo()
    monkeypatch.setattr(staging, "verify", read.append)
    stage(tmp_path, good, tmp_path / "node")
    with pytest.raises(SnapshotError, match="auto_map"):
        stage(tmp_path, evil, tmp_path / "node")
    assert not read


async def test_a_table_longer_than_a_chunk_is_waited_for(tmp_path: Path) -> None:
    """What an engine may begin with is only what has been looked at whole."""
    entries = {"__metadata__": {"x": "x" * CHUNK}, "a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}
    header = json.dumps(entries).encode()
    weights = len(header).to_bytes(8, "little") + header + b"aa"
    digest = made_by_others(tmp_path / "origin", PLAIN | {"model.safetensors": weights}, tensors=1, tensor_bytes=2)
    seen: list[bytes] = []

    def usable(partial: Path) -> None:
        seen.append((partial / "files" / "model.safetensors").read_bytes())

    await pull_from(FakeOrigin(tmp_path / "origin"), digest, tmp_path / "store", steps=Steps(usable=usable))
    assert seen == [weights]
