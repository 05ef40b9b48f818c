"""What must not grow with the number of endpoints: telling demand, looking up, and hearing of others."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from activator.state.demand import DemandBook as ActivatorsBook
from activator.state.queue_depths import DepthBook
from activator.wire import Demand
from pilotlight.frames import Frame
from router.hold.activator_link import DemandBook
from router.hold.hold import Hold
from router.hold.table import RouteTable
from tests.unit.test_router_hold import Caller, FakeClock, Rig, replica, row

NAMES = "abc"


class Told(Rig):
    """A router's rig whose demand an activator hears; `partial`: one of this release."""

    def __init__(self, *, partial: bool = True) -> None:
        self.clock = FakeClock()
        self.frames: list[Demand] = []
        self.demand = DemandBook(clock=self.clock)
        self.hold = Hold(clock=self.clock, max_bytes=1 << 20, changed=self.demand.changed)
        self.table = RouteTable(clock=self.clock, hold=self.hold)
        self.sequence = 0
        self.book, self.depths = ActivatorsBook(30.0), DepthBook()
        self.book.join("w", 1, 0.0)
        self.depths.join(1, ())
        self.demand.begin(self._hear, self.table)
        self.demand.partly = partial

    def _hear(self, frame: Frame) -> None:
        assert isinstance(frame, Demand)
        read = Demand.model_validate_json(frame.model_dump_json())
        self.frames.append(read)
        self.book.report("w", 1, read, 0.0)
        self.depths.said(1, read.in_flight, lambda _: None, partial=read.partial)

    def ask_of(self, revision_id: str) -> Caller:
        caller = Caller(self.clock)
        slot = self.hold.ask(self.table.revisions[revision_id], caller)
        if slot is not None:
            caller.granted(slot)
        return caller


class Telling(RuleBasedStateMachine):
    """Whatever happens: once it has been told, the activator knows what is true, as if it had heard all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Told()
        self.callers: list[Caller] = []
        self.rig.show(*(self._row(name, 2) for name in NAMES))

    def _row(self, name: str, replicas: int) -> Any:
        return row(*(replica(f"{name}{n}") for n in range(replicas)), name=name, revisions=(name,), max_held=3)

    @rule(name=st.sampled_from(NAMES))
    def arrive(self, name: str) -> None:
        if name in self.rig.table.endpoints and self.rig.table.endpoints[name].held < 3:
            self.callers.append(self.rig.ask_of(name))

    @rule(which=st.integers(0, 30))
    def end(self, which: int) -> None:
        if self.callers:
            caller = self.callers.pop(which % len(self.callers))
            caller.left = True
            self.rig.hold.leave(caller)
            for slot in caller.slots:
                slot.release()

    @rule(name=st.sampled_from(NAMES), replicas=st.integers(0, 3))
    def show(self, name: str, replicas: int) -> None:
        self.rig.show(self._row(name, replicas))

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        self.rig.show(removed=(name,))

    @rule(seconds=st.sampled_from([0.01, 0.2, 1.5]))
    def time_passes(self, seconds: float) -> None:
        self.rig.clock.advance(seconds)

    @invariant()
    def what_is_told_is_true(self) -> None:
        self.rig.demand.tell()
        true = self.rig.table.requests()
        assert self.rig.book.routers["w"].requests == true
        assert {name: self.rig.book.total(name) for name in self.rig.book.wanted()} == true

    @invariant()
    def the_busy_are_those_with_demand(self) -> None:
        assert self.rig.hold.busy >= {revision for revision in self.rig.table.revisions.values() if revision.demand}
        assert all(revision.demand for revision in self.rig.hold.busy)


TestTelling = Telling.TestCase
TestTelling.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_telling_says_only_what_has_changed() -> None:
    rig = Told()
    rig.show(*(row(replica(f"{n}x"), replica(f"{n}y"), name=f"n{n}", revisions=(f"r{n}",)) for n in range(50)))
    callers = [rig.ask_of(f"r{n}") for n in range(50)]
    assert len(rig.frames[-1].requests) == 1 and rig.frames[-1].partial
    rig.clock.advance(1.0)
    assert len(rig.frames[-1].requests) == 50 and not rig.frames[-1].partial, "whole each second"
    callers[7].slots[0].release()
    rig.clock.advance(0.1)
    assert (rig.frames[-1].requests, list(rig.frames[-1].in_flight.values())) == ({"r7": 0}, [0])


def test_an_activator_of_the_release_before_hears_all_of_it() -> None:
    rig = Told(partial=False)
    rig.show(row(replica(), name="a", revisions=("a",)), row(replica(), name="b", revisions=("b",)))
    rig.ask_of("a")
    rig.ask_of("b")
    assert rig.frames[-1].requests == {"a": 1, "b": 1}
    assert not any(frame.partial for frame in rig.frames)


def test_what_others_have_is_heard_of_those_named_and_weighs_anew_when_routers_come() -> None:
    rig = Told()
    rig.show(row(replica("p"), replica("q"), name="a", revisions=("a",)))
    known = rig.table.revisions["a"].replicas
    rig.table.others({"p": 8}, 2)
    assert (known["p"].others, known["q"].others) == (4.0, 0.0)
    rig.table.others({}, 4)
    assert known["p"].others == 2.0
    rig.table.others_unknown()
    assert known["p"].others == 0.0
