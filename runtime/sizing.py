"""How much KV cache a replica gets on CPU: a pure function of the model's config and the slots. Step 8.

KV bytes a token = layers × 2 × KV heads × head dimension × bytes an element (vLLM's full-attention layout). The cache
holds at least one sequence of the longest context, and `TOKENS_A_SLOT` a slot where that is more, but never more than a
quarter of the machine's memory; the context is cut to `LONGEST_CONTEXT` unless the settings say otherwise.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotlight.settings import RuntimeSettings

LONGEST_CONTEXT = 4096  # tokens, on CPU
TOKENS_A_SLOT = 256
BLOCK = 128  # tokens, vLLM's CPU block
ELEMENT_BYTES = 2


@dataclass(frozen=True)
class Sizing:
    kv_cache_bytes: int
    max_model_len: int  # tokens; 0: as the model's config says


def size(snapshot: Path, *, slots: int, settings: RuntimeSettings) -> Sizing:
    """Read the snapshot's config and size its cache. Raises OSError or ValueError for a config that cannot be read."""
    config = json.loads((snapshot / "config.json").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return decide(config, slots=slots, least_bytes=settings.kv_cache_bytes, max_model_len=settings.max_model_len, memory_bytes=memory)


def decide(config: dict[str, Any], *, slots: int, least_bytes: int, max_model_len: int, memory_bytes: int) -> Sizing:
    text = config.get("text_config", config)
    longest = int(text.get("max_position_embeddings", LONGEST_CONTEXT))
    context = min(longest, max_model_len or LONGEST_CONTEXT)
    layers, heads = int(text.get("num_hidden_layers", 0)), int(text.get("num_attention_heads", 0))
    if not layers or not heads:
        return Sizing(least_bytes, context)
    head = int(text.get("head_dim") or text["hidden_size"] // heads)
    token = layers * 2 * int(text.get("num_key_value_heads") or heads) * head * ELEMENT_BYTES
    blocks = max(-(-context // BLOCK) + 2, -(-slots * TOKENS_A_SLOT // BLOCK))
    most = max(memory_bytes // 4, (-(-context // BLOCK) + 2) * BLOCK * token)
    return Sizing(min(max(blocks * BLOCK * token, least_bytes), most), context)
