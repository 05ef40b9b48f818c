"""Where a replica starts, what goes to make room for it, and what is said when it cannot."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.policy.placement import GIB, Needs, NodeView, Place, Refusal, Room, choose, make_room, needs_of
from runtime.wire import EngineEnvironment


def node(
    node_id: str,
    *,
    connected: bool = True,
    device: Any = "cpu",
    budget: int = 8,
    committed: int = 0,
    draining: int = 0,
    promised: int = 0,
    standbys: int = 1,
    standby: int = 0,
) -> NodeView:
    return NodeView(
        node_id=node_id,
        connected=connected,
        environment=EngineEnvironment(engine="vllm", version="1", device=device),
        budget_bytes=budget * GIB,
        committed_bytes=committed * GIB,
        draining_bytes=draining * GIB,
        promised_bytes=promised * GIB,
        standby_bytes=standby * GIB,
        standbys_ready=standbys,
    )


def idle(replica_id: str, gib: int, since: float, node_id: str = "a") -> Place:
    return Place(replica_id=replica_id, node_id=node_id, nbytes=gib * GIB, since=since)


def parked(replica_id: str, gib: int, restart_seconds: float, since: float = 9.0) -> Place:
    return Place(
        replica_id=replica_id, node_id="a", nbytes=gib * GIB, since=since, parked=True, restart_seconds=restart_seconds
    )


def measured(gib: int) -> Needs:
    return Needs(measured_bytes=gib * GIB)


@pytest.mark.parametrize(
    ("nodes", "needs", "chosen"),
    [
        ([node("a")], Needs(), "a"),
        ([node("a", connected=False), node("b")], Needs(), "b"),
        ([node("a", device="cuda"), node("b")], Needs(device="cpu"), "b"),
        ([node("a", committed=7), node("b", budget=4)], measured(2), "b"),
        ([node("a", standbys=0, budget=99), node("b")], Needs(), "b"),
        ([node("a", committed=1), node("b")], Needs(), "b"),
        ([node("a", committed=9)], Needs(), "a"),  # what is not known is tried
        (
            [node("a", device="cuda")],
            Needs(weight_bytes=99 * GIB, kv_cache_bytes=99 * GIB),
            "a",
        ),  # they lie in the device
        ([node("a", committed=7, draining=6, promised=6)], measured(1), "a"),  # takes nothing from the one that waits
    ],
)
def test_chooses(nodes: list[NodeView], needs: Needs, chosen: str) -> None:
    assert getattr(choose(nodes, needs), "node_id", None) == chosen


@pytest.mark.parametrize(
    ("nodes", "needs", "never", "says"),
    [
        ([], Needs(), False, "none was ever seen"),
        ([node("a", connected=False)], Needs(), False, "no node is connected (a)"),
        ([node("a")], Needs(device="cuda"), True, "vllm on cpu"),
        ([node("a")], Needs(engine="other"), True, "no node runs other"),
        ([node("a", device="cuda", connected=False), node("b")], Needs(device="cuda"), False, "connected (a would do)"),
        ([node("a", budget=16, connected=False), node("b")], measured(9), False, "connected (a would do)"),
        ([node("a", connected=False), node("b")], measured(9), True, "needs 9.0 GiB"),
        (
            [node("a", committed=7)],
            measured(2),
            False,
            "memory: 2.0 GiB needed (as the last one was measured), 1.0 GiB of 8.0 GiB free on node a",
        ),
        (
            [node("a")],
            measured(9),
            True,
            "a replica needs 9.0 GiB of memory (as the last one was measured) and node a has at most 8.0 GiB for one",
        ),
        ([node("a", standby=1)], measured(8), True, "node a has at most 7.0 GiB for one: lower kv_cache_memory_bytes"),
        ([node("a")], Needs(weight_bytes=5 * GIB, kv_cache_bytes=4 * GIB), True, "needs 10.0 GiB of memory (estimated"),
        ([node("a", committed=7, draining=6, promised=7)], measured(1), False, "0.0 GiB of 8.0 GiB free"),
    ],
)
def test_refuses_with_a_reason(nodes: list[NodeView], needs: Needs, never: bool, says: str) -> None:
    refusal = choose(nodes, needs)
    assert isinstance(refusal, Refusal)
    assert says in refusal.reason
    assert refusal.never is never
    assert refusal.short is ("GiB" in says and not never)


@pytest.mark.parametrize(
    ("nodes", "spare", "gib", "room", "why"),
    [
        ([node("a", committed=8)], [], 1, None, "nothing there to end"),
        ([node("a", committed=8, draining=2)], [idle("r1", 2, 1.0)], 2, ("a", ()), "what drains is enough"),
        (
            [node("a", committed=8, draining=2, promised=2)],
            [idle("r1", 2, 1.0)],
            2,
            ("a", ("r1",)),
            "that is promised to another",
        ),
        ([node("a", committed=8)], [idle("r1", 2, 2.0), idle("r2", 2, 1.0)], 1, ("a", ("r2",)), "the longest idle"),
        (
            [node("a", committed=8)],
            [idle("r1", 1, 1.0), idle("r2", 4, 2.0)],
            3,
            ("a", ("r2",)),
            "the smaller one is not needed after all",
        ),
        (
            [node("a", committed=8)],
            [idle("r1", 0, 1.0), idle("r2", 1, 2.0)],
            1,
            ("a", ("r2",)),
            "one that frees nothing stays",
        ),
        (
            [node("a", committed=8)],
            [idle("r1", 1, 1.0), idle("r2", 1, 2.0)],
            3,
            None,
            "all of them would not do: none is touched",
        ),
        (
            [node("a", committed=8), node("b", committed=8)],
            [idle("r1", 2, 9.0, "b")],
            2,
            ("b", ("r1",)),
            "on the node where it is",
        ),
        (
            [node("a", committed=8)],
            [idle("r1", 2, 1.0), parked("r2", 2, 5.0)],
            1,
            ("a", ("r2",)),
            "a parked one before one that serves",
        ),
        (
            [node("a", committed=8)],
            [parked("r1", 2, 5.0, 1.0), parked("r2", 2, 1.0)],
            1,
            ("a", ("r2",)),
            "the cheapest to climb again",
        ),
        (
            [node("a", committed=8)],
            [parked("r1", 2, 1.0, 8.0), parked("r2", 2, 1.0, 7.0)],
            1,
            ("a", ("r2",)),
            "the longest parked",
        ),
        (
            [node("a", committed=8)],
            [idle("r1", 4, 1.0), parked("r2", 1, 1.0)],
            3,
            ("a", ("r1",)),
            "one that would not do stays",
        ),
        ([node("a", committed=8, connected=False)], [idle("r1", 8, 1.0)], 1, None, "not on a node that is away"),
    ],
)
def test_makes_room(
    nodes: list[NodeView], spare: list[Place], gib: int, room: tuple[str, tuple[str, ...]] | None, why: str
) -> None:
    found = make_room(nodes, measured(gib), spare)
    assert (found and (found.node_id, found.evicted)) == room, why


@given(
    budget=st.integers(0, 20),
    committed=st.integers(0, 24),
    draining=st.integers(0, 8),
    promised=st.integers(0, 8),
    spare=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5)), max_size=6),
    gib=st.integers(0, 12),
)
def test_a_start_fits_or_evicts_or_has_a_reason(
    budget: int, committed: int, draining: int, promised: int, spare: list[tuple[int, int]], gib: int
) -> None:
    there = node("a", budget=budget, committed=committed, draining=min(draining, committed), promised=promised)
    candidates = [idle(f"r{n}", size, float(since)) for n, (size, since) in enumerate(spare)]
    sizes = {one.replica_id: one.nbytes for one in candidates}
    soon = there.soon_left
    match choose([there], measured(gib)):
        case NodeView():
            assert gib == 0 or (gib * GIB <= there.budget_bytes - there.committed_bytes and gib * GIB <= soon)
        case Refusal() as refusal:
            assert refusal.short is not refusal.never and refusal.reason
            assert refusal.never is (gib > budget), "only what asks for more than there is can never fit"
            if refusal.never:
                return
            room = make_room([there], measured(gib), candidates)
            if room is None:
                assert soon + sum(sizes.values()) < gib * GIB, "all of them would have made room"
            else:
                assert isinstance(room, Room)
                freed = sum(sizes[evicted] for evicted in room.evicted)
                assert soon + freed >= gib * GIB, "room that is none"
                for fewer in combinations(room.evicted, max(0, len(room.evicted) - 1)):
                    assert not room.evicted or soon + sum(map(sizes.__getitem__, fewer)) < gib * GIB, (
                        "one was evicted for nothing"
                    )


def test_a_standby_of_its_own_counts_with_it() -> None:
    there = replace(node("a", committed=4), beside_bytes=GIB)
    assert choose([there], measured(4)) == there
    refusal = choose([there], replace(measured(4), beside=True))
    assert isinstance(refusal, Refusal) and refusal.short and "5.0 GiB needed" in refusal.reason


def test_needs_come_from_engine_arguments_and_the_last_replica() -> None:
    assert needs_of({"kv_cache_memory_bytes": GIB}).on("cpu") == GIB
    assert needs_of({"kv-cache-memory-bytes": GIB}, weight_bytes=10).on("cpu") == GIB + 12
    assert needs_of({"kv_cache_memory_bytes": "much"}).on("cpu") == 0
    assert needs_of({"kv_cache_memory_bytes": GIB}, measured_bytes=5, weight_bytes=10).on("cpu") == 5
    assert needs_of({"kv_cache_memory_bytes": GIB}, weight_bytes=10).on("cuda") == 0
