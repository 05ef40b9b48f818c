"""Fakes around the router's hold: a clock that the test moves, and callers that write down what they were told."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from activator.state.demand import DemandBook as ActivatorsBook
from activator.state.queue_depths import QueueDepths
from activator.wire import Demand, EndpointRow, ReplicaRow, RevisionRow, Table
from pilotlight.frames import Frame
from router.admission.visitors import Standing
from router.errors import RouterError
from router.hold.activator_link import DemandBook
from router.hold.hold import Hold
from router.hold.replicas import Revision
from router.hold.slot import Slot
from router.hold.table import RouteTable


class FakeTimer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, FakeTimer, Callable[[], object]]] = []
        self._count = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> FakeTimer:
        self._count += 1
        timer = FakeTimer()
        heapq.heappush(self._timers, (when, self._count, timer, lambda: callback(*args)))
        return timer

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, timer, callback = heapq.heappop(self._timers)
            if not timer.cancelled:
                callback()
        self.now = end


class Caller:
    """A waiter that writes down what it was told."""

    def __init__(
        self, clock: FakeClock, *, seconds: float = 30.0, size: int = 1, user: str = "key k", sequences: int = 1
    ) -> None:
        self.user, self.sequences = user, sequences
        self.entered_at, self.deadline, self.held_bytes = clock.now, clock.now + seconds, size
        self.held_in: Revision | None = None
        self.slots: list[Slot] = []
        self.errors: list[RouterError] = []
        self.left = False
        self.release_at_once = False

    def granted(self, slot: Slot) -> None:
        assert not self.errors
        assert not self.left
        self.slots.append(slot)
        if self.release_at_once:
            slot.release()

    def refused(self, error: RouterError) -> None:
        assert not self.errors
        assert not self.left
        self.errors.append(error)


def row(
    *replicas: ReplicaRow,
    max_held: int = 5,
    name: str = "tiny",
    revisions: tuple[str, ...] = ("r1",),
    task: Any = "generate",
    **more: Any,
) -> EndpointRow:
    return EndpointRow(
        name=name,
        org_id="o",
        endpoint_id="e-" + name,
        created=1,
        task=task,
        max_held=max_held,
        hold_seconds=30,
        route=((revisions[0], 100),),
        revisions=tuple(RevisionRow(revision_id=r, task=task, replicas=replicas, **more) for r in revisions),
    )


def replica(name: str = "p1", slots: int = 1, *, draining: bool = False) -> ReplicaRow:
    return ReplicaRow(replica_id=name, address=f"unix:/{name}", slots=slots, draining=draining)


class Rig:
    def __init__(self, *, max_bytes: int = 1 << 20) -> None:
        self.clock = FakeClock()
        self.changes: list[tuple[str, bool]] = []
        self.hold = Hold(
            clock=self.clock,
            max_bytes=max_bytes,
            changed=lambda r, urgent: self.changes.append((r.revision_id, urgent)),
        )
        self.table = RouteTable(clock=self.clock, hold=self.hold)
        self.sequence = 0

    def show(self, *rows: EndpointRow, removed: tuple[str, ...] = (), whole: bool = False) -> None:
        self.sequence += 1
        self.table.apply(
            Table(epoch=1, sequence=self.sequence, whole=whole or self.sequence == 1, endpoints=rows, removed=removed)
        )

    @property
    def revision(self) -> Revision:
        return self.table.revisions["r1"]

    def ask(self, **options: Any) -> Caller:
        caller = Caller(self.clock, **options)
        slot = self.hold.ask(self.revision, caller)
        if slot is not None:
            caller.granted(slot)
        return caller


class Told(Rig):
    """A router's rig whose demand an activator hears; `partial`: one of this release."""

    def __init__(self, *, partial: bool = True) -> None:
        self.clock = FakeClock()
        self.frames: list[Demand] = []
        self.demand = DemandBook(clock=self.clock)
        self.hold = Hold(clock=self.clock, max_bytes=1 << 20, changed=self.demand.changed)
        self.table = RouteTable(clock=self.clock, hold=self.hold)
        self.sequence = 0
        self.book, self.depths = ActivatorsBook(30.0), QueueDepths()
        self.book.join("w", 1, 0.0)
        self.depths.join(1, ())
        self.demand.begin(self._hear, self.table)
        self.demand.partly = partial

    def _hear(self, frame: Frame) -> None:
        assert isinstance(frame, Demand)
        read = Demand.model_validate_json(frame.model_dump_json())
        self.frames.append(read)
        self.book.report("w", 1, read, 0.0)
        self.depths.reported(1, read.in_flight, lambda _: None, partial=read.partial)

    def ask_of(self, revision_id: str) -> Caller:
        caller = Caller(self.clock)
        slot = self.hold.ask(self.table.revisions[revision_id], caller)
        if slot is not None:
            caller.granted(slot)
        return caller


class Someone:
    def __init__(self, standing: Standing = "idle") -> None:
        self.standing: Standing = standing
        self.turned_out = False

    def give_way(self) -> None:
        self.turned_out = True
