"""Step 5: the hold's decisions one by one, in simulated time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.wire import EndpointRow, ReplicaRow, Table
from router.errors import EndpointPaused, HoldTimeout, ModelNotFound, QueueFull, StartFailed
from router.hold.table import Stale
from tests.fakes_router import Caller, Rig, replica, row


def test_a_free_slot_is_granted_at_once() -> None:
    rig = Rig()
    rig.show(row(replica(slots=2)))
    assert rig.ask().slots
    assert rig.revision.demand == 1
    assert rig.changes == [("r1", False)]


def test_the_first_waiter_is_urgent_the_next_is_not() -> None:
    rig = Rig()
    rig.show(row())
    rig.ask()
    rig.ask()
    assert rig.changes == [("r1", True), ("r1", False)]
    assert rig.table.requests() == {"r1": 2}


def test_as_many_are_woken_as_there_are_slots_in_order() -> None:
    rig = Rig()
    rig.show(row())
    callers = [rig.ask() for _ in range(5)]
    rig.show(row(replica(slots=3)))
    assert [len(caller.slots) for caller in callers] == [1, 1, 1, 0, 0]
    callers[1].slots[0].release()
    assert [len(caller.slots) for caller in callers] == [1, 1, 1, 1, 0]


def test_a_slot_is_released_once() -> None:
    rig = Rig()
    rig.show(row(replica(slots=2)))
    caller = rig.ask()
    for _ in range(3):
        caller.slots[0].release()
    caller.slots[0].give_back(caller, "full")
    assert rig.revision.replicas["p1"].in_flight == rig.revision.demand == 0


def test_a_request_takes_as_many_slots_as_it_has_sequences() -> None:
    rig = Rig()
    rig.show(row(replica(slots=4), slots=4))
    heavy, light = rig.ask(sequences=3), [rig.ask() for _ in range(3)]
    assert heavy.slots and [len(each.slots) for each in light] == [1, 0, 0]
    assert (rig.revision.demand, rig.revision.replicas["p1"].in_flight) == (6, 4)
    heavy.slots[0].release()
    assert [len(each.slots) for each in light] == [1, 1, 1]
    assert (rig.revision.demand, rig.revision.replicas["p1"].in_flight) == (3, 3)


def test_one_with_more_sequences_than_slots_takes_all_of_them_and_waits_for_one() -> None:
    """Were it to wait until all are free, one long answer would hold it up, and everybody behind it."""
    rig = Rig()
    rig.show(row(replica(slots=4), slots=4))
    running, heavy, behind = rig.ask(), rig.ask(sequences=128), rig.ask()
    assert heavy.slots and not behind.slots
    assert rig.revision.demand == 1 + 4 + 1, (
        "more than a replica's slots are no demand for another replica: it runs in one"
    )
    running.slots[0].release()
    assert not behind.slots
    heavy.slots[0].release()
    assert behind.slots


def test_a_key_that_fills_all_slots_shares_them_once_another_asks() -> None:
    rig = Rig()
    rig.show(row(replica(slots=4), max_held=50))
    flood, other = [rig.ask(user="a") for _ in range(10)], [rig.ask(user="b") for _ in range(2)]
    for caller in flood[:2]:
        caller.slots[0].release()
    assert [len(each.slots) for each in other] == [1, 1], "before those of a that have waited longer"
    for caller in flood[2:4]:
        caller.slots[0].release()
    assert sum(len(each.slots) for each in flood) == 4 + 2, "and a has the rest"


def test_a_key_that_fills_the_queue_makes_way_for_another() -> None:
    rig = Rig()
    rig.show(row(max_held=4))
    flood = [rig.ask(user="a") for _ in range(4)]
    with pytest.raises(QueueFull):
        rig.ask(user="a")
    other = [rig.ask(user="b") for _ in range(2)]
    assert [bool(each.errors) for each in flood] == [False, False, True, True], "the youngest go"
    assert not any(each.errors for each in other)
    with pytest.raises(QueueFull):
        rig.ask(user="b")
    assert len(rig.revision.waiting) == 4


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60)), min_size=1, max_size=12),
    st.tuples(st.sampled_from("abcd"), st.integers(0, 120)),
    st.integers(1, 8),
)
def test_who_is_refused_has_sent_nobody_away(waits: list[tuple[str, int]], new: tuple[str, int], max_held: int) -> None:
    """Whether the bound of the queue, of bytes, or of both is what refuses."""
    rig = Rig(max_bytes=100)
    rig.show(row(max_held=max_held))
    held: list[Caller] = []
    for user, size in [*waits, new]:
        before = [each for each in held if not each.errors]
        try:
            held.append(rig.ask(user=user, size=size))
        except QueueFull:
            assert [each for each in held if not each.errors] == before
        assert len(rig.revision.waiting) <= max_held and rig.hold.held_bytes <= 100


def test_one_that_finds_no_bytes_leaves_the_youngest_in_its_place() -> None:
    rig = Rig(max_bytes=100)
    rig.show(row(max_held=4))
    flood = [rig.ask(user="a", size=1) for _ in range(4)]
    with pytest.raises(QueueFull, match="bytes"):
        rig.ask(user="b", size=101)
    assert not any(each.errors for each in flood)


def test_the_least_busy_replica_is_taken() -> None:
    rig = Rig()
    rig.show(row(replica("a", 4), replica("b", 4)))
    taken = [rig.ask().slots[0].replica.row.replica_id for _ in range(4)]
    assert set(taken[:2]) == set(taken[2:]) == {"a", "b"}


def test_bounds_by_count_and_by_bytes() -> None:
    rig = Rig(max_bytes=100)
    rig.show(row(max_held=2, expected_seconds=7.0))
    rig.ask(size=60)
    with pytest.raises(QueueFull, match="bytes"):
        rig.ask(size=60)
    rig.ask(size=40)
    with pytest.raises(QueueFull, match="2 requests") as caught:
        rig.ask(size=0)
    assert caught.value.retry_after == 7.0
    rig.clock.advance(31)
    assert rig.hold.held_bytes == 0


def test_the_deadline() -> None:
    rig = Rig()
    rig.show(row(starting=True))
    short, long = rig.ask(seconds=2), rig.ask(seconds=10)
    rig.clock.advance(2)
    assert isinstance(short.errors[0], HoldTimeout)
    assert not long.errors
    rig.show(row(replica()))
    assert long.slots
    rig.clock.advance(100)
    assert not long.errors


def test_who_leaves_is_forgotten() -> None:
    rig = Rig()
    rig.show(row())
    first, second = rig.ask(), rig.ask()
    first.left = True
    rig.hold.leave(first)
    rig.hold.leave(first)
    rig.show(row(replica()))
    assert second.slots
    assert rig.revision.demand == 1


def test_back_at_the_head_and_the_replica_rests_a_moment() -> None:
    rig = Rig()
    rig.show(row(replica(slots=4)))
    first = rig.ask()
    rig.revision.replicas["p1"].full = True
    second = rig.ask()
    first.slots.pop().give_back(first, "full")
    assert list(rig.revision.waiting) == [first, second]
    rig.clock.advance(0.05)
    assert first.slots
    assert second.slots


def test_an_end_at_a_full_replica_wakes_at_once() -> None:
    rig = Rig()
    rig.show(row(replica(slots=4)))
    running, first = rig.ask(), rig.ask()
    first.slots.pop().give_back(first, "full")
    assert not first.slots
    running.slots[0].release()
    assert first.slots


def test_a_return_over_the_bound_costs_the_youngest_its_place() -> None:
    rig = Rig()
    rig.show(row(replica(), max_held=2))
    first = rig.ask()
    second, third = rig.ask(), rig.ask()
    first.slots.pop().give_back(first, "dead")
    assert isinstance(third.errors[0], QueueFull)
    assert list(rig.revision.waiting) == [first, second]


def test_a_dead_replica_is_left_alone_until_its_next_row() -> None:
    rig = Rig()
    rig.show(row(replica()))
    caller = rig.ask()
    caller.slots.pop().give_back(caller, "dead")
    rig.clock.advance(0.5)
    assert not caller.slots
    rig.show(row(replica()))
    assert caller.slots


def test_a_start_that_cannot_succeed_fails_all() -> None:
    rig = Rig()
    rig.show(row())
    callers = [rig.ask(), rig.ask()]
    rig.show(row(failure="out of memory: needs 9 GB, has 4", retry_after_seconds=12.0))
    for caller in callers:
        assert isinstance(caller.errors[0], StartFailed)
        assert "needs 9 GB" not in caller.errors[0].message, (
            "a caller is told where its operator finds the reason, and not the reason"
        )
        assert "pilotlight ps" in caller.errors[0].message and "(revision r1)" in caller.errors[0].message
        assert caller.errors[0].retry_after == 12.0
    with pytest.raises(StartFailed):
        rig.ask()


def test_a_failure_beside_a_replica_that_serves_fails_nobody() -> None:
    rig = Rig()
    rig.show(row(replica()))
    rig.ask()
    waiting = rig.ask()
    rig.show(row(replica(), failure="no room for a second"))
    assert not waiting.errors


def test_what_waits_for_a_removed_endpoint_is_refused() -> None:
    rig = Rig()
    rig.show(row())
    caller = rig.ask()
    rig.show(removed=("tiny",))
    assert isinstance(caller.errors[0], ModelNotFound)


def test_what_waits_follows_the_route() -> None:
    rig = Rig()
    rig.show(row())
    callers = [rig.ask() for _ in range(3)]
    rig.show(row(replica(slots=2), revisions=("r2",)))
    assert [len(caller.slots) for caller in callers] == [1, 1, 0]
    assert callers[2].held_in is rig.table.revisions["r2"]
    assert rig.table.requests() == {"r2": 3}
    assert "r1" not in rig.table.revisions


def test_a_retired_revision_counts_until_its_last_request_ends() -> None:
    rig = Rig()
    rig.show(row(replica()))
    caller = rig.ask()
    rig.show(row(revisions=("r2",)))
    assert rig.table.requests() == {"r1": 1}
    caller.slots[0].release()
    assert rig.table.requests() == {}
    rig.show(row(revisions=("r2",)))
    assert set(rig.table.revisions) == {"r2"}


def test_ten_thousand_that_end_at_once_do_not_recurse() -> None:
    rig = Rig()
    rig.show(row(max_held=10_000))
    callers = [rig.ask() for _ in range(10_000)]
    for caller in callers:
        caller.release_at_once = True
    rig.show(row(replica(), max_held=10_000))
    assert all(len(caller.slots) == 1 for caller in callers)
    assert rig.revision.demand == 0


def test_older_tables_are_refused() -> None:
    rig = Rig()
    with pytest.raises(Stale, match="before any whole"):
        rig.table.apply(Table(epoch=1, sequence=1, whole=False))
    rig.show(row())
    rig.show(row(replica()))
    for epoch, sequence in ((1, 1), (0, 9)):
        with pytest.raises(Stale, match="older"):
            rig.table.apply(Table(epoch=epoch, sequence=sequence, whole=True))
    assert rig.revision.replicas
    rig.table.apply(Table(epoch=2, sequence=0, whole=True))
    assert not rig.table.endpoints


def test_a_replica_that_was_parked_takes_requests_again_even_by_a_router_that_was_away_meanwhile() -> None:
    rig = Rig()
    rig.show(row(replica(draining=True)))
    waiter = rig.ask()
    assert not waiter.slots
    rig.show(row(replica().model_copy(update={"cold_start_id": "p1.1"})))
    assert waiter.slots, "another climb: its draining was of the last one"


def test_a_replica_keeps_its_count_over_tables_and_draining_never_ends() -> None:
    rig = Rig()
    rig.show(row(replica(slots=2)))
    rig.ask()
    rig.show(row(replica(slots=2, draining=True)))
    rig.show(row(replica(slots=2)))
    assert rig.revision.replicas["p1"].in_flight == 1
    assert not rig.revision.replicas["p1"].free


def test_the_route_is_followed_by_weight() -> None:
    rig = Rig()
    split = row(replica(), revisions=("r1", "r2")).model_copy(update={"route": (("r1", 75), ("r2", 25), ("r3", 0))})
    rig.show(split)
    endpoint = rig.table.endpoints["tiny"]
    chosen = [endpoint.routed(roll / 100) for roll in range(100)]
    assert [revision.revision_id for revision in chosen if revision].count("r1") == 75
    assert None not in chosen
    rig.show(split.model_copy(update={"route": ()}))
    assert endpoint.routed(0.5) is None


def two(first: ReplicaRow, *, starting: bool = False, routed: str = "r2", second: int = 1) -> EndpointRow:
    """An endpoint whose route leads to r2 now, with a replica of r1 left."""
    made = row(first, starting=starting)
    other = made.revisions[0].model_copy(
        update={"revision_id": "r2", "replicas": (replica("p2", slots=second),), "starting": False}
    )
    return made.model_copy(update={"route": ((routed, 100),), "revisions": (made.revisions[0], other)})


def test_what_waits_where_no_route_leads_any_more_goes_on_where_it_leads_once_only_drains_are_left() -> None:
    rig = Rig()
    rig.show(row(replica(slots=1)))
    first, second = rig.ask(), rig.ask()
    assert first.slots and not second.slots
    rig.show(two(replica(slots=1)))
    assert not second.slots, "what it waits for serves still"
    rig.show(two(replica(slots=1, draining=True)))
    assert second.slots and second.slots[0].replica.row.replica_id == "p2"
    assert first.slots[0].replica.row.replica_id == "p1" and not first.errors


def test_a_leader_that_has_just_taken_over_says_who_drains() -> None:
    rig = Rig()
    rig.show(row(replica(slots=4)))
    rig.show(row(replica(slots=4, draining=True)))
    rig.show(row(replica(slots=4)), whole=True)
    assert not rig.ask().slots, "of the same leader: draining never ends but in the end"
    rig.table.apply(Table(epoch=2, sequence=1, whole=True, endpoints=(row(replica(slots=4)),)))
    assert rig.ask().slots


def test_a_paused_endpoint_refuses_whoever_calls_and_whoever_waits_also_while_something_still_runs() -> None:
    rig = Rig()
    rig.show(row(replica(slots=1)))
    running, waiting = rig.ask(), rig.ask()
    assert running.slots and not waiting.slots
    rig.show(row(replica(slots=1)).model_copy(update={"paused": True}))
    (error,) = waiting.errors
    assert (
        isinstance(error, EndpointPaused)
        and (error.status, error.code) == (503, "endpoint_paused")
        and "'tiny' is paused" in str(error)
    )
    running.slots[0].release()
    with pytest.raises(EndpointPaused):
        rig.ask()
    rig.show(row(replica(slots=1)))
    assert rig.ask().slots
