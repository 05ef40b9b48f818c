"""Decides whose turn it is where fewer replicas fit than are wanted. Step 6. Pure: time is an argument.

The law, where E endpoints are asked without a pause and R of their replicas fit:

1. A replica that got its place because another was evicted keeps it for its least stay, and so does every one that is
   asked for. Less would be thrashing, for a switch costs a start. With a stay of `STARTS_STAYED` starts a place serves
   at least that part of its time (4 of 5). Calls that alternate between two endpoints make at most one switch per least
   stay.
2. A revision is due that has waited for `turn_seconds` and has no replica (or fewer than its `min_replicas`). The one
   that has waited longest takes its turn. Where the stays it needs are not over, those places are reserved for it, and
   nobody else starts there. So one that needs much room does not see it taken in pieces by those that need little.
3. Parked replicas go first, then idle ones, then those of a revision that waits to take its route and serves nobody
   yet. Next are those of revisions that have several, then the one that has been there longest. `min_replicas` are
   never evicted. An evicted replica drains: what it runs it may finish, for `drain_seconds` at most. Its new calls are
   held, and its revision waits for its own turn at the end of the queue.
4. A revision that failed when it had its turn waits twice as long for the next, and so on. Else an endpoint that cannot
   start would cost all others a start each time.

So a place changes hands at least once a cycle of stay + drain + start, always to the oldest. Behind p others one waits
at most `turn_seconds` and ceil((p + 1) / R) cycles: `bound`. Streams longer than the drain limit are cut, or that would
not be a bound. What must survive is a caller that leaves: its turn ends with its demand, and the evicted one comes back
by the same law.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from activator.policy.placement import Needs, NodeView, Place, Room, asked, fits

MOST_DOUBLINGS = 6
STARTS_STAYED = 4.0  # the least stay, where no setting says another, in starts of its own


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds, as configured. `least_stay`: 0 for `STARTS_STAYED` starts."""

    turn: float
    least_stay: float

    def patience(self, failures: int) -> float:
        """How long it waits for its turn after so many starts in a row that failed, or replicas that died."""
        return self.turn * 2.0 ** min(failures, MOST_DOUBLINGS)

    def stay(self, start_seconds: float) -> float:
        """The least stay of a replica whose start is expected to take so long."""
        return self.least_stay or STARTS_STAYED * start_seconds


def bound(ahead: int, places: int, *, turn: float, stay: float, drain: float, start: float) -> float:
    """Seconds after which an endpoint is served at the latest that waits behind `ahead` others for one of `places`
    places.
    """
    return turn + math.ceil((ahead + 1) / places) * (stay + drain + start)


def claim(nodes: Iterable[NodeView], needs: Needs, places: Iterable[Place], now: float) -> Room | None:
    """The room that a start makes whose turn it is: at once, or reserved until stays are over. None: no node could make
    it.

    1. On each node the fewest that are enough, in the order of the law.
    2. The node where they may go soonest, then where fewest are asked for.
    """
    known, found = list(places), []
    for node in nodes:
        if node.connected and fits(node.environment, needs):
            there = sorted(
                (place for place in known if place.node_id == node.node_id), key=lambda place: _order(place, now)
            )
            taken = _enough(there, asked(node, needs) - node.soon_left)  # 1
            if taken is not None:
                at = max((place.free_at for place in taken), default=now)
                found.append(
                    (max(at, now), sum(place.busy for place in taken), node.node_id, taken, asked(node, needs))
                )
    if not found:
        return None
    at, _busy, node_id, taken, nbytes = min(found, key=lambda each: each[:3])  # 2
    room = Room(node_id, nbytes, tuple(place.replica_id for place in taken))
    return room if at <= now else replace(room, reserved=True)


def _order(place: Place, now: float) -> tuple[float, int, float, float, str]:
    """Those that may go now, by the law; then the others, as they may."""
    rank = 0 if place.parked else 2 if place.coming else 1 if not place.busy else 3 if not place.alone else 4
    return max(place.free_at, now), rank, place.restart_seconds if place.parked else 0.0, place.since, place.replica_id


def _enough(places: list[Place], missing: int) -> list[Place] | None:
    """The first of them that are enough, without those that a later, larger one makes needless. None: all are too
    few.
    """
    taken: list[Place] = []
    for place in places:
        if missing <= 0:
            break
        if place.nbytes > 0:
            taken.append(place)
            missing -= place.nbytes
    if missing > 0:
        return None
    for place in reversed(taken.copy()):
        if missing + place.nbytes <= 0:
            taken.remove(place)
            missing += place.nbytes
    return taken
