"""KV cache sizing: enough for one longest sequence, bounded by memory; and what replicas take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.sizing import (
    BLOCK,
    LONGEST_CONTEXT,
    Sizing,
    cache_bytes,
    decide,
    held_bytes,
    held_in,
    needed,
    node_memory,
    own_bytes,
    packed_bytes,
)

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


def test_what_counts_is_what_the_kernel_cannot_take() -> None:
    rollup = (
        "Shared_Clean: 300 kB\nShared_Dirty: 20 kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 90 kB\nAnonymous: 30 kB\nPrivate_Hugetlb: 4 kB\n"
    )
    assert held_in(rollup) == 14 << 10, "neither clean pages of files nor such as the disk does not have yet"


def test_a_cache_counts_once_touched_or_not() -> None:
    assert needed(first=100, now=100, kv_cache_bytes=50, to_pack=0) == 150, "not touched yet"
    assert needed(first=100, now=140, kv_cache_bytes=50, to_pack=0) == 150, "partly"
    assert needed(first=100, now=170, kv_cache_bytes=50, to_pack=0) == 170, "it took more than that"


def test_mapped_weights_count_once_packed_or_not(tmp_path: Path) -> None:
    assert packed_bytes(tmp_path) == packed_bytes(tmp_path / "none") == 0, "nothing is mapped"
    for name, size in (("a.safetensors", 30), ("of-another-version.safetensors", 20), ("b.lock", 99)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert packed_bytes(tmp_path) == 30
    before, after = (needed(first=100, now=now, kv_cache_bytes=50, to_pack=30) for now in (100, 130))
    assert before == after == 180


CODE = """
import mmap, os, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
assert sum(mapped[::4096]) >= 0
held = bytearray(os.urandom(1)) * (32 << 20)
if os.fork() == 0:
    held[: 16 << 20] = bytes(16 << 20)
print(1, flush=True)
sys.stdin.read()
"""


def test_all_processes_of_a_session_are_weighed_together_and_a_forks_parent_with_what_they_share(tmp_path: Path) -> None:
    file = tmp_path / "mapped"
    file.write_bytes(bytes(64 << 20))
    child = subprocess.Popen([sys.executable, "-c", CODE, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdin and child.stdout
    with child:
        assert child.stdout.readline() + child.stdout.readline() == b"1\n1\n"
        held, own = held_bytes([child.pid, 2**31]), own_bytes([child.pid, 2**31])
        child.stdin.close()
    assert 32 << 20 <= held[child.pid] < 64 << 20, "16 MiB each, and no page of the file"
    assert held[2**31] == 0 and own.keys() == {child.pid}
    assert 32 << 20 <= own[child.pid] < 64 << 20, "with the 16 MiB its fork has not written to"


def test_the_memory_of_a_node_is_at_most_the_machines() -> None:
    assert 1 << 20 < node_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
