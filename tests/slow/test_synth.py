"""Random models have the shapes, names and files of real ones, so that a store packs them and an engine serves them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
import struct
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapshots import synth as synthesis
from snapshots.errors import SnapshotError, StoreFull
from snapshots.facts import find_facts
from snapshots.safetensors_header import read_header
from snapshots.synth import LIKE, SHARD, VALUES, normal_block, shards_of, synth, weights_of


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory where there is such a place: the files of two models."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture(scope="module", autouse=True)
def short_block() -> Iterator[None]:
    """The true one takes a second to make; this length is prime too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthesis, "VALUES", 131_071)
        yield


@pytest.fixture(scope="module")
def tiny(folder: Path, short_block: None) -> Path:
    return synth("tiny", folder / "tiny")


def values(content: bytes) -> list[float]:
    """bfloat16 as numbers."""
    wide = bytearray(2 * len(content))
    wide[2::4], wide[3::4] = content[0::2], content[1::2]
    return list(array("f", bytes(wide)))


def test_it_is_a_model_folder_as_any_other(tiny: Path) -> None:
    names = sorted(path.name for path in tiny.iterdir())
    assert names == [
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    facts = find_facts(tiny, names)
    assert (facts.architecture, facts.dtype, facts.tensors) == ("LlamaForCausalLM", "bfloat16", 8 * 9 + 2)
    assert facts.tensor_bytes == pytest.approx(2 * 27.3e6, rel=0.01)


def test_weights_are_normal_and_norms_are_one(tiny: Path) -> None:
    header = {tensor.name: tensor for tensor in read_header(tiny / "model.safetensors").tensors}
    content = (tiny / "model.safetensors").read_bytes()
    some = header["model.layers.3.mlp.up_proj.weight"]
    weights = values(content[some.begin : some.begin + 200_000])
    assert statistics.fmean(weights) == pytest.approx(0, abs=0.001)
    assert statistics.pstdev(weights) == pytest.approx(0.02, rel=0.03)
    norm = header["model.norm.weight"]
    assert set(values(content[norm.begin : norm.end])) == {1.0}


def test_no_two_rows_of_a_matrix_and_no_two_matrices_are_alike(tiny: Path) -> None:
    content, whole = (tiny / "model.safetensors").read_bytes(), set()
    matrices = [tensor for tensor in read_header(tiny / "model.safetensors").tensors if len(tensor.shape) == 2]
    for tensor in matrices:
        row = 2 * tensor.shape[1]
        assert len({content[begin : begin + row] for begin in range(tensor.begin, tensor.end, row)}) == tensor.shape[0]
        whole.add(content[tensor.begin : tensor.end])
    assert len(whole) == len(matrices)


def test_the_block_has_a_prime_length() -> None:
    assert all(VALUES % divisor for divisor in range(2, math.isqrt(VALUES) + 1))


def test_seeds_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis, "VALUES", 1009)
    digests = [hashlib.sha256(normal_block(seed)).hexdigest() for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_the_tokenizer_has_a_text_for_every_token(tiny: Path) -> None:
    vocabulary = json.loads((tiny / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(LIKE["tiny"]["vocab_size"]))


@pytest.mark.parametrize(
    ("like", "parameters", "shards"), [("tiny", 27.3e6, 1), ("qwen3-0.6b", 596.0e6, 1), ("llama3-8b", 8.03e9, 4)]
)
def test_shapes_add_up_to_the_real_ones(like: str, parameters: float, shards: int) -> None:
    split = shards_of(weights_of(LIKE[like]))
    assert len(split) == shards
    assert all(sum(weight.size for weight in shard) <= SHARD for shard in split)
    assert sum(weight.size for shard in split for weight in shard) / 2 == pytest.approx(parameters, rel=0.002)


def test_large_models_are_split_with_an_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis, "SHARD", 20_000_000)
    told: list[tuple[int, int]] = []
    model = synth("tiny", folder / "shards", seed=3, progress=lambda done, total: told.append((done, total)))
    names = sorted(path.name for path in model.iterdir())
    assert [name for name in names if "safetensors" in name] == [
        *(f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)),
        "model.safetensors.index.json",
    ]
    assert find_facts(model, names).tensors == 74
    assert (
        told[-1][0]
        == told[-1][1]
        == json.loads((model / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
    )
    with (model / "model-00001-of-00003.safetensors").open("rb") as stream:
        assert struct.unpack("<Q", stream.read(8))[0] % 8 == 0


def test_what_cannot_be_is_refused_and_leaves_nothing(
    tiny: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(SnapshotError, match=r"choose tiny, qwen3-0\.6b, llama3-8b"):
        synth("gpt-9", folder / "new")
    with pytest.raises(SnapshotError, match="there already"):
        synth("tiny", tiny)
    monkeypatch.setattr(synthesis, "free", lambda path: 1 << 30)
    with pytest.raises(StoreFull, match=r"1\.07 GB free, .* needs 16\.06 GB"):
        synth("llama3-8b", folder / "new")
    monkeypatch.setattr(synthesis, "_write_weights", lambda *arguments: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(StoreFull):
        synth("tiny", folder / "new")
    assert sorted(folder.iterdir()) == before
