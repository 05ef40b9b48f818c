"""Mapped weights answer as vLLM's own loader does, greedy token for token, before and after packing and after vLLM's
reload: Llama and Qwen3; a mixture of experts, which is loaded as vLLM does and says so; and snapshots that are not
whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration import mapped_probe
from tests.integration.forks import Fork, call
from tests.integration.system import MODEL


def both(model: Path, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Stock and ours, each in a process of its own, at once."""
    stock = Fork(mapped_probe.loaded, str(model), "auto", str(folder))
    ours = Fork(mapped_probe.loaded, str(model), "pilotlight", str(folder / "baked"))
    return stock.answer(), ours.answer()


def made(architecture: str, folder: Path) -> Path:
    """A small model with random weights; the demo model for Llama."""
    if architecture == "Llama":
        return MODEL
    call(mapped_probe.made, architecture, str(folder))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((MODEL / name).read_bytes())
    return folder


@pytest.mark.parametrize("architecture", ["Llama", "Qwen3"])
def test_greedy_answers_are_the_stock_loaders(architecture: str, tmp_path: Path) -> None:
    model = made(architecture, tmp_path / "model")
    stock, baking = both(model, tmp_path)
    mapping = call(mapped_probe.loaded, str(model), "pilotlight", str(tmp_path / "baked"))
    (copy,) = (tmp_path / "baked").glob("*.safetensors")
    assert copy.stat().st_size > 0
    assert (stock["postponed"], baking["note"], mapping["note"]) == (0, "baked", "mapped")
    assert baking["postponed"] == mapping["postponed"] > 0
    for mapped in (baking, mapping):
        assert mapped["first"] == stock["first"]
        assert mapped["packed"] == stock["first"]
    assert (mapping["left"], mapping["reloaded"]) == (0, stock["first"])
    _only_what_is_whole_is_baked(
        mapping["whole"], copy.stem, tied=json.loads((model / "config.json").read_text())["tie_word_embeddings"]
    )


def _only_what_is_whole_is_baked(said: dict[str, Any], key: str, *, tied: bool) -> None:
    assert said["same names"], "a reload gets the snapshot's tensors, all of them and no others"
    assert said["as it is"] == said["rotary"] == key
    assert len(said["tied"]) == len(said["embeds"]) == len(key), said
    assert (said["embeds"] == key, said["tied"] == key) == (tied, tied), "what has no head of its own has another copy"
    lacks, again = "the snapshot lacks model.layers.", ": pack the model again from all of its files"
    assert said["without a shard"] == f"{lacks}1.self_attn.k_proj.weight{again}"
    assert said["without a layer"] == f"{lacks}1.mlp.down_proj.weight{again}"
    assert said["without a bias"].startswith(f"{lacks}0.self_attn.q_proj.bias, model.layers.0.self_attn.k_proj.bias, ")
    assert said["left over"].startswith("the model has no place for model.layers.1.mlp.down_proj.bias of the snapshot")


def test_a_mixture_of_experts_takes_the_engines_own_way(tmp_path: Path) -> None:
    model = made("Qwen3Moe", tmp_path / "model")
    stock, ours = both(model, tmp_path)
    assert ours["note"].startswith("plain: ") and "MoE" in ours["note"]
    assert ours["postponed"] == 0
    assert ours["first"] == ours["packed"] == stock["first"]
    assert not (tmp_path / "baked").exists()
