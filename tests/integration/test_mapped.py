"""Mapped weights answer as vLLM's own loader does, greedy token for token, before and after packing: Llama and Qwen3."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.system import MODEL

QWEN = """
import sys, torch
from transformers import Qwen3Config, Qwen3ForCausalLM
torch.manual_seed(1)
config = Qwen3Config(vocab_size=1024, hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
                     num_key_value_heads=2, head_dim=64, max_position_embeddings=512, tie_word_embeddings=False)
model = Qwen3ForCausalLM(config)
for name, parameter in model.named_parameters():
    if parameter.ndim == 2:
        torch.nn.init.normal_(parameter, std=0.15)  # far from ties, so that greedy means something
model.to(torch.bfloat16).save_pretrained(sys.argv[1])
"""


def probe(model: Path, load_format: str, baked: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.integration.mapped_probe", str(model), load_format, str(baked)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("architecture", ["Llama", "Qwen3"])
def test_greedy_answers_are_the_stock_loaders(architecture: str, tmp_path: Path) -> None:
    model = MODEL
    if architecture == "Qwen3":
        model = tmp_path / "qwen"
        subprocess.run([sys.executable, "-c", QWEN, str(model)], check=True, capture_output=True, timeout=120)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (model / name).write_bytes((MODEL / name).read_bytes())
    stock = probe(model, "auto", tmp_path)
    baking, mapping = (probe(model, "pilotlight", tmp_path / "baked") for _ in range(2))
    (copy,) = (tmp_path / "baked").glob("*.safetensors")
    assert copy.stat().st_size > 0
    assert stock["postponed"] == 0 and mapping["postponed"] > 0
    for mapped in (baking, mapping):
        assert mapped["first"] == stock["first"]
        assert mapped["packed"] == stock["first"]
