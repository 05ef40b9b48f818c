"""What operators ask of the reconciler: an endpoint that was stored, a wake, the status. Step 6. Part of the
reconciler's one task.

What must survive is a router that does not answer. The result of a command waits until the routers know it, and only so
long (`state/replies.py`).
"""

from __future__ import annotations

from activator.control.publishing import Publisher
from activator.control.scaling import Scaling
from activator.control.takeover import Takeovers
from activator.events import EndpointStored, StatusAsked, WakeAsked
from activator.state.cluster import ClusterState
from activator.state.replies import Replies
from activator.state.status import status
from activator.wire import Done


class OperatorRequests:
    """Carries out what commands mean for the state, and answers them."""

    def __init__(
        self, state: ClusterState, *, scaling: Scaling, takeovers: Takeovers, publisher: Publisher, replies: Replies
    ) -> None:
        self._state = state
        self._scaling = scaling
        self._takeovers = takeovers
        self._publisher = publisher
        self._replies = replies

    def stored(self, event: EndpointStored, now: float) -> None:
        """The endpoint is so from now on. The answer waits until the routers know it."""
        catalogue = self._state.catalogue
        before = catalogue.endpoints.get(event.endpoint.endpoint_id)
        catalogue.put(event.endpoint)
        endpoint = catalogue.endpoints[event.endpoint.endpoint_id]
        self._takeovers.stored(endpoint)
        for revision_id, _weight in endpoint.route:
            if before and before.next == revision_id:
                self._state.history.forget(revision_id)  # what it has counts as wanted until now
        self._publisher.put(endpoint, now, altered=True)
        for revision_id in {revision.revision_id for revision in endpoint.revisions}:
            self._scaling.decide(revision_id, now, now)
        self._publisher.publish(now)
        self._replies.add(self._publisher.table.sequence, now, event.reply, event.done)

    def wake(self, event: WakeAsked, now: float) -> set[str]:
        """Returns the revision to decide, if there is one to wake."""
        endpoint = self._state.catalogue.named(event.name, event.org_id)
        revision = endpoint.routed if endpoint else None
        if endpoint is not None and endpoint.paused:
            event.reply(Done(ok=False, message=f"{event.name!r} is paused: `pilotlight resume {event.name}` first"))
            return set()
        if endpoint is None or revision is None:
            message = f"there is no endpoint {event.name!r} with a route: `pilotlight ls` lists those there are"
            event.reply(Done(ok=False, message=message))
            return set()
        ready = self._state.replicas.has_ready(revision.revision_id)
        if not ready:
            self._state.wakes.ask(revision.revision_id, now, endpoint.hold_seconds)
        found = {"revision_id": revision.revision_id, "number": revision.number, "ready": ready}
        event.reply(Done(ok=True, result=found))
        return {revision.revision_id}

    def status(self, event: StatusAsked, now: float) -> None:
        event.reply(Done(ok=True, result=status(self._state, now)))
