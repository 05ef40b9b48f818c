"""Watches revisions that are to take a route over, and says what became of each. Step 6. Part of the reconciler's one
task.

    new revision is `next` ──look: SERVES──→ settle → stored with the route → `stored` forgets the verdict
                           └─look: FAILED──→ settle → stored as failed, the old revision goes on

It decides only by `rollout.py`, and changes no route itself. A verdict goes to `Effects.settle`, comes back as the
endpoint that is stored then, and only that is obeyed. What must survive is an activator that is killed between the two:
the next one finds the revision still on its way, and looks again.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from activator.catalogue import Endpoint, Revision
from activator.effects import Effects
from activator.policy.failures import FailureHistory
from activator.policy.placement import Place
from activator.policy.rollout import Verdict, Verdicts, judge, least
from activator.policy.scaler import Bounds, bounds_of
from activator.state.cluster import ClusterState
from activator.store.events import EventRecord, Kind

log = structlog.get_logger()


class Takeovers:
    """Revisions on their way to a route, and the verdicts on them that are not stored yet."""

    def __init__(self, state: ClusterState, effects: Effects) -> None:
        self._state = state
        self._effects = effects
        self._verdicts = Verdicts()

    def comes(self, endpoint: Endpoint, revision: Revision) -> bool:
        """Is it on its way to the route, and has not failed?"""
        return endpoint.next == revision.revision_id and self._verdicts.of(revision.revision_id) is not Verdict.FAILED

    def is_unused(self, endpoint: Endpoint, revision: Revision) -> bool:
        """Is it on its way to the route, and short of what it needs to take it? Then what it has serves nobody yet."""
        return self.comes(endpoint, revision) and self._verdicts.of(revision.revision_id) is Verdict.WAIT

    def bounds(self, endpoint: Endpoint, revision: Revision) -> tuple[Bounds, bool]:
        """The revision's bounds, and whether it is on its way to the route. If so, it has as many replicas as it needs
        to take it, whoever asks for it.
        """
        if not self.comes(endpoint, revision):
            return bounds_of(revision, endpoint.routes_to(revision.revision_id)), False
        return replace(bounds_of(revision, True), min_replicas=self._needed(endpoint, revision)), True

    def may_evict(self, endpoint: Endpoint, place: Place) -> bool:
        """May this replica give way to one of the endpoint's that is on its way to the route?

        Not one that serves the endpoint now, not one that is asked for, and not one that is on its way itself. Two that
        cannot both have all they need would take it from each other for ever.
        """
        serves = endpoint.routes_to(self._state.replicas.by_id[place.replica_id].revision_id)
        return not (place.busy or place.coming or serves)

    def stored(self, endpoint: Endpoint) -> None:
        """The endpoint as it is now has come from Postgres."""
        for revision in endpoint.revisions:
            self._verdicts.forget(revision.revision_id)

    def look(self, endpoint: Endpoint, revision: Revision, now: float) -> bool:
        """Say what became of a revision, once that is known and until it is stored. True while a verdict waits for it.

        1. One on its way to the route: it serves, or has failed.
        2. One that has the route and has never been tried: the same, and nothing follows but that it is known.
        """
        revision_id = revision.revision_id
        coming = endpoint.next == revision_id
        if not endpoint.removed and (coming or (endpoint.routes_to(revision_id) and revision.outcome != "proved")):
            history = self._state.failures.of(revision_id)
            verdict = self._judge(endpoint, revision, history)
            if verdict is not Verdict.WAIT:
                self._give(endpoint, revision, verdict, history, now)
        return not self._verdicts.is_new(revision_id)

    def _judge(self, endpoint: Endpoint, revision: Revision, history: FailureHistory) -> Verdict:
        """The first verdict stands. A failure that is known already is not one again."""
        revision_id = revision.revision_id
        known = self._verdicts.of(revision_id)
        if known is not Verdict.WAIT:
            return known
        ready = sum(replica.state == "ready" for replica in self._state.replicas.of(revision_id))
        if endpoint.next == revision_id:  # 1
            return judge(needed=self._needed(endpoint, revision), ready=ready, failures=history)
        verdict = Verdict.SERVES if ready else judge(needed=1, ready=0, failures=history)  # 2
        repeated = verdict is Verdict.FAILED and revision.outcome == "failed"
        return Verdict.WAIT if repeated else verdict

    def _needed(self, endpoint: Endpoint, revision: Revision) -> int:
        routed = [revision_id for revision_id, weight in endpoint.route if weight]
        serves = endpoint.routed
        return least(
            bounds_of(revision, True),
            asked=sum(map(self._state.demand.total, routed)),
            old_runs=any(map(self._state.replicas.live, routed)),
            same_engine=serves is not None and serves.engine == revision.engine,
        )

    def _give(
        self, endpoint: Endpoint, revision: Revision, verdict: Verdict, history: FailureHistory, now: float
    ) -> None:
        revision_id = revision.revision_id
        first = self._verdicts.is_new(revision_id)
        if not self._verdicts.give(revision_id, verdict, now):
            return
        failure = (
            (history.last or history.reason or "its replicas did not stay up") if verdict is Verdict.FAILED else ""
        )
        self._effects.settle(endpoint.name, revision_id, failure)
        if not first:
            return
        coming = endpoint.next == revision_id
        serves = endpoint.routed
        if failure:
            goes_on = f"; revision {serves.number} goes on serving" if coming and serves else ""
            self._save_event(revision, "deploy_failed", f"revision {revision.number} failed: {failure}{goes_on}", now)
            log.warning(
                "a deploy failed", action="deploy_failed", name=endpoint.name, revision_id=revision_id, reason=failure
            )
        elif coming:
            instead = f", in place of revision {serves.number}" if serves else ""
            self._save_event(revision, "deployed", f"revision {revision.number} serves{instead}", now)
            log.info("a revision takes the route", action="deployed", name=endpoint.name, revision_id=revision_id)

    def _save_event(self, revision: Revision, kind: Kind, text: str, now: float) -> None:
        self._effects.save_event(EventRecord(revision.org_id, revision.revision_id, "", "", kind, text, now))
