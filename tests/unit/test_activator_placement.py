"""Where a replica starts, and what is said when it cannot."""

from __future__ import annotations

from typing import Any

import pytest

from activator.placement import GIB, Needs, NodeView, Refusal, choose, needs_of
from runtime.wire import EngineEnvironment


def node(node_id: str, *, connected: bool = True, device: Any = "cpu", memory: int = 8, committed: int = 0, standbys: int = 1) -> NodeView:
    return NodeView(
        node_id=node_id,
        connected=connected,
        environment=EngineEnvironment(engine="vllm", version="1", device=device),
        memory_bytes=memory * GIB,
        committed_bytes=committed * GIB,
        standbys_ready=standbys,
    )


@pytest.mark.parametrize(
    ("nodes", "needs", "chosen"),
    [
        ([node("a")], Needs(), "a"),
        ([node("a", connected=False), node("b")], Needs(), "b"),
        ([node("a", device="cuda"), node("b")], Needs(device="cpu"), "b"),
        ([node("a", committed=7), node("b", memory=4)], Needs(memory_bytes=2 * GIB), "b"),
        ([node("a", standbys=0, memory=99), node("b")], Needs(), "b"),
        ([node("a", committed=1), node("b")], Needs(), "b"),
    ],
)
def test_chooses(nodes: list[NodeView], needs: Needs, chosen: str) -> None:
    assert getattr(choose(nodes, needs), "node_id", None) == chosen


@pytest.mark.parametrize(
    ("nodes", "needs", "waits", "says"),
    [
        ([], Needs(), True, "none was ever seen"),
        ([node("a", connected=False)], Needs(), True, "no node is connected (a)"),
        ([node("a")], Needs(device="cuda"), False, "vllm on cpu"),
        ([node("a")], Needs(engine="other"), False, "no node runs other"),
        ([node("a", committed=7)], Needs(memory_bytes=2 * GIB), False, "needs 2.0 GiB and the emptiest node has 1.0 GiB left"),
    ],
)
def test_refuses_with_a_reason(nodes: list[NodeView], needs: Needs, waits: bool, says: str) -> None:
    refusal = choose(nodes, needs)
    assert isinstance(refusal, Refusal)
    assert says in refusal.reason
    assert refusal.waits is waits


def test_needs_come_from_engine_arguments() -> None:
    assert needs_of({"kv_cache_memory_bytes": GIB}).memory_bytes == GIB
    assert needs_of({"kv_cache_memory_bytes": "much"}).memory_bytes == 0
