"""The replicas that may be evicted now, for a start of another revision. Step 6. Pure.

1. Parked replicas, all of them: they serve nobody.
2. Replicas that serve where nobody asks for them, beyond the least their revision must have.
3. Only for a start whose turn it is: replicas that are asked for, and those that finish long answers.
4. Only for such a start, too: replicas of a revision that has not taken its route yet.

What must survive is a missing signal: it counts as demand. The list is made once for all the decisions of one event, by
walking the replicas there are, so endpoints at rest cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from activator.catalogue import Endpoint, Revision
from activator.control.takeover import Takeovers
from activator.policy import scaler
from activator.policy.lifecycle import Replica
from activator.policy.placement import Place
from activator.policy.scaler import Load
from activator.policy.turns import Terms
from activator.state.cluster import ClusterState

PARKED = ("parked", "parking")
SERVING = ("starting", "ready")


class EvictableReplicas:
    """The list, and what it was made from."""

    def __init__(self, state: ClusterState, *, takeovers: Takeovers, terms: Terms) -> None:
        self._state = state
        self._takeovers = takeovers
        self._terms = terms
        self._found: list[Place] | None = None

    def look_anew(self) -> None:
        """Another event has come."""
        self._found = None

    def places(self, now: float) -> list[Place]:
        """Those that are still as they were found."""
        if self._found is None:
            revisions = sorted({replica.revision_id for replica in self._state.replicas.by_id.values()})
            self._found = [place for revision_id in revisions for place in self._of(revision_id, now)]
        return [place for place in self._found if self._stands(place)]

    def _stands(self, place: Place) -> bool:
        replica = self._state.replicas.by_id.get(place.replica_id)
        if replica is None or replica.wanted_back:
            return False
        return replica.state in (PARKED if place.parked else SERVING) or _finishes(replica)

    def _of(self, revision_id: str, now: float) -> Iterator[Place]:
        found = self._state.catalogue.find(revision_id)
        if found is None:
            return
        endpoint, revision = found
        seconds = self._state.estimates.seconds(revision_id, "standby", revision.weight_bytes)
        for replica in self._state.replicas.of(revision_id):
            if replica.state in PARKED and not replica.wanted_back:
                since = replica.parked_at if replica.parked_at is not None else replica.started_at
                yield _place(endpoint, replica, since=since, parked=True, restart_seconds=seconds)
            if _finishes(replica):
                yield _place(endpoint, replica, since=_began(replica), busy=True)
        yield from self._serving(endpoint, revision, self._terms.stay(seconds), now)

    def _serving(self, endpoint: Endpoint, revision: Revision, stay: float, now: float) -> Iterator[Place]:
        """Down to the least there must be, those with least to do first. One that still starts goes only where nobody
        asks for it. Of a revision that has not taken its route yet: all, the newest first.
        """
        revision_id = revision.revision_id
        serving = [replica for replica in self._state.replicas.of(revision_id) if replica.state in SERVING]
        if self._takeovers.is_unused(endpoint, revision):
            for replica in serving:
                yield _place(endpoint, replica, since=-_began(replica), coming=True)
            return
        bounds, _coming = self._takeovers.bounds(endpoint, revision)
        left = self._state.replicas.live(revision_id)
        if left <= bounds.min_replicas:
            return
        load = Load(self._state.demand.total(revision_id), self._state.knows_all_demand(now))
        idle = scaler.evictable(bounds, load, left)
        serving.sort(key=lambda replica: (replica.in_flight > 0, _began(replica)))
        for replica in serving:
            if left <= bounds.min_replicas:
                return
            until = _began(replica) + stay
            if idle and not replica.in_flight:
                since = self._state.history.idle_since(revision_id, now)
                yield _place(endpoint, replica, since=since, free_at=until if replica.evicted_others else now)
            elif replica.state == "ready":
                yield _place(endpoint, replica, since=_began(replica), free_at=until, busy=True, alone=left == 1)
            else:
                continue
            left -= 1


def _place(
    endpoint: Endpoint,
    replica: Replica,
    *,
    since: float,
    free_at: float = 0.0,
    parked: bool = False,
    busy: bool = False,
    coming: bool = False,
    alone: bool = False,
    restart_seconds: float = 0.0,
) -> Place:
    return Place(
        replica_id=replica.replica_id,
        node_id=replica.node_id,
        nbytes=replica.needs_bytes,
        endpoint=endpoint.name,
        since=since,
        free_at=free_at,
        parked=parked,
        busy=busy,
        coming=coming,
        alone=alone,
        restart_seconds=restart_seconds,
    )


def _began(replica: Replica) -> float:
    return replica.ready_at if replica.ready_at is not None else replica.started_at


def _finishes(replica: Replica) -> bool:
    """It has its endpoint's own time for what it still runs."""
    return replica.state == "draining" and replica.hurried_at is None and replica.in_flight > 0
