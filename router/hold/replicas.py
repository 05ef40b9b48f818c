"""What this router knows of endpoints, revisions and replicas, and which replica gets the next request. Steps 5 and 11.

The activator's rows are the truth. On top of them lies what only we know. That is what we have in flight, and that a
replica has just refused us or could not be reached. Beside them lies what others have in it, as the activator heard
last. The failure to survive is a row that is old. Our marks are made at once, and lifted after a moment (`hold.py`),
`dead` also by the next row. So a replica is neither hammered nor forgotten. What others have decides an order only,
never whether a slot is free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from activator.wire import EndpointRow, ReplicaRow, RevisionRow
from router.clock import Timer
from router.hold.pool import Pool
from router.hold.queue import Waiters

if TYPE_CHECKING:
    from router.hold.slot import Waiter

LEAST_REMAINING_SECONDS = 0.1
OVERDUE = 0.1  # of the time it has taken: what a start that takes longer than expected is taken to need still


class Replica:
    """One replica as this router sees it. `seen_at`: when it first could be dispatched to, loop seconds."""

    __slots__ = ("dead", "draining", "full", "heard", "in_flight", "others", "place", "pool", "retry", "row", "seen_at")

    def __init__(self, row: ReplicaRow, *, pool: Pool, now: float) -> None:
        self.row = row
        self.pool = pool
        self.seen_at = now
        self.in_flight = 0  # sequences of this router's
        self.heard, self.others = 0, 0.0  # requests of other routers, as heard last; the same by the number of routers
        self.draining = row.draining
        self.full = False  # its gate said so, though by our count it had room: other routers use it too
        self.place: Timer | None = None  # ours in its gate's line, while it is full and something waits here
        self.retry: Timer | None = None  # in place of that, where the gate has no line
        self.dead = False  # could not be reached

    def update(self, row: ReplicaRow, *, anew: bool) -> None:
        """`anew`: a leader that has just taken over says it. What the one before had said and not done holds no
        more.
        """
        self.row = row
        self.draining = row.draining or (self.draining and not anew)  # else draining never ends but in the end
        self.dead = False  # a row says that it runs; of who is in its slots it says nothing, so `full` stays

    def leave_line(self) -> None:
        """It may have room: a place in its line is not needed any more."""
        for waits in (self.place, self.retry):
            if waits is not None:
                waits.cancel()
        self.place = self.retry = None
        self.full = False

    def close(self) -> None:
        """It is gone from the table; what runs there may finish."""
        self.leave_line()
        self.pool.close()

    def hear(self, others: int, routers: int) -> None:
        """So many requests of other routers are in it; there are so many routers, with this one."""
        self.heard, self.others = others, others / max(1, routers)

    @property
    def free(self) -> bool:
        return self.in_flight < self.row.slots and not (self.draining or self.full or self.dead)


class Revision:
    """A revision, what runs of it, and what waits for it. `waiting` is changed by `hold.py` alone."""

    __slots__ = (
        "began",
        "crowded",
        "endpoint",
        "granted",
        "in_work",
        "replicas",
        "revision_id",
        "row",
        "waiting",
        "waking",
    )

    def __init__(self, row: RevisionRow, endpoint: Endpoint) -> None:
        self.revision_id = row.revision_id
        self.row = row
        self.endpoint = endpoint
        self.replicas: dict[str, Replica] = {}
        self.waiting: Waiters[Waiter] = Waiters()
        self.granted = 0  # sequences
        self.in_work: dict[str, int] = {}  # the same by key; those that have none are not there
        self.waking = False
        self.crowded = False  # some replica of it is `full`
        self.began: float | None = None  # when the start that is on its way began, loop seconds, as far as we were told

    @property
    def demand(self) -> int:
        """Held + in flight, now, in sequences."""
        return self.waiting.sequences + self.granted

    def slots_for(self, sequences: int) -> int:
        """What a request of so many takes of a replica: all its slots at most."""
        return min(sequences, self.row.slots) if self.row.slots else sequences

    def count_in_work(self, user: str, slots: int) -> None:
        """So many more of this key's are in work, or fewer."""
        self.granted += slots
        left = self.in_work.get(user, 0) + slots
        if left:
            self.in_work[user] = left
        else:
            del self.in_work[user]

    @property
    def ending(self) -> bool:
        """Nothing serves it or is about to, but what drains: whoever waits for it would wait until that has gone."""
        return (
            not self.row.starting
            and bool(self.replicas)
            and all(replica.draining for replica in self.replicas.values())
        )

    @property
    def failed(self) -> bool:
        """No start can succeed for now, and nothing that runs could serve; or nobody is to be served."""
        return self.endpoint.row.paused or (
            bool(self.row.failure) and all(replica.draining for replica in self.replicas.values())
        )

    @property
    def waits_for(self) -> str:
        """Why its start waits, where nothing that runs could serve; else ""."""
        return self.row.waits_for if all(replica.draining for replica in self.replicas.values()) else ""

    def had_replica(self, *, before: float) -> bool:
        """Whether a replica that could take a request was seen before that time, in the loop's seconds."""
        return any(
            replica.seen_at < before and not (replica.draining or replica.dead) for replica in self.replicas.values()
        )

    def remaining(self, now: float) -> float:
        """Seconds until the start that is on its way is over, or the next one would be; never 0, however long it has
        taken.
        """
        if self.began is None:
            return self.row.expected_seconds
        elapsed = now - self.began
        return max(self.row.expected_seconds - elapsed, OVERDUE * elapsed, LEAST_REMAINING_SECONDS)

    def retry_after(self, now: float) -> float:
        """Seconds after which it is worth asking again."""
        return self.row.retry_after_seconds or self.remaining(now)

    def update(self, row: RevisionRow, *, now: float, anew: bool = False) -> None:
        self._time(row, now)
        self.row = row
        rows = {replica.replica_id: replica for replica in row.replicas}
        for replica_id in [known for known in self.replicas if known not in rows]:
            self.replicas.pop(replica_id).close()
        for replica_id, replica_row in rows.items():
            known = self.replicas.get(replica_id)
            if known is not None and _same_start(known.row, replica_row):
                known.update(replica_row, anew=anew)
                continue
            if known is not None:
                known.close()
            self.replicas[replica_id] = Replica(replica_row, pool=Pool(replica_row.address), now=now)

    def _time(self, row: RevisionRow, now: float) -> None:
        """Follow the start: only durations travel, so what a row says of it is taken to be true when it comes, and
        once.
        """
        if not row.starting:
            self.began = None
        elif self.began is None or (row.phase, row.phase_began_seconds) != (
            self.row.phase,
            self.row.phase_began_seconds,
        ):
            self.began = now - row.phase_began_seconds


def _same_start(known: ReplicaRow, row: ReplicaRow) -> bool:
    """A replica that was parked and is ready again takes requests again: it drained before its last start."""
    return known.address == row.address and known.cold_start_id == row.cold_start_id


class Endpoint:
    """A public name. `held` counts the waiters of all its revisions."""

    __slots__ = ("_route", "held", "removed", "revisions", "row")

    def __init__(self, row: EndpointRow) -> None:
        self.row = row
        self.revisions: dict[str, Revision] = {}
        self._route: list[tuple[Revision, int]] = []
        self.held = 0
        self.removed = False

    def reroute(self) -> None:
        """The row or its revisions are new."""
        self._route = [
            (self.revisions[revision], weight)
            for revision, weight in self.row.route
            if revision in self.revisions and weight > 0
        ]

    def leads_to(self, revision: Revision) -> bool:
        return any(routed is revision for routed, _ in self._route)

    def routed(self, roll: float) -> Revision | None:
        """Where the route sends a request; `roll` in [0, 1). None while the route leads nowhere."""
        route = self._route
        if len(route) < 2:
            return route[0][0] if route else None
        mark = roll * sum(weight for _, weight in route)
        for revision, weight in route:
            mark -= weight
            if mark < 0:
                return revision
        return route[-1][0]


def pick(replicas: Iterable[Replica], chance: Callable[[], float]) -> Replica | None:
    """The replica with a free slot that has the fewest requests, ours and others'; of several any, each as likely.
    `chance` gives numbers in [0, 1).

    Others' count by one over the number of routers: what is heard of them is late, and were each of R routers to level
    all of a difference by itself, together they would level it R times over, to and fro. Each by itself balances its
    own.
    """
    best, least, ties = None, 0.0, 1
    for replica in replicas:
        # it is not `free`
        if replica.in_flight >= replica.row.slots or replica.draining or replica.full or replica.dead:
            continue
        depth = replica.in_flight + replica.others
        if best is None or depth < least:
            best, least, ties = replica, depth, 1
        elif depth == least:
            ties += 1
            if chance() * ties < 1.0:
                best = replica
    return best
