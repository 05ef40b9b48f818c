"""Whatever a router hears and tells in whatever order, the activator knows its demand: a state machine."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.fakes_router import Caller, Told, replica, row

NAMES = "abc"


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
