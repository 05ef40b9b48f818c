"""The texts of a model are bounded before they are read, wherever they come from and whoever reads them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import snapshots
from snapshots.errors import PackError
from snapshots.judging import judge_names
from snapshots.manifest import Manifest, SnapshotFile
from snapshots.selection import TAKEN, TOKENIZERS, WEIGHTS
from snapshots.texts import LARGEST_TEXT, MOST_CONTAINERS, MOST_VALUES, read_json

# A header of weights has bounds of its own; the others are files of ours, or read no further than some kilobytes.
OTHERWISE = {"safetensors_header.py", "other_formats.py", "synth.py", "texts.py"}


@pytest.mark.parametrize(
    "content",
    [
        b"[" + b"[]," * (MOST_CONTAINERS + 1) + b"1]",
        b"[" + b"{}," * (MOST_CONTAINERS + 1) + b"1]",
        b"[" + b"1," * (MOST_VALUES + 1) + b"1]",
    ],
    ids=["lists", "objects", "numbers"],
)
def test_what_would_fill_the_memory_is_not_taken_apart(content: bytes) -> None:
    with pytest.raises(PackError, match=r"tokenizer\.json has more values"):
        read_json(content, "tokenizer.json")


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"9" * 5000, b"", b'{"a": nul}', "\ufeff{}".encode()])
def test_what_is_no_json_is_refused_by_name(content: bytes) -> None:
    with pytest.raises(PackError, match=r"config\.json is not JSON"):
        read_json(content, "config.json")


@pytest.mark.parametrize(
    "name", sorted({*TOKENIZERS, *(f"x{suffix}" for suffix in TAKEN), "1_Pooling/config.json"} - {f"x{WEIGHTS}"})
)
def test_a_manifest_with_a_text_no_model_has_is_refused_before_it_is_fetched(name: str) -> None:
    sizes = {"config.json": 10, "model.safetensors": 1 << 40} | {name: LARGEST_TEXT + 1}
    files = tuple(SnapshotFile(path=path, size=size, sha256="0" * 64) for path, size in sorted(sizes.items()))
    manifest = Manifest(architecture="LlamaForCausalLM", dtype="bfloat16", tensors=1, tensor_bytes=1, files=files)
    with pytest.raises(PackError, match=f"{re.escape(name)} has {LARGEST_TEXT + 1} bytes"):
        judge_names(manifest)


def test_nobody_reads_json_of_a_model_otherwise() -> None:
    folder = Path(snapshots.__path__[0])
    assert {file.name for file in folder.glob("*.py") if "json.loads" in file.read_text(encoding="utf-8")} == OTHERWISE
