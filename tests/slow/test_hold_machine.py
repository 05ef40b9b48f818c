"""Step 5: the hold's invariants as two state machines, in simulated time."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from router.errors import QueueFull, StartFailed
from router.hold.slot import Mark
from tests.fakes_router import Caller, Rig, replica, row


class HoldMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: bounded, no slot too many, and everybody hears exactly one thing."""

    BOUND = 4
    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig()
        self.shown: dict[str, int] = {}
        self.rig.show(row(max_held=self.BOUND))
        self.callers: list[Caller] = []
        self.refused_at_the_door = 0

    def _show(self, **more: Any) -> None:
        self.rig.show(row(*(replica(name, slots) for name, slots in self.shown.items()), max_held=self.BOUND, **more))

    @rule(
        target=running,
        seconds=st.sampled_from([0.01, 1.0, 30.0]),
        quick=st.booleans(),
        user=st.sampled_from("ab"),
        sequences=st.sampled_from([1, 1, 2, 9]),
    )
    def arrive(self, seconds: float, quick: bool, user: str, sequences: int) -> Caller:
        caller = Caller(self.rig.clock, seconds=seconds, user=user, sequences=sequences)
        caller.release_at_once = quick
        try:
            slot = self.rig.hold.ask(self.rig.revision, caller)
        except (QueueFull, StartFailed):
            self.refused_at_the_door += 1
            caller.left = True
            return caller
        self.callers.append(caller)
        if slot is not None:
            caller.granted(slot)
        return caller

    @rule(caller=consumes(running))
    def leave(self, caller: Caller) -> None:
        caller.left = caller.left or not caller.errors
        self.rig.hold.leave(caller)
        for slot in caller.slots:
            slot.release()

    @rule(caller=running)
    def finish(self, caller: Caller) -> None:
        for slot in caller.slots:
            slot.release()

    @rule(caller=running, mark=st.sampled_from(["full", "draining", "dead"]))
    def turned_away(self, caller: Caller, mark: Mark) -> None:
        slots = [slot for slot in caller.slots if not slot._released]
        if slots and not caller.left:
            caller.slots.remove(slots[0])
            caller.release_at_once = False
            slots[0].give_back(caller, mark)

    @rule(name=st.sampled_from("abc"), slots=st.integers(1, 3))
    def replica_changes(self, name: str, slots: int) -> None:
        self.shown[name] = slots
        self._show()

    @precondition(lambda self: self.shown)
    @rule(data=st.data())
    def replica_goes(self, data: st.DataObject) -> None:
        del self.shown[data.draw(st.sampled_from(sorted(self.shown)))]
        self._show()

    @rule()
    def start_fails(self) -> None:
        self._show(failure="no")

    @rule(seconds=st.sampled_from([0.01, 0.05, 1.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.rig.clock.advance(seconds)

    @invariant()
    def held_within_bound(self) -> None:
        revision = self.rig.revision
        assert len(revision.waiting) == revision.endpoint.held <= self.BOUND
        assert self.rig.hold.held_bytes == sum(waiter.held_bytes for waiter in revision.waiting)

    @invariant()
    def everybody_is_in_one_place(self) -> None:
        for caller in self.callers:
            granted = bool(caller.slots)
            held = caller in self.rig.revision.waiting
            assert held == (caller.held_in is not None)
            assert granted + bool(caller.errors) + held + (caller.left and not granted and not caller.errors) == 1
            assert len(caller.slots) <= 1

    @invariant()
    def slots_add_up(self) -> None:
        live = [slot for caller in self.callers for slot in caller.slots if not slot._released]
        assert self.rig.revision.granted == sum(slot.slots for slot in live) == sum(self.rig.revision.in_work.values())
        for shown in self.rig.revision.replicas.values():
            assert shown.in_flight == sum(slot.slots for slot in live if slot.replica is shown) >= 0
        waiting = self.rig.revision.waiting
        assert waiting.sequences == sum(waiter.sequences for waiter in waiting)

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        if self.rig.revision.waiting:
            assert not any(shown.free for shown in self.rig.revision.replicas.values())


class SlotsNeverExceeded(RuleBasedStateMachine):
    """With a fixed fleet, no replica ever has more of our requests than its share."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig()
        self.rig.show(row(replica("a", 2), replica("b", 1), max_held=3))
        self.callers: list[Caller] = []

    @rule()
    def arrive(self) -> None:
        try:
            self.callers.append(self.rig.ask())
        except QueueFull:
            assert len(self.rig.revision.waiting) == 3

    @rule(which=st.integers(0, 50), mark=st.sampled_from([None, "full", "dead"]))
    def end(self, which: int, mark: Mark | None) -> None:
        running = [caller for caller in self.callers if caller.slots and not caller.slots[0]._released]
        if running:
            caller = running[which % len(running)]
            if mark is None:
                caller.slots[0].release()
            else:
                caller.slots.pop().give_back(caller, mark)

    @rule(seconds=st.sampled_from([0.01, 0.05, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.rig.clock.advance(seconds)

    @invariant()
    def within_share(self) -> None:
        assert all(0 <= shown.in_flight <= shown.row.slots for shown in self.rig.revision.replicas.values())


TestHold = HoldMachine.TestCase


TestHold.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


TestSlots = SlotsNeverExceeded.TestCase


TestSlots.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
