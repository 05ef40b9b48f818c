"""Where vLLM's caches lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime.engine.caches import environment, of_this_hardware

BAKED = Path("/state/baked/sha256-1")


def root(**other: Any) -> str:
    given = {
        "device": "cuda",
        "hardware": "NVIDIA H200 9.0",
        "engine": "0.32.0",
        "torch": "2.13.0",
        "arguments": {},
    } | other
    return environment(BAKED, **given)["VLLM_CACHE_ROOT"]


def test_on_a_gpu_caches_lie_beside_the_baked_copies_of_their_snapshot() -> None:
    found = environment(BAKED, device="cuda", hardware="", engine="0.32.0", torch="2.13.0", arguments={})
    assert Path(found["VLLM_CACHE_ROOT"]).parent == BAKED
    assert found["VLLM_ENABLE_STARTUP_PLAN"] == "1"


@pytest.mark.parametrize(
    "other",
    [
        {"engine": "0.33.0"},
        {"torch": "2.14.0"},
        {"hardware": "NVIDIA L4 8.9"},
        {"arguments": {"dtype": "float16"}},
        {"arguments": {"tensor-parallel-size": 2}},
    ],
)
def test_what_was_compiled_for_something_else_is_never_met(other: dict[str, Any]) -> None:
    assert root(**other) != root()


def test_what_compiles_nothing_else_changes_nothing() -> None:
    assert root(arguments={"max-num-seqs": 4, "dtype": "auto"}) == root()


def test_on_a_cpu_there_is_nothing_to_keep() -> None:
    assert environment(BAKED, device="cpu", hardware="", engine="0.32.0", torch="2.13.0", arguments={}) == {}


def test_a_canary_recorded_on_other_hardware_is_another_ones() -> None:
    record = Path("/state/canaries/0123.json")
    here = of_this_hardware(record, "AVX512")
    assert here.parent == record.parent and here.name.startswith("0123-") and here.suffix == ".json"
    assert here == of_this_hardware(record, "AVX512")
    assert len({here, record, of_this_hardware(record, "AVX2"), of_this_hardware(record, "NVIDIA L4 8.9")}) == 4
