"""The context a replica serves and the cache it gets: they follow the model and the revision's arguments, and what is
cut is told.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.context import LONGEST_CONTEXT, Described, amount, describe, longest_of
from runtime.node.kv_cache import BLOCK, Sizing, cache_bytes, cuts, decide, never_fits, token_bytes
from runtime.tasks import Task

QWEN = {
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 1024,
}
GIB = 1 << 30


def test_bytes_a_token_follow_the_config() -> None:
    token = 28 * 2 * 8 * 128 * 2
    sizing = decide(
        Described(QWEN | {"max_position_embeddings": 40960}),
        slots=1,
        least_bytes=1,
        max_model_len=0,
        memory_bytes=64 * GIB,
    )
    assert sizing.max_model_len == LONGEST_CONTEXT
    assert sizing.kv_cache_bytes == (LONGEST_CONTEXT + 2 * BLOCK) * token


def test_a_config_without_layers_gets_the_setting() -> None:
    assert decide(Described({}), slots=4, least_bytes=123, max_model_len=0, memory_bytes=GIB).kv_cache_bytes == 123


@given(
    layers=st.integers(1, 80),
    heads=st.integers(1, 64),
    context=st.integers(1, 100_000),
    slots=st.integers(1, 512),
    memory=st.integers(GIB, 512 * GIB),
)
def test_one_longest_sequence_always_fits(layers: int, heads: int, context: int, slots: int, memory: int) -> None:
    config: dict[str, Any] = {
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "head_dim": 64,
        "max_position_embeddings": context,
    }
    sizing = decide(Described(config), slots=slots, least_bytes=1 << 20, max_model_len=0, memory_bytes=memory)
    token = layers * 2 * heads * 64 * 2
    longest = -(-sizing.max_model_len // BLOCK) * BLOCK * token
    assert longest <= sizing.kv_cache_bytes <= max(memory // 4, longest + 2 * BLOCK * token)


@pytest.mark.parametrize(
    ("engine_args", "nbytes"),
    [
        ({}, 7),
        ({"kv_cache_memory_bytes": 5}, 5),
        ({"kv-cache-memory-bytes": "6"}, 6),
        ({"kv_cache_memory_bytes": "much"}, 7),
        ({"x": 1}, 7),
    ],
)
def test_engine_arguments_have_the_last_word_on_the_cache(engine_args: dict[str, Any], nbytes: int) -> None:
    assert cache_bytes(engine_args, Sizing(7, 0)) == nbytes


LONG = QWEN | {"max_position_embeddings": 131072}
TOKEN = 28 * 2 * 8 * 128 * 2


def sized(
    config: dict[str, Any] = LONG,
    *,
    memory: int = 64 * GIB,
    setting: int = 0,
    slots: int = 1,
    task: Task = "generate",
    **args: Any,
) -> Sizing:
    return decide(
        Described(config),
        slots=slots,
        least_bytes=1,
        max_model_len=setting,
        memory_bytes=memory,
        task=task,
        engine_args=args,
    )


@pytest.mark.parametrize("given", [131072, "131072", "128K", 131072.0])
def test_an_engine_argument_has_the_last_word_on_the_context_and_the_cache_follows(given: Any) -> None:
    sizing = sized(setting=2048, max_model_len=given)
    assert (sizing.context.tokens, sizing.kv_cache_bytes) == (131072, (131072 + 2 * BLOCK) * TOKEN)
    assert cuts(sizing, slots=1) == []


def test_without_an_argument_the_setting_counts_then_the_bound_and_the_cut_is_told() -> None:
    assert sized(setting=8192).context.tokens == 8192
    assert sized(QWEN | {"max_position_embeddings": 2048}, setting=8192).context.tokens == 2048
    (told,) = cuts(sized(), slots=1)
    assert "cut to 4096 of the 131072 tokens" in told
    assert "max-model-len=131072" in told
    assert "15.0 GB" in told
    assert "runtime.max_model_len" in told
    assert cuts(sized(QWEN | {"max_position_embeddings": 2048}), slots=1) == []


@pytest.mark.parametrize(
    ("args", "part"),
    [
        ({}, 1.0),
        ({"dtype": "float32"}, 2.0),
        ({"dtype": "bfloat16"}, 1.0),
        ({"kv_cache_dtype": "fp8"}, 0.5),
        ({"dtype": "float32", "kv-cache-dtype": "auto"}, 2.0),
        ({"dtype": "float32", "kv-cache-dtype": "fp8_e5m2"}, 0.5),
        ({"hf-overrides": '{"num_hidden_layers": 14}'}, 0.5),
        ({"hf-overrides.num_hidden_layers": 7}, 0.25),
    ],
)
def test_bytes_a_token_follow_the_arguments(args: dict[str, Any], part: float) -> None:
    assert token_bytes(LONG, args) == TOKEN * part


def test_an_embedding_model_is_of_four_bytes_unless_an_argument_says_otherwise() -> None:
    assert token_bytes(LONG, {}, task="embed") == 2 * TOKEN
    assert token_bytes(LONG, {"dtype": "bfloat16"}, task="embed") == TOKEN


@pytest.mark.parametrize(
    "config",
    [
        {"n_layer": 12, "n_head": 12, "n_embd": 768},
        {"n_layers": 12, "n_heads": 12, "d_model": 768},
        {"num_layers": 12, "num_attention_heads": 12, "hidden_size": 768},
        {"text_config": {"num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 768}},
    ],
)
def test_layers_and_heads_have_many_names(config: dict[str, Any]) -> None:
    assert token_bytes(config, {}) == 12 * 2 * 768 * 2


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"n_positions": 1024}, 1024),
        ({"max_seq_len": 4096, "max_position_embeddings": 8192}, 4096),
        ({"max_position_embeddings": 4096, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 16384),
        ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "linear", "factor": 2}}, 8192),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 131072),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        ({"text_config": {"max_position_embeddings": 512}}, 512),
        ({}, 0),
        ({"max_position_embeddings": "many", "rope_scaling": {"rope_type": "linear", "factor": "x"}}, 0),
        ({"max_position_embeddings": True}, 0),
    ],
)
def test_a_model_says_how_long_its_context_is_in_many_ways(config: dict[str, Any], longest: int) -> None:
    assert longest_of(Described(config), task="generate") == longest


def test_an_embedding_model_takes_what_its_authors_say() -> None:
    bert = {"max_position_embeddings": 512}
    assert longest_of(Described(bert, sentence=256, tokenizer=512), task="embed") == 256
    assert longest_of(Described(bert | {"max_position_embeddings": 514}, tokenizer=512), task="embed") == 512
    assert longest_of(Described(bert, sentence=256, tokenizer=128), task="generate") == 512


def test_files_say_it_and_what_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LONG))
    assert describe(tmp_path) == Described(LONG)
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert describe(tmp_path) == Described(LONG, sentence=256)
    (tmp_path / "sentence_bert_config.json").write_text("[")
    assert describe(tmp_path) == Described(LONG)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="is not an object"):
        describe(tmp_path)


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("32k", 32_000),
        ("32K", 32768),
        ("1M", 1 << 20),
        ("1.5k", 1500),
        (-1, 0),
        ("auto", 0),
        (True, 0),
        ("", 0),
        ("x", 0),
    ],
)
def test_amounts_are_read_as_the_engine_reads_them(value: Any, tokens: int) -> None:
    assert amount(value) == tokens


def test_a_cache_that_memory_cuts_is_told_and_one_that_never_fits_is_refused() -> None:
    (told,) = cuts(sized(QWEN | {"max_position_embeddings": 2048}, memory=2 * GIB, slots=256), slots=256)
    assert "a quarter of the node's memory, where 256 slots would use 65536" in told
    sizing = sized(memory=8 * GIB, max_model_len=131072)
    assert "engine argument max-model-len=131072 needs a cache of 15.1 GB" in never_fits(sizing, memory_bytes=8 * GIB)
    assert never_fits(sizing, memory_bytes=16 * GIB) == ""


@given(
    st.dictionaries(
        st.sampled_from(
            ["max_position_embeddings", "num_hidden_layers", "hidden_size", "text_config", "rope_scaling", "head_dim"]
        ),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=3)
        | st.just([1])
        | st.just({"factor": 2, "n_layer": -1}),
    )
)
def test_a_configuration_of_any_shape_is_sized(config: dict[str, Any]) -> None:
    sizing = sized(config)
    assert sizing.max_model_len >= 1
    assert sizing.kv_cache_bytes >= 1
