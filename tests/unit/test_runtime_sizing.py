"""KV cache sizing: enough for one longest sequence, bounded by memory."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtime.sizing import BLOCK, LONGEST_CONTEXT, decide

QWEN = {"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "hidden_size": 1024}
GIB = 1 << 30


def test_bytes_a_token_follow_the_config() -> None:
    token = 28 * 2 * 8 * 128 * 2
    sizing = decide(QWEN | {"max_position_embeddings": 40960}, slots=1, least_bytes=1, max_model_len=0, memory_bytes=64 * GIB)
    assert sizing.max_model_len == LONGEST_CONTEXT
    assert sizing.kv_cache_bytes == (LONGEST_CONTEXT + 2 * BLOCK) * token


def test_a_config_without_layers_gets_the_setting() -> None:
    assert decide({}, slots=4, least_bytes=123, max_model_len=0, memory_bytes=GIB).kv_cache_bytes == 123


@given(
    layers=st.integers(1, 80),
    heads=st.integers(1, 64),
    context=st.integers(1, 100_000),
    slots=st.integers(1, 512),
    memory=st.integers(GIB, 512 * GIB),
)
def test_one_longest_sequence_always_fits(layers: int, heads: int, context: int, slots: int, memory: int) -> None:
    config: dict[str, Any] = {"num_hidden_layers": layers, "num_attention_heads": heads, "head_dim": 64, "max_position_embeddings": context}
    sizing = decide(config, slots=slots, least_bytes=1 << 20, max_model_len=0, memory_bytes=memory)
    token = layers * 2 * heads * 64 * 2
    longest = -(-sizing.max_model_len // BLOCK) * BLOCK * token
    assert longest <= sizing.kv_cache_bytes <= max(memory // 4, longest + 2 * BLOCK * token)
