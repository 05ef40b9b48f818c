"""Decides for one revision after another what it should have, and has it done. Step 6. Part of the reconciler's one
task.

    facts ──scaler.decide──→ Target(serving, parked, reason) ──→ ScaleUp.start | ScaleDown.apply

It gathers the facts, asks the scaler, and hands its target on. What must survive is a decision that cannot be carried
out now. The revision stays awake, and is decided again on each tick until it is as it should be.
"""

from __future__ import annotations

import math

from activator.catalogue import Endpoint, Revision
from activator.control.making_room import RoomMaker
from activator.control.publishing import Publisher
from activator.control.scale_down import ScaleDown
from activator.control.scale_up import ScaleUp
from activator.control.takeover import Takeovers
from activator.policy import scaler
from activator.policy.scale_up_request import ScaleUpRequest
from activator.policy.scaler import Facts, Load, Target
from activator.state.cluster import ClusterState
from activator.state.demand_history import PastDemand


class Scaling:
    """The control loop's body: facts, target, and who brings it about."""

    def __init__(
        self,
        state: ClusterState,
        *,
        rooms: RoomMaker,
        scale_up: ScaleUp,
        scale_down: ScaleDown,
        takeovers: Takeovers,
        publisher: Publisher,
    ) -> None:
        self._state = state
        self._rooms = rooms
        self._scale_up = scale_up
        self._scale_down = scale_down
        self._takeovers = takeovers
        self._publisher = publisher

    def decide_all(self, touched: set[str], asked_at: float, now: float) -> None:
        """Those that an event touched, the longest waiting first; then those from whom a place was just taken."""
        due = self._rooms.begin_round(touched | self._state.changed)
        for revision_id in due:
            self.decide(revision_id, asked_at, now)
        for revision_id in sorted(self._state.changed.difference(due)):
            self.decide(revision_id, asked_at, now)

    def decide(self, revision_id: str, asked_at: float, now: float) -> None:
        """What a revision should have, and what to do about it.

        1. Facts, and the target that follows from them.
        2. More come up or are started; fewer begin to drain, or to park.
        3. Whether it takes its endpoint's route, where it is about to.
        4. What the routers must know, and when to look at it again.
        """
        found = self._state.catalogue.find(revision_id)
        if found is None:
            self._state.awake.discard(revision_id)
            self._state.changed.discard(revision_id)
            return
        endpoint, revision = found
        facts, past = self._facts(endpoint, revision, now)  # 1
        target = scaler.decide(facts)
        self._state.targets[revision_id] = target
        self._apply(endpoint, revision, facts, target, asked_at)  # 2
        judged = self._takeovers.look(endpoint, revision, now)  # 3
        self._publish(endpoint, revision_id, facts.routed, now)  # 4
        self._rest(endpoint, revision_id, target, facts, past, judged=judged)

    def _facts(self, endpoint: Endpoint, revision: Revision, now: float) -> tuple[Facts, PastDemand]:
        state = self._state
        revision_id = revision.revision_id
        requests = state.demand.total(revision_id) + self._woken(revision_id, now)
        live = state.replicas.live(revision_id)
        bounds, coming = self._takeovers.bounds(endpoint, revision)
        past = state.history.remember(revision_id, bounds, requests, live, now)
        if live and past.idle_since == now:
            state.look_again_for_room()
        facts = Facts(
            bounds=bounds,
            load=Load(requests, state.knows_all_demand(now), past.peaks),
            live=live,
            now=now,
            idle_since=past.idle_since,
            routed=endpoint.routes_to(revision_id),
            coming=coming,
            parks=revision.zero == "parked",
            paused=endpoint.paused,
            removed=endpoint.removed,
            closing=state.tenure.is_closing,
        )
        return facts, past

    def _woken(self, revision_id: str, now: float) -> int:
        """Requests more, for somebody wishes it to start though nobody calls."""
        state = self._state
        if not state.wakes.waits(revision_id):
            return 0
        ready, failures = state.replicas.has_ready(revision_id), state.failures.of(revision_id)
        return state.wakes.requests(revision_id, ready=ready, failures=failures, now=now)

    def _apply(self, endpoint: Endpoint, revision: Revision, facts: Facts, target: Target, asked_at: float) -> None:
        if target.serving > facts.live:
            request = ScaleUpRequest(endpoint=endpoint, revision=revision, asked_at=asked_at, now=facts.now)
            self._scale_up.start(request, target.serving - facts.live)
        else:
            self._scale_up.cancel_waiting(revision.revision_id)
        ends = facts.removed or facts.closing
        self._scale_down.apply(revision.revision_id, target, now=facts.now, patient=facts.routed and not ends)
        if ends:
            self._scale_down.hurry(revision.revision_id, facts.now)

    def _publish(self, endpoint: Endpoint, revision_id: str, routed: bool, now: float) -> None:
        state = self._state
        if not (routed or endpoint.next == revision_id or state.replicas.live(revision_id)):
            state.failures.forget(revision_id)  # nobody waits for it any more
        if revision_id in state.changed or revision_id in state.failures.known or not routed:
            state.failures.forget_if_over(revision_id, now)
            self._publisher.put(endpoint, now)
            state.changed.discard(revision_id)

    def _rest(
        self, endpoint: Endpoint, revision_id: str, target: Target, facts: Facts, past: PastDemand, *, judged: bool
    ) -> None:
        """Look at it again on every tick only while time alone may change the decision.

        `judged`: a verdict on its takeover waits to be stored.
        """
        state, live = self._state, self._state.replicas.live(revision_id)
        steady = live == target.serving == max(past.target, facts.bounds.min_replicas)
        expires = target.until < math.inf and state.replicas.has(revision_id)
        pauses = revision_id in state.failures.known
        waits = judged or pauses or endpoint.next == revision_id or state.wakes.waits(revision_id)
        if not steady or past.peaks or expires or waits:
            state.awake.add(revision_id)
            return
        state.awake.discard(revision_id)
        if not live and not past.target:
            state.history.forget(revision_id)
            state.targets.pop(revision_id, None)
            # before, a node may report one
            if not state.replicas.has(revision_id) and state.tenure.is_settled(facts.now):
                state.catalogue.forget(revision_id)
                if state.catalogue.find(revision_id) is None:
                    state.forget(revision_id)
