"""Everything the reconciler knows, as one value. Steps 6, 7 and 10.

Each part is a register with a module of its own. Only the reconciler's task reads and changes them, so nothing here
needs a lock. What must survive is kill -9 between any two events: endpoints, quarantines and past starts are in
Postgres, nodes report their replicas, routers their demand. So `restore` is all that a new leader needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from activator.catalogue import Catalogue
from activator.effects import Effects
from activator.policy.estimates import StartEstimates
from activator.policy.failures import Backoff
from activator.policy.quarantine import Quarantine
from activator.policy.scaler import Target
from activator.state.demand import DemandBook
from activator.state.demand_history import DemandHistory
from activator.state.failure_book import FailureBook
from activator.state.memory import Memory
from activator.state.nodes import Fence, Nodes
from activator.state.replicas import Replicas
from activator.state.stored_state import StoredState
from activator.state.tenure import Tenure
from activator.state.waits import Waits
from activator.state.wakes import Wakes
from pilotlight.settings import ActivatorSettings


@dataclass(slots=True, kw_only=True)
class ClusterState:
    """Endpoints, demand, nodes and replicas, with what was learned of each."""

    catalogue: Catalogue
    demand: DemandBook
    history: DemandHistory
    nodes: Nodes
    fence: Fence
    replicas: Replicas
    memory: Memory
    failures: FailureBook
    quarantine: Quarantine
    estimates: StartEstimates
    waits: Waits
    wakes: Wakes
    tenure: Tenure
    changed: set[str]  # revisions to which something has happened in this event
    targets: dict[str, Target] = field(default_factory=dict)  # of each revision that is not at rest
    awake: set[str] = field(default_factory=set)  # revisions that time alone may change

    @staticmethod
    def restore(
        stored: StoredState,
        settings: ActivatorSettings,
        effects: Effects,
        catalogue: Catalogue,
        *,
        epoch: int,
        now: float,
    ) -> ClusterState:
        """Begin where the last activator stopped."""
        changed: set[str] = set()
        nodes = Nodes(settings.memory_fraction)
        state = ClusterState(
            catalogue=catalogue,
            demand=DemandBook(settings.silent_router_seconds),
            history=DemandHistory(),
            nodes=nodes,
            fence=Fence(epoch),
            replicas=Replicas(nodes=nodes, effects=effects, changed=changed),
            memory=Memory(nodes, stored.memory),
            failures=FailureBook(Backoff(settings.backoff_seconds, settings.backoff_max_seconds), changed),
            quarantine=Quarantine(stored.bad_rungs),
            estimates=StartEstimates(stored.cold_starts),
            waits=Waits(),
            wakes=Wakes(),
            tenure=Tenure(now, settings.settle_seconds),
            changed=changed,
        )
        state._fill(stored)
        return state

    def _fill(self, stored: StoredState) -> None:
        for endpoint in stored.endpoints:
            self.catalogue.put(endpoint)
            self.awake.update(
                revision.revision_id
                for revision in endpoint.revisions
                if revision.min_replicas and endpoint.routes_to(revision.revision_id)
            )
            self.awake.update([endpoint.next] if endpoint.next else [])
        for replica in stored.replicas:
            self.replicas.add(replica)
            self.changed.add(replica.revision_id)  # so that what the first router hears is on record

    def knows_all_demand(self, now: float) -> bool:
        """Is what the routers reported all the demand there is?"""
        return self.tenure.is_settled(now) and self.demand.is_complete()

    def waiting_unserved(self) -> list[str]:
        """Revisions that wait for room with nothing there that serves, or is on its way to."""
        return [revision_id for revision_id in self.waits.all() if not self.replicas.live(revision_id)]

    def look_again_for_room(self) -> None:
        """There may be room where there was none: what waits, or was refused as impossible, is decided anew."""
        self.changed.update(self.waits.all())
        self.failures.retry_unplaceable()

    def forget(self, revision_id: str) -> None:
        """It is served no more, and has no replicas."""
        self.quarantine.forget(revision_id)
        self.estimates.forget(revision_id)
        self.memory.forget(revision_id)
