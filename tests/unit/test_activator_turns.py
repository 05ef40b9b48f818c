"""Whose places a start takes whose turn it is."""

from __future__ import annotations

from typing import Any

import pytest

from activator.policy.placement import GIB, Needs, NodeView, Place, Room
from activator.policy.turns import STARTS_STAYED, Terms, bound, claim
from runtime.wire import EngineEnvironment

NOW = 100.0


def node(
    node_id: str = "a", *, committed: int = 8, draining: int = 0, promised: int = 0, connected: bool = True
) -> NodeView:
    return NodeView(
        node_id=node_id,
        connected=connected,
        environment=EngineEnvironment(engine="vllm", version="1", device="cpu"),
        budget_bytes=8 * GIB,
        committed_bytes=committed * GIB,
        draining_bytes=draining * GIB,
        promised_bytes=promised * GIB,
    )


def busy(replica_id: str, gib: int = 2, since: float = 50.0, free_at: float = 60.0, **given: Any) -> Place:
    values: dict[str, Any] = {"node_id": "a", "busy": True, "alone": True} | given
    return Place(replica_id=replica_id, nbytes=gib * GIB, since=since, free_at=free_at, **values)


def parked(replica_id: str, gib: int = 2) -> Place:
    return Place(replica_id=replica_id, node_id="a", nbytes=gib * GIB, since=90.0, parked=True)


def idle(replica_id: str, gib: int = 2) -> Place:
    return Place(replica_id=replica_id, node_id="a", nbytes=gib * GIB, since=90.0)


@pytest.mark.parametrize(
    ("places", "gib", "taken", "reserved", "why"),
    [
        ([busy("r1", since=50.0), busy("r2", since=40.0)], 2, ("r2",), False, "the one that has been there longest"),
        ([busy("r1", since=40.0), idle("r2"), parked("r3")], 2, ("r3",), False, "parked ones first"),
        ([busy("r1", since=40.0), idle("r2")], 2, ("r2",), False, "then idle ones"),
        (
            [busy("r1", since=40.0), busy("r2", alone=False)],
            2,
            ("r2",),
            False,
            "then those of revisions that have several",
        ),
        (
            [busy("r1", since=40.0, free_at=110.0), busy("r2")],
            2,
            ("r2",),
            False,
            "one whose stay is over before one that may not go yet",
        ),
        (
            [busy("r1", free_at=120.0), busy("r2", free_at=110.0)],
            2,
            ("r2",),
            True,
            "reserved: the one that may go first",
        ),
        ([busy("r1", free_at=110.0), busy("r2")], 4, ("r2", "r1"), True, "nobody goes before all may"),
        ([busy("r1", 1, since=10.0), busy("r2", 4)], 4, ("r2",), False, "those that are not needed after all stay"),
        ([busy("r1", 2)], 4, None, False, "all of them would not do"),
        ([busy("r1", 8, node_id="b")], 4, None, False, "on a node that is not known"),
        ([], 0, (), False, "what is not known is tried"),
    ],
)
def test_takes(places: list[Place], gib: int, taken: tuple[str, ...] | None, reserved: bool, why: str) -> None:
    room = claim([node()], Needs(measured_bytes=gib * GIB), places, NOW)
    assert room == (None if taken is None else Room("a", gib * GIB, taken, reserved)), why


def test_of_several_nodes_the_one_where_they_may_go_soonest() -> None:
    places = [busy("r1", free_at=110.0), busy("r2", node_id="b", free_at=105.0), busy("r3", 8, node_id="c")]
    room = claim([node("a"), node("b"), node("c", connected=False)], Needs(measured_bytes=2 * GIB), places, NOW)
    assert room == Room("b", 2 * GIB, ("r2",), reserved=True)


def test_what_drains_counts_and_what_is_promised_does_not() -> None:
    needs = Needs(measured_bytes=2 * GIB)
    assert claim([node(draining=2)], needs, [busy("r1")], NOW) == Room("a", 2 * GIB)
    assert claim([node(draining=2, promised=2)], needs, [busy("r1")], NOW) == Room("a", 2 * GIB, ("r1",))


def test_the_least_stay_and_the_bound() -> None:
    assert Terms(turn=10.0, least_stay=0.0).stay(2.0) == STARTS_STAYED * 2.0
    assert Terms(turn=10.0, least_stay=30.0).stay(2.0) == 30.0
    assert [Terms(turn=10.0, least_stay=0.0).patience(failures) for failures in (0, 1, 2, 99)] == [
        10.0,
        20.0,
        40.0,
        640.0,
    ]
    assert bound(0, 1, turn=10.0, stay=8.0, drain=1.0, start=2.0) == 21.0
    assert bound(4, 2, turn=10.0, stay=8.0, drain=1.0, start=2.0) == 10.0 + 3 * 11.0
