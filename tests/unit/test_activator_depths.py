"""What others have in a replica: told where it can matter, taken back when it does not, never a router's own
requests.
"""

from __future__ import annotations

from activator.policy.lifecycle import Replica
from activator.state.progress import SLOW_SECONDS, ProgressBook, StartProgress, progress_of
from activator.state.queue_depths import QueueDepths
from runtime.wire import Phase


def replica(name: str, in_flight: int = 0, **given: object) -> Replica:
    values = {
        "replica_id": name,
        "revision_id": "v",
        "org_id": "o",
        "node_id": "n",
        "started_at": 0.0,
        "state": "ready",
    }
    return Replica(**values | {"in_flight": in_flight} | given)  # type: ignore[arg-type]


class Rig:
    def __init__(self, *replicas: Replica) -> None:
        self.replicas = {each.replica_id: each for each in replicas}
        self.book = QueueDepths()
        for connection in (1, 2):
            self.book.join(connection, {"v"})

    def said(self, connection: int, **own: int) -> None:
        self.book.reported(connection, own, lambda replica_id: "v" if replica_id in self.replicas else None)

    def sent(self) -> dict[int, dict[str, int]]:
        return {
            connection: frame.others
            for connection, frame in self.book.updates(lambda revision_id: self.replicas.values())
        }


def test_each_router_hears_what_the_others_have_and_each_number_once() -> None:
    rig = Rig(replica("a", 5), replica("b"))
    rig.said(1, a=3)
    assert rig.sent() == {1: {"a": 2}, 2: {"a": 5}}
    assert rig.sent() == {}
    rig.said(2, a=2)
    assert rig.sent() == {2: {"a": 3}}, "what was its own in truth"
    rig.book.touch("v")
    assert rig.sent() == {}
    rig.replicas["a"].in_flight = 3  # the second one's ended
    rig.said(2)
    rig.book.touch("v")
    assert rig.sent() == {1: {"a": 0}}


def test_a_report_older_than_a_router_s_own_word_is_no_negative_number() -> None:
    rig = Rig(replica("a", 1), replica("b", 4))
    rig.said(1, a=6)
    assert rig.sent()[1] == {"b": 4}


def test_nothing_is_told_of_a_choice_nobody_has() -> None:
    rig = Rig(replica("a", 5))
    assert rig.sent() == {}
    rig.replicas["b"] = replica("b", state="draining")
    rig.book.touch("v")
    assert rig.sent() == {}
    rig.replicas["b"].state = "ready"
    rig.book.touch("v")
    assert rig.sent() == {1: {"a": 5}, 2: {"a": 5}}
    rig.replicas["b"].state = "parked"
    rig.book.touch("v")
    assert rig.sent() == {1: {"a": 0}, 2: {"a": 0}}


def test_who_is_alone_in_the_end_hears_of_nobody_else() -> None:
    rig = Rig(replica("a", 5), replica("b"))
    assert rig.sent()[1] == {"a": 5}
    rig.book.leave(2)
    assert rig.sent() == {1: {"a": 0}}
    rig.book.join(3, {"v"})
    assert rig.sent() == {1: {"a": 5}, 3: {"a": 5}}


def test_one_that_comes_back_knows_nothing() -> None:
    rig = Rig(replica("a", 5), replica("b"))
    rig.sent()
    rig.book.leave(2)
    rig.book.join(4, {"v"})
    assert rig.sent() == {4: {"a": 5}}


def test_a_router_more_is_told_to_all_who_weigh_what_others_have_by_it() -> None:
    rig = Rig(replica("a", 5), replica("b"))
    rig.said(1, a=5)
    assert rig.sent() == {2: {"a": 5}}
    rig.book.join(3, {"v"})
    frames = {
        connection: (frame.others, frame.routers)
        for connection, frame in rig.book.updates(lambda _: rig.replicas.values())
    }
    assert frames == {2: ({}, 3), 3: ({"a": 5}, 3)}, "the first was told of nothing, so there is nothing to weigh"
    rig.book.leave(3)
    assert {connection: frame.routers for connection, frame in rig.book.updates(lambda _: rig.replicas.values())} == {
        2: 2
    }
    assert rig.sent() == {}


def phases(*names: str) -> tuple[Phase, ...]:
    return tuple(Phase(name=name, at=0.0, seconds=0.25) for name in names)  # type: ignore[arg-type]


def test_the_phase_is_the_one_after_the_last_that_is_finished() -> None:
    steps = [
        progress_of(replica("a", place=phases("place"), phases=phases(*done)))
        for done in ([], ["fetch", "spawn"], ["fetch", "spawn", "load"])
    ]
    assert steps == [StartProgress("fetch", 0.25), StartProgress("load", 0.75), StartProgress("init", 1.0)]
    assert progress_of(replica("a")).phase == "place"
    unparking = [
        progress_of(replica("a", rung="parked", place=phases("place"), phases=phases(*done))).phase
        for done in ([], ["spawn"], ["spawn", "init"])
    ]
    assert unparking == ["spawn", "init", "canary"]


def test_a_fetch_goes_on_while_what_has_come_is_loaded() -> None:
    one = replica("a", rung="stored", place=phases("place"), phases=phases("spawn", "load"), fetched=0.637)
    assert progress_of(one) == StartProgress("fetch", 0.75, 0.64)
    one.phases = phases("spawn", "load", "fetch")
    assert progress_of(one) == StartProgress("init", 1.0)


def test_a_start_is_told_of_once_it_lasts_and_then_phase_by_phase() -> None:
    progress, one = ProgressBook(), replica("a", state="starting", place=phases("place"))
    assert progress.look([one], (), SLOW_SECONDS - 0.01) == set()
    assert progress.look([one], (), SLOW_SECONDS) == {"v"} and progress.shown == {"v": StartProgress("fetch", 0.25)}
    assert progress.look([one], (), 2.0) == set()
    one.phases = phases("fetch")
    assert progress.look([one, replica("b", state="starting", started_at=0.5)], ("w",), 2.5) == {"v", "w"}
    assert progress.shown == {"v": StartProgress("spawn", 0.5), "w": StartProgress("place", 0.0)}, (
        "of two, the one that began first"
    )
    assert progress.look([], (), 3.0) == {"v", "w"} and not progress.shown
