"""Where vLLM's caches lie."""

from __future__ import annotations

from pathlib import Path

from runtime.engine.caches import environment


def test_on_a_gpu_caches_lie_beside_the_baked_copies_of_their_snapshot() -> None:
    baked = Path("/state/baked/sha256-1")
    found = environment(baked, device="cuda", engine="0.32.0", torch="2.13.0")
    assert Path(found["VLLM_CACHE_ROOT"]).parent == baked
    assert found["VLLM_ENABLE_STARTUP_PLAN"] == "1"


def test_another_engine_or_another_torch_never_meets_them() -> None:
    baked = Path("/state/baked/sha256-1")
    versions = [("0.32.0", "2.13.0"), ("0.33.0", "2.13.0"), ("0.32.0", "2.14.0")]
    assert len({environment(baked, device="cuda", engine=engine, torch=torch)["VLLM_CACHE_ROOT"] for engine, torch in versions}) == 3


def test_on_a_cpu_there_is_nothing_to_keep() -> None:
    assert environment(Path("/state/baked/sha256-1"), device="cpu", engine="0.32.0", torch="2.13.0") == {}
