"""Whose memory others could have. Step 6. Pure.

Parked replicas, all of them: they serve nobody. Those that serve where nobody asks for them, their gate has nothing,
and there are more than the least. And, for a start whose turn it is, those of a revision that has not taken its route
yet, those that are asked for, and those that are not wanted any more and finish long answers. A missing signal is
demand. Found once for all the decisions of one event, by walking the replicas there are: endpoints that rest cost
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from activator.catalogue import Catalogue, Endpoint, Revision
from activator.fleet import Fleet
from activator.policy import scaler
from activator.policy.demand_history import Scales
from activator.policy.lifecycle import Replica
from activator.policy.placement import Place
from activator.policy.scaler import Load
from activator.policy.turns import Terms
from activator.state.demand import DemandBook
from activator.takeover import Takeovers


class Spares:
    """`whole`: is what the routers said all the demand there is?"""

    def __init__(
        self,
        catalogue: Catalogue,
        book: DemandBook,
        fleet: Fleet,
        scales: Scales,
        takeovers: Takeovers,
        terms: Terms,
        whole: Callable[[float], bool],
    ) -> None:
        self._catalogue, self._book, self._fleet, self._scales = catalogue, book, fleet, scales
        self._takeovers, self._terms, self._whole = takeovers, terms, whole
        self._found: list[Place] | None = None

    def look_anew(self) -> None:
        """Another event has come."""
        self._found = None

    def places(self, now: float) -> list[Place]:
        """Those that are still as they were found."""
        if self._found is None:
            revisions = sorted({replica.revision_id for replica in self._fleet.replicas.values()})
            self._found = [place for revision_id in revisions for place in self._of(revision_id, now)]
        return [place for place in self._found if self._stands(place)]

    def _stands(self, place: Place) -> bool:
        replica = self._fleet.replicas.get(place.replica_id)
        if replica is None or replica.wanted_back:
            return False
        return replica.state in _states(place.parked) or _finishes(replica)

    def _of(self, revision_id: str, now: float) -> Iterator[Place]:
        found = self._catalogue.find(revision_id)
        if found is None:
            return
        endpoint, revision = found
        seconds = self._fleet.expected.seconds(revision_id, "standby", revision.weight_bytes)
        for replica in self._fleet.of(revision_id):
            if replica.state in _states(parked=True) and not replica.wanted_back:
                since = replica.parked_at if replica.parked_at is not None else replica.started_at
                yield self._place(endpoint, replica, since=since, parked=True, climb_seconds=seconds)
            if _finishes(replica):
                yield self._place(endpoint, replica, since=_began(replica), busy=True)
        yield from self._serving(endpoint, revision, self._terms.stay(seconds), now)

    def _serving(self, endpoint: Endpoint, revision: Revision, stay: float, now: float) -> Iterator[Place]:
        """Down to the least there must be, those with least to do first. One that still starts goes only where nobody
        asks for it. Of a revision that has not taken its route yet: all, the newest first.
        """
        bounds = self._takeovers.bounds(endpoint, revision)
        live = self._fleet.live(revision.revision_id)
        if self._takeovers.is_unused(endpoint, revision):
            for replica in self._fleet.of(revision.revision_id):
                if replica.state in _states(parked=False):
                    yield self._place(endpoint, replica, since=-_began(replica), coming=True)
            return
        if live <= bounds.min_replicas:
            return
        spare = scaler.spare(bounds, Load(self._book.total(revision.revision_id), self._whole(now)), live)
        serving = [
            replica for replica in self._fleet.of(revision.revision_id) if replica.state in _states(parked=False)
        ]
        serving.sort(key=lambda replica: (replica.in_flight > 0, _began(replica)))
        left = live
        for replica in serving:
            if left <= bounds.min_replicas:
                return
            until = _began(replica) + stay
            if spare and not replica.in_flight:
                since = self._scales.idle_since(revision.revision_id, now)
                yield self._place(endpoint, replica, since=since, free_at=until if replica.took_place else now)
            elif replica.state == "ready":
                yield self._place(endpoint, replica, since=_began(replica), free_at=until, busy=True, alone=left == 1)
            else:
                continue
            left -= 1

    def _place(
        self,
        endpoint: Endpoint,
        replica: Replica,
        *,
        since: float,
        free_at: float = 0.0,
        parked: bool = False,
        busy: bool = False,
        coming: bool = False,
        alone: bool = False,
        climb_seconds: float = 0.0,
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
            climb_seconds=climb_seconds,
        )


def _began(replica: Replica) -> float:
    return replica.ready_at if replica.ready_at is not None else replica.started_at


def _finishes(replica: Replica) -> bool:
    """It has its endpoint's own time for what it still runs."""
    return replica.state == "draining" and replica.hurried_at is None and replica.in_flight > 0


def _states(parked: bool) -> tuple[str, ...]:
    return ("parked", "parking") if parked else ("starting", "ready")
