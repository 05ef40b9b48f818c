"""Whose memory others may have, now. Step 6. Pure.

Parked replicas, all of them: they serve nobody. And those that serve where nobody asks for them, their gate has nothing, and there are
more than the least. A missing signal is demand.
"""

from __future__ import annotations

from collections.abc import Iterator

from activator import scaler
from activator.catalogue import Catalogue, Revision
from activator.demand import DemandBook
from activator.fleet import Fleet
from activator.placement import Idle
from activator.scaler import Load
from activator.scales import Scales, bounds_of


def spares(catalogue: Catalogue, book: DemandBook, fleet: Fleet, scales: Scales, *, whole: bool, now: float) -> Iterator[Idle]:
    """`whole`: what the routers said is all the demand there is."""
    for endpoint in catalogue:
        for revision in endpoint.revisions:
            if fleet.has(revision.revision_id):
                bounds = bounds_of(revision, endpoint.routes_to(revision.revision_id))
                live = fleet.live(revision.revision_id)
                count = scaler.spare(bounds, Load(book.total(revision.revision_id), whole), live) if live else 0
                yield from _serving(revision, fleet, count, scales.idle_since(revision.revision_id, now))
                yield from _parked(revision, fleet)


def _serving(revision: Revision, fleet: Fleet, count: int, since: float) -> Iterator[Idle]:
    idle = [replica for replica in fleet.of(revision.revision_id) if replica.state in ("starting", "ready") and not replica.in_flight]
    for replica in idle[:count]:
        yield Idle(replica.replica_id, replica.node_id, replica.needs_bytes, since)


def _parked(revision: Revision, fleet: Fleet) -> Iterator[Idle]:
    seconds = fleet.expected.seconds(revision.revision_id, "standby", revision.weight_bytes)
    for replica in fleet.of(revision.revision_id):
        if replica.state in ("parked", "parking") and not replica.wanted_back:
            since = replica.parked_at if replica.parked_at is not None else replica.started_at
            yield Idle(replica.replica_id, replica.node_id, replica.needs_bytes, since, parked=True, climb_seconds=seconds)
