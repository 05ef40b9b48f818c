"""Mapped weights answer as vLLM's own loader does, greedy token for token, before and after packing and after vLLM's
reload: Llama and Qwen3; a mixture of experts, which is loaded as vLLM does and says so; and snapshots that are not whole."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.integration.system import MODEL

QWEN = """
import sys, torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM
torch.manual_seed(1)
shape = dict(vocab_size=1024, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, head_dim=64, max_position_embeddings=512, tie_word_embeddings=False)
if sys.argv[2] == "Qwen3":
    model = Qwen3ForCausalLM(Qwen3Config(**shape))
else:
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**shape, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=128))
for name, parameter in model.named_parameters():
    if parameter.ndim >= 2:
        torch.nn.init.normal_(parameter, std=0.15)  # far from ties, so that greedy means something
model.to(torch.bfloat16).save_pretrained(sys.argv[1])
"""


def probe(model: Path, load_format: str, baked: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.integration.mapped_probe", str(model), load_format, str(baked)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def both(model: Path, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Stock and ours, each in a process of its own, at once: most of it is imports."""
    with ThreadPoolExecutor() as threads:
        stock, ours = threads.submit(probe, model, "auto", folder), threads.submit(probe, model, "pilotlight", folder / "baked")
        return stock.result(), ours.result()


def made(architecture: str, folder: Path) -> Path:
    """A small model with random weights; the demo model for Llama."""
    if architecture == "Llama":
        return MODEL
    subprocess.run([sys.executable, "-c", QWEN, str(folder), architecture], check=True, capture_output=True, timeout=120)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((MODEL / name).read_bytes())
    return folder


@pytest.mark.parametrize("architecture", ["Llama", "Qwen3"])
def test_greedy_answers_are_the_stock_loaders(architecture: str, tmp_path: Path) -> None:
    model = made(architecture, tmp_path / "model")
    stock, baking = both(model, tmp_path)
    mapping = probe(model, "pilotlight", tmp_path / "baked")
    (copy,) = (tmp_path / "baked").glob("*.safetensors")
    assert copy.stat().st_size > 0
    assert (stock["postponed"], baking["note"], mapping["note"]) == (0, "baked", "mapped")
    assert baking["postponed"] == mapping["postponed"] > 0
    for mapped in (baking, mapping):
        assert mapped["first"] == stock["first"]
        assert mapped["packed"] == stock["first"]
    assert (mapping["left"], mapping["reloaded"]) == (0, stock["first"])
    _only_what_is_whole_is_baked(mapping["whole"], copy.stem, tied=json.loads((model / "config.json").read_text())["tie_word_embeddings"])


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
