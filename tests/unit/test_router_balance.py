"""Step 5: which replica gets the next request, and how long what waits for a start is told to wait."""

from __future__ import annotations

import random
from collections import Counter

from activator.policy.lifecycle import Replica as Known
from activator.state.queue_depths import QueueDepths
from router.hold.hold import FULL_RETRY_SECONDS
from router.hold.replicas import LEAST_REMAINING_SECONDS, pick
from router.hold.slot import Slot
from tests.fakes_router import Caller, Rig, replica, row


def ask(rig: Rig) -> Slot:
    slot = rig.hold.ask(rig.revision, Caller(rig.clock))
    assert slot is not None
    return slot


def test_the_least_deep_is_chosen_counting_what_others_have() -> None:
    rig = Rig()
    rig.show(row(replica("a", slots=4), replica("b", slots=4)))
    rig.table.others({"a": 4}, 2)
    assert [ask(rig).replica.row.replica_id for _ in range(2)] == ["b", "b"]
    assert Counter(ask(rig).replica.row.replica_id for _ in range(4)) == {"a": 2, "b": 2}, (
        "half of the others' four have been made up for"
    )


def test_of_equals_it_is_not_always_the_first() -> None:
    rig = Rig()
    rig.show(row(*(replica(name) for name in "abc")))
    picked = Counter(
        found.row.replica_id for _ in range(600) if (found := pick(rig.revision.replicas.values(), random.random))
    )
    assert set(picked) == {"a", "b", "c"} and min(picked.values()) > 100


def test_what_others_have_never_makes_a_free_slot_vanish() -> None:
    rig = Rig()
    rig.show(row(replica("a", slots=1), replica("b", slots=1)))
    rig.table.others({"a": 1000, "b": 3, "gone": 7}, 2)
    assert [ask(rig).replica.row.replica_id for _ in range(2)] == ["b", "a"]


def test_what_others_had_is_forgotten_when_nobody_tells_any_more() -> None:
    rig = Rig()
    rig.show(row(replica("a"), replica("b")))
    rig.table.others({"a": 10}, 2)
    rig.show(row(replica("a"), replica("b")))  # a row says nothing of depth
    assert rig.revision.replicas["a"].others == 5
    rig.table.others({"a": 0, "b": 4}, 2)
    assert [replica.others for replica in rig.revision.replicas.values()] == [0, 2]
    rig.table.others_unknown()
    assert [replica.others for replica in rig.revision.replicas.values()] == [0, 0]


def test_what_others_had_is_taken_back_though_the_sibling_is_gone_already() -> None:
    rig = Rig()
    rig.show(row(replica("a"), replica("b")))
    rig.table.others({"a": 10, "b": 2}, 2)
    rig.show(row(replica("a")))  # at once; what is taken back comes with the next tick
    rig.table.others({"a": 0, "b": 0}, 2)
    rig.show(row(replica("a"), replica("c")))
    assert [each.others for each in rig.revision.replicas.values()] == [0, 0]


def test_a_router_more_or_less_weighs_what_was_told_before_anew() -> None:
    rig = Rig()
    rig.show(row(replica("a"), replica("b")))
    rig.table.others({"a": 12, "b": 6}, 2)
    rig.table.others({"b": 9}, 3)
    assert [each.others for each in rig.revision.replicas.values()] == [4, 3]
    rig.table.others({}, 2)
    assert [each.others for each in rig.revision.replicas.values()] == [6, 4.5]


def test_a_row_lifts_dead_and_not_full() -> None:
    """It says that the replica runs, and nothing of who is in its slots; a full one is asked again soon by itself."""
    rig = Rig()
    rig.show(row(replica("a")))
    for mark, held in (("dead", False), ("full", True)):
        caller = Caller(rig.clock)
        slot = rig.hold.ask(rig.revision, caller)
        assert slot is not None
        slot.give_back(caller, mark)  # type: ignore[arg-type]
        rig.show(row(replica("a")))
        assert (caller.held_in is not None) is held
        rig.clock.advance(FULL_RETRY_SECONDS)
        assert caller.held_in is None
        caller.slots.pop().release()


def test_own_requests_are_told_where_there_is_a_choice() -> None:
    rig = Rig()
    rig.show(row(replica("a", slots=4)))
    ask(rig)
    assert rig.table.in_flight() == {}
    rig.show(row(replica("a", slots=4), replica("b", slots=4)))
    ask(rig)
    ask(rig)
    assert sum(rig.table.in_flight().values()) == 3 and set(rig.table.in_flight()) == {"a", "b"}


def test_two_routers_split_what_comes_between_two_replicas() -> None:
    """Each by itself balances its own; what one has piled up where the other does not see it is levelled by what is
    told.
    """
    routers = {1: Rig(), 2: Rig()}
    for rig in routers.values():
        rig.show(row(replica("a", slots=100), replica("b", slots=100)))
    gates = {
        name: Known(replica_id=name, revision_id="r1", org_id="o", node_id="n", started_at=0, state="ready")
        for name in "ab"
    }
    book = QueueDepths()
    for connection in routers:
        book.join(connection, {"r1"})

    def tell() -> None:
        """What gates and routers say reaches the activator, and what it makes of that the routers."""
        for name, gate in gates.items():
            gate.in_flight = sum(rig.revision.replicas[name].in_flight for rig in routers.values())
        book.touch("r1")
        for connection, rig in routers.items():
            book.reported(connection, rig.table.in_flight(), lambda _: "r1")
        for connection, frame in book.updates(lambda _: gates.values()):
            routers[connection].table.others(frame.others, frame.routers)

    held = [ask(routers[1]) for _ in range(20)]
    for slot in held:
        if slot.replica.row.replica_id == "b":
            slot.release()  # long streams: all that stays is in one
    tell()
    found = Counter(ask(routers[2]).replica.row.replica_id for _ in range(5))
    assert found == {"b": 5}, "without it the second router would see two empty replicas"
    for _ in range(40):
        tell()
        ask(routers[1])
        ask(routers[2])
    tell()
    assert abs(gates["a"].in_flight - gates["b"].in_flight) <= 2
    assert not list(book.updates(lambda _: gates.values())), "when things stand still, nothing is told"


def test_the_rest_of_a_start_is_what_is_expected_less_what_has_passed_and_never_nothing() -> None:
    rig = Rig()
    rig.show(row(expected_seconds=8.0))
    assert rig.revision.retry_after(rig.clock.now) == 8.0, "the next one's, whole"
    rig.show(row(expected_seconds=8.0, starting=True))
    rig.clock.advance(1.0)
    assert rig.revision.remaining(rig.clock.now) == 7.0
    rig.show(row(expected_seconds=8.0, starting=True, phase="load", phase_began_seconds=3.0))
    rig.clock.advance(1.0)
    # a row that says nothing new of it
    rig.show(row(expected_seconds=8.0, starting=True, phase="load", phase_began_seconds=3.0))
    assert rig.revision.remaining(rig.clock.now) == 4.0
    rig.clock.advance(4.5)
    assert 0.1 <= rig.revision.remaining(rig.clock.now) < 1.0
    rig.clock.advance(91.5)
    assert rig.revision.remaining(rig.clock.now) == 10.0, "it has taken 100 s"
    rig.show(row(expected_seconds=8.0))
    assert rig.revision.remaining(rig.clock.now) == 8.0
    rig.show(row(expected_seconds=0.05, starting=True))
    rig.clock.advance(0.05)
    assert rig.revision.remaining(rig.clock.now) == LEAST_REMAINING_SECONDS
    rig.show(row(failure="no", retry_after_seconds=30.0, expected_seconds=8.0))
    assert rig.revision.retry_after(rig.clock.now) == 30.0
