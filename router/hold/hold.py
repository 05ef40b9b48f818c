"""The bounded wait of requests for a slot: first come first served per revision and key; keys share (`queue.py`). Step
5.

Every request that enters is granted a slot, refused, or leaves, exactly once. A slot is released exactly once, whoever
asks how often. The queue is bounded by the endpoint's `max_held`, by `max_held_bytes`, both of all workers of this
machine, and in time by each waiter's deadline. Slots are the replica's, not ours: any may be used, and its gate has the
last word. Where that says that it is full, one place in its line is taken for all that wait here (`turns.py`).

Failures to survive: a start that cannot succeed, an endpoint that is removed, and a waiter that fails while it is
woken. A replica refuses or cannot be reached: the request returns to the head, and the youngest gives way if that
breaks the bound. The activator is away: the deadline still holds.

    ask ──a slot is free──────────────────→ has a slot ──Slot.release──→ gone
     │                                       ↑  │
     └─none is──→ held ──wake, or its turn───┘  │ Slot.give_back: the replica would not have it
                   ↑ │                          │
                   ├─┼──────────────────────────┘
                   │ ├─ its deadline, a full queue, a failed start, a removed endpoint ──→ refused
                   │ └─ leave ──→ gone
                   └─ held at another revision, where the endpoint's route has moved
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import structlog

from router.clock import Clock, Timer
from router.errors import RouterError
from router.hold.budget import Budget
from router.hold.machine import Alone, Machine
from router.hold.refusals import bytes_full, endpoint_gone, hold_timeout, queue_full, start_failed
from router.hold.replicas import Replica, Revision, pick
from router.hold.slot import Mark, Slot, Waiter

FULL_RETRY_SECONDS = 0.05  # the named fallback, where a full replica's gate has no line, or would not let us in
DEAD_RETRY_SECONDS = 1.0  # and one we could not reach may just have been busy

log = structlog.get_logger()

LineUp = Callable[[Replica, float, Callable[[bytes | None, bool], None]], Timer]
"""Takes a place in a replica's line: (replica, seconds waited, news). `news(turn, draining)` follows once, never at
once."""


class Hold:
    """All waiting of one worker. `changed(revision, urgent)` hears of every change of demand. `line_up` None: no gate
    has a line. `chance` gives numbers in [0, 1), by which it chooses between equals.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        max_bytes: int,
        changed: Callable[[Revision, bool], None],
        line_up: LineUp | None = None,
        machine: Machine | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._machine: Machine = machine or Alone()
        self._clock = clock
        self._changed = changed
        self._line_up = line_up
        self._chance = chance
        self._bytes: Budget[Waiter] = Budget(
            max_bytes, give_way=self._give_way, workers=self._machine.workers, shared=self._machine.held_bytes
        )
        self.busy: set[Revision] = set()  # those with demand

    def ask(self, revision: Revision, waiter: Waiter) -> Slot | None:
        """A slot now, or None: then `waiter` is held and hears later. Raises EndpointPaused, StartFailed, QueueFull.

        0. Its operator has paused the endpoint: refused, whatever still runs.
        1. Nobody waits and a replica has a free slot: it is taken, without any waiting.
        2. No start can succeed for now: refused.
        3. The endpoint's queue, or the machine's memory, is full: refused.
        4. Held, at the end of the queue; the first waiter's demand is told at once.
        """
        if revision.endpoint.row.paused:  # 0
            raise start_failed(revision, self._clock.time())
        if not revision.waiting.sequences and (replica := pick(revision.replicas.values(), self._chance)):  # 1
            return self._grant(revision, replica, waiter)
        if revision.failed:  # 2
            raise start_failed(revision, self._clock.time())
        row = revision.endpoint.row
        endpoint_id, held = row.endpoint_id, revision.endpoint.held
        goes = None
        if self._machine.held(endpoint_id, held + 1) > row.max_held:  # 3
            goes = self._who_makes_way(revision, waiter)
            if goes is None:
                self._machine.held(endpoint_id, held)
                raise queue_full(revision, self._clock.time())
        if goes is not None and self._bytes.stays(waiter.user, waiter, waiter.held_bytes, without=goes):
            self._remove(revision, goes)
            goes.refused(queue_full(revision, self._clock.time()))
        if not self._bytes.add(waiter.user, waiter, waiter.held_bytes):
            self._say(revision)
            raise bytes_full(revision, self._clock.time())
        self._enter(revision, waiter)  # 4
        return None

    @property
    def held_bytes(self) -> int:
        """Of all that wait here."""
        return self._bytes.used

    def leave(self, waiter: Waiter) -> None:
        """The waiter's caller is gone. Does nothing if it does not wait."""
        if revision := waiter.held_in:
            self._remove(revision, waiter)
            self._changed(revision, False)

    def held(self) -> dict[str, int]:
        """Waiting requests by endpoint, of those that have any."""
        waiting = [revision for revision in self.busy if revision.waiting]
        return {revision.endpoint.row.name: revision.endpoint.held for revision in waiting}

    def refresh(self, revision: Revision) -> None:
        """The revision's row is new.

        1. It is gone, or about to be and not in the route any more: what waits goes where that leads now, in order, or
           is refused.
        2. No start can succeed for now: what waits is refused.
        3. Wake as many waiters as there are free slots.
        """
        endpoint = revision.endpoint
        gone = endpoint.revisions.get(revision.revision_id) is not revision
        if gone or (revision.waiting and revision.ending and not endpoint.leads_to(revision)):  # 1
            target = None if endpoint.removed else endpoint.routed(self._chance())
            self._move(revision, target)
        elif revision.failed:  # 2
            self._refuse_all(revision, lambda: start_failed(revision, self._clock.time()))
        else:
            self.wake(revision)  # 3

    def wake(self, revision: Revision) -> None:
        """Grant slots to the head of the queue while there are both. A waiter may release its slot at once: no
        recursion.
        """
        if revision.waking:
            return
        revision.waking = True
        try:
            while revision.waiting and (replica := pick(revision.replicas.values(), self._chance)):
                waiter = revision.waiting.whose_turn(revision.in_work)
                self._remove(revision, waiter)
                self._hand(waiter, self._grant(revision, replica, waiter))
        finally:
            revision.waking = False
        if revision.crowded:
            self._stand_in_lines(revision)

    def _hand(self, waiter: Waiter, slot: Slot) -> None:
        try:
            waiter.granted(slot)
        except Exception:
            log.exception("a waiter failed when it was granted its slot", action="hold_grant")
            slot.release()

    def _grant(self, revision: Revision, replica: Replica, waiter: Waiter, turn: bytes = b"") -> Slot:
        """One free slot is enough, however many it takes: the rest of it waits in the engine, behind its own, and
        nobody else with it.
        """
        sequences, user = waiter.sequences, waiter.user
        slots = sequences if sequences == 1 else min(revision.slots_for(sequences), replica.row.slots)
        replica.in_flight += slots
        revision.count_in_work(user, slots)
        self.busy.add(revision)
        self._changed(revision, False)
        return Slot(self, revision, replica, turn, user, slots)

    def _stand_in_lines(self, revision: Revision) -> None:
        """While anything waits: one place in the line of each full replica, for the one that has waited longest."""
        for replica in revision.replicas.values():
            if not revision.waiting:
                replica.leave_line()
            elif replica.full and not (replica.place or replica.retry or replica.draining or replica.dead):
                if self._line_up is None:
                    self._retry_later(revision, replica)
                else:
                    waited = self._clock.time() - revision.waiting.oldest().entered_at
                    replica.place = self._line_up(replica, waited, partial(self._turn, revision, replica))
        revision.crowded = bool(revision.waiting)

    def _turn(self, revision: Revision, replica: Replica, turn: bytes | None, draining: bool) -> None:
        """News from a replica's line.

        1. It drains: what waits goes elsewhere.
        2. No turn to be had there: as good as no line.
        3. Our turn: the head of the queue has it, whoever that is by now. The rest takes a new place.
        """
        replica.place = None
        if draining:  # 1
            replica.draining = True
        elif turn is None:  # 2
            self._retry_later(revision, replica)
            return
        elif revision.waiting:  # 3
            waiter = revision.waiting.whose_turn(revision.in_work)
            self._remove(revision, waiter)
            self._hand(waiter, self._grant(revision, replica, waiter, turn))
        self.wake(revision)

    def _retry_later(self, revision: Revision, replica: Replica) -> None:
        replica.retry = self._clock.call_at(self._clock.time() + FULL_RETRY_SECONDS, self._retry, revision, replica)

    def _retry(self, revision: Revision, replica: Replica) -> None:
        replica.leave_line()
        self.wake(revision)

    def free(self, slot: Slot) -> None:
        """A slot is released: the next waiter gets it."""
        slot.replica.in_flight -= slot.slots
        if slot.replica.full and slot.replica.place is None:  # else it goes to who is first in its line: maybe others'
            slot.replica.leave_line()
        revision = slot.revision
        revision.count_in_work(slot.user, -slot.slots)
        self._look_whether_busy(revision)
        if revision.waiting.sequences or revision.crowded:
            self.wake(revision)
        self._changed(revision, False)

    def put_back(self, slot: Slot, waiter: Waiter, mark: Mark) -> None:
        """A replica would not have the request that has this slot."""
        revision, replica = slot.revision, slot.replica
        replica.in_flight -= slot.slots
        revision.count_in_work(slot.user, -slot.slots)
        match mark:
            case "dead":
                self.rest(revision, replica, DEAD_RETRY_SECONDS)
            case "draining":
                replica.draining = True
            case "full":
                replica.full = revision.crowded = True
        fits = self._bytes.add(waiter.user, waiter, waiter.held_bytes)
        self._enter(revision, waiter, back=True)
        if not fits:
            self._give_way(waiter)
        if self._say(revision) > revision.endpoint.row.max_held:
            youngest = revision.waiting.youngest_of_the_most()
            self._remove(revision, youngest)
            youngest.refused(queue_full(revision, self._clock.time()))
        self.refresh(revision)

    def rest(self, revision: Revision, replica: Replica, seconds: float) -> None:
        """Nobody is granted a slot there for so long, unless the activator says that it is gone."""
        if not replica.dead:
            replica.dead = True
            self._clock.call_at(self._clock.time() + seconds, self._revive, revision, replica)

    def _give_way(self, waiter: Waiter) -> None:
        """More bytes wait than there is room for, and its key has most of them."""
        if revision := waiter.held_in:
            self._remove(revision, waiter)
            self._changed(revision, False)
            waiter.refused(bytes_full(revision, self._clock.time()))

    def _revive(self, revision: Revision, replica: Replica) -> None:
        replica.dead = False
        self.wake(revision)

    def _who_makes_way(self, revision: Revision, waiter: Waiter) -> Waiter | None:
        """At the bound of an endpoint's queue: the youngest of the key that has most of it, where that has two more
        than the new one.
        """
        if not revision.waiting:
            return None
        youngest = revision.waiting.youngest_of_the_most()
        return youngest if revision.waiting.of(youngest.user) >= revision.waiting.of(waiter.user) + 2 else None

    def _enter(self, revision: Revision, waiter: Waiter, *, back: bool = False) -> None:
        """`back`: to the head of the queue."""
        timer = self._clock.call_at(waiter.deadline, self._expire, revision, waiter)
        (revision.waiting.put_back if back else revision.waiting.add)(
            waiter, timer, revision.slots_for(waiter.sequences)
        )
        waiter.held_in = revision
        revision.endpoint.held += 1
        self.busy.add(revision)
        self._say(revision)
        self._changed(revision, len(revision.waiting) == 1)

    def _remove(self, revision: Revision, waiter: Waiter) -> None:
        revision.waiting.remove(waiter)
        waiter.held_in = None
        revision.endpoint.held -= 1
        self._bytes.drop(waiter)
        self._say(revision)
        self._look_whether_busy(revision)
        if revision.crowded and not revision.waiting:
            self._stand_in_lines(revision)  # in none

    def _say(self, revision: Revision) -> int:
        """Tell the machine's other workers what waits here; returns how many wait for this endpoint in all."""
        return self._machine.held(revision.endpoint.row.endpoint_id, revision.endpoint.held)

    def _look_whether_busy(self, revision: Revision) -> None:
        if not revision.granted and not revision.waiting.sequences:
            self.busy.discard(revision)

    def _expire(self, revision: Revision, waiter: Waiter) -> None:
        self._remove(revision, waiter)
        self._changed(revision, False)
        waiter.refused(hold_timeout(revision, self._clock.time()))

    def _refuse_all(self, revision: Revision, error: Callable[[], RouterError]) -> None:
        for waiter in list(revision.waiting):
            if waiter.held_in is revision:  # what one does when it is refused may take another with it
                self._remove(revision, waiter)
                waiter.refused(error())
        self._changed(revision, False)

    def _move(self, revision: Revision, target: Revision | None) -> None:
        if target is None or target.row.task != revision.row.task:
            self._refuse_all(revision, lambda: endpoint_gone(revision.endpoint))
            return
        for waiter in list(revision.waiting):
            if waiter.held_in is not revision:
                continue  # it gave way to one before it
            self._remove(revision, waiter)
            fits = self._bytes.add(waiter.user, waiter, waiter.held_bytes)
            self._enter(target, waiter)
            if not fits:
                self._give_way(waiter)
        self._changed(revision, False)
        self.refresh(target)
