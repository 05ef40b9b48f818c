"""The one writer: a single task that owns all state of the control plane. Steps 6 and 10.

It takes events from one inbox, in order; asks pure functions what they mean (`demand`, `scaler`, `placement`,
`lifecycle`); and hands decisions to `Effects`, which never waits. So a demand frame becomes a start command within the
same turn of the event loop, with Postgres away as with Postgres there. What must survive is kill -9 between any two
events: nothing here is the only copy of anything, endpoints are in Postgres and replicas are reported by their nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from activator import events
from activator.argument_checks import Checks
from activator.catalogue import Catalogue
from activator.effects import Effects
from activator.events import Event
from activator.eviction import Spares
from activator.fleet import Fleet, new_replica_id
from activator.making_room import Ask
from activator.policy import scaler
from activator.policy.demand_history import Scale, Scales
from activator.policy.estimates import Expected
from activator.policy.failures import Backoff
from activator.policy.lifecycle import Patience
from activator.policy.progress import Progress
from activator.policy.scaler import Bounds, Load
from activator.policy.turns import Terms
from activator.publishing import Telling
from activator.standby_keeping import keep_standbys
from activator.state.demand import NOBODY, DemandBook
from activator.state.nodes import Fence, Nodes
from activator.state.queue_depths import DepthBook
from activator.state.replies import Replies
from activator.state.status import status
from activator.state.stored_state import Found
from activator.state.table import TableBook
from activator.state.wakes import Woken
from activator.takeover import Takeovers
from activator.wire import Alive, Done
from pilotlight.attention import Attention
from pilotlight.settings import ActivatorSettings
from runtime.wire import Alive as AgentAlive
from runtime.wire import ArgumentsChecked, NodeReport, Refused, ReplicaReport, Shipped, StandbyReport, UsageBatch

log = structlog.get_logger()

ALIVE_SECONDS = 1.0  # between heartbeats
STRANGER_SECONDS = 10.0  # how long replicas of nodes that are away are believed in, after a start
PARTING_SECONDS = 3.0  # how long a shutdown waits for the routers to acknowledge


class Reconciler:
    def __init__(
        self,
        *,
        settings: ActivatorSettings,
        effects: Effects,
        epoch: int,
        found: Found,
        clock: Callable[[], float],
        new_id: Callable[[], str] = new_replica_id,
    ) -> None:
        now = clock()
        self._settings, self._effects, self._clock = settings, effects, clock
        self._begun, self._alive_at, self._attention = now, now, Attention()
        terms = Terms(settings.turn_seconds, settings.least_stay_seconds)
        self._fence = Fence(epoch)
        self.table = TableBook(epoch)
        self.catalogue = Catalogue()
        self.book = DemandBook(settings.silent_router_seconds)
        self.depths, self.progress = DepthBook(), Progress()
        self.fleet = Fleet(
            effects=effects,
            fence=self._fence,
            nodes=Nodes(settings.memory_fraction),
            patience=Patience(settings.start_deadline_seconds, settings.drain_seconds),
            backoff=Backoff(settings.backoff_seconds, settings.backoff_max_seconds),
            expected=Expected(found.cold_starts),
            memory=found.memory,
            terms=terms,
            bad_rungs=found.bad_rungs,
            clock=clock,
            new_id=new_id,
        )
        self._scales, self._woken = Scales(), Woken()
        self._takeovers = Takeovers(effects=effects, fleet=self.fleet, book=self.book)
        self._spares = Spares(self.catalogue, self.book, self.fleet, self._scales, self._takeovers, terms, self._whole)
        self._awake: set[str] = set()  # revisions that time alone may change
        self.telling = Telling(
            effects=effects, table=self.table, catalogue=self.catalogue, fleet=self.fleet, progress=self.progress
        )
        self._replies = Replies()
        self._checks = Checks(effects, self.fleet.nodes)
        self._awaits_nodes = True  # those whose replicas Postgres knew
        self._closing_since: float | None = None
        self._begin(found)

    def _begin(self, found: Found) -> None:
        for endpoint in found.endpoints:
            self.catalogue.put(endpoint)
            self._awake.update(
                r.revision_id for r in endpoint.revisions if r.min_replicas and endpoint.routes_to(r.revision_id)
            )
            self._awake.update([endpoint.next] if endpoint.next else [])
        for replica in found.replicas:
            self.fleet.add(replica)
            self.fleet.changed.add(replica.revision_id)  # so that what the first router is told is on record

    # The task

    async def run(self, inbox: asyncio.Queue[Event]) -> None:
        """Take events until a shutdown is complete."""
        while not self.is_finished:
            self.handle(await inbox.get())

    def agents(self) -> list[int]:
        """The links to agents there are now."""
        return [node.connection for node in self.fleet.nodes.known.values() if node.connection is not None]

    @property
    def is_finished(self) -> bool:
        return self._closing_since is not None and not self.fleet.replicas

    def handle(self, event: Event) -> None:
        """One event, to its end.

        1. Take it in.
        2. Decide for every revision it touched: starts go out here, before anything else is done.
        3. Publish what the routers must know.
        4. Only then drain, for a drain waits until the routers know.
        """
        now = self._clock()
        self._spares.look_anew()
        touched = self._take(event, now)  # 1
        asked_at = event.at if isinstance(event, events.DemandHeard) else now
        due = list(self.fleet.climbs.clearing.begin_round(touched | self.fleet.changed))
        for revision_id in due:
            self._decide(revision_id, asked_at, now)  # 2
        for revision_id in sorted(self.fleet.changed.difference(due)):  # from whom a place was just taken
            self._decide(revision_id, asked_at, now)
        self._publish(now)  # 3
        self._advance(now)  # 4

    def _take(self, event: Event, now: float) -> set[str]:
        match event:
            case events.DemandHeard():
                self.depths.said(
                    event.connection, event.frame.in_flight, self.fleet.revision_of, partial=event.frame.partial
                )
                return self.book.report(event.router_id, event.connection, event.frame, now)
            case events.RouterHeard():
                self.book.hear(event.router_id, event.connection, now)
            case events.RouterJoined():
                self._router_joined(event, now)
            case events.RouterLeft():
                self.telling.leave(event.connection)
                self.depths.leave(event.connection)
                self.book.leave(event.router_id, event.connection)
            case events.NodeJoined():
                self._node_joined(event.report, event.connection, now)
                return set(self._awake)
            case events.NodeHeard():
                self._node_heard(event, now)
            case events.NodeLeft():
                if self.fleet.nodes.leave(event.node_id, event.connection) and event.dead:
                    self.fleet.node_died(event.node_id, now)
            case events.EndpointStored():
                return self._stored(event, now)
            case events.ArgumentsAsked():
                self._checks.ask(event, now)
            case events.StatusAsked():
                event.reply(
                    Done(
                        ok=True, result=status(self.catalogue, self.book, self.fleet, epoch=self._fence.epoch, now=now)
                    )
                )
            case events.WakeAsked():
                return self._wake(event, now)
            case events.EpochTaken():
                self._fence.epoch = event.epoch
                self.telling.begin(event.epoch, now)
            case events.Tick():
                return self._tick(now)
            case events.ShutDown():
                return self._shut_down(event.hastily, now)
        return set()

    # Routers

    def _router_joined(self, event: events.RouterJoined, now: float) -> None:
        replaced = self.book.join(event.router_id, event.connection, now)
        if replaced is not None:
            self.telling.leave(replaced)
            self._effects.hang_up(replaced)
        self._publish(now)  # to the others, before this one gets everything
        self.telling.join(event.connection, takes_parts=event.takes_parts, now=now)
        self.depths.join(event.connection, {replica.revision_id for replica in self.fleet.replicas.values()})

    # Nodes

    def _node_joined(self, report: NodeReport, connection: int, now: float) -> None:
        """Adopt what it runs. One that has obeyed a higher epoch than ours obeys us only after we have taken a higher
        one.
        """
        if report.highest[0] > self._fence.epoch:
            log.warning(
                "an agent has obeyed a higher epoch", action="epoch_low", node_id=report.node_id, highest=report.highest
            )
            self._effects.raise_epoch(report.highest[0])
            self._effects.hang_up(connection)
            return
        replaced = self.fleet.nodes.join(report, connection, now)
        if replaced is not None:
            self._effects.hang_up(replaced)
        self.fleet.join(report, self.catalogue.revision, now)
        log.info(
            "node joined",
            action="node_joined",
            node_id=report.node_id,
            replicas=len(report.replicas),
            standbys=report.standbys_ready,
        )

    def _node_heard(self, event: events.NodeHeard, now: float) -> None:
        node = self.fleet.nodes.at(event.node_id, event.connection)
        if node is None:
            return
        node.heard_at = now
        match event.frame:
            case ReplicaReport():
                self.fleet.observe(node.node_id, event.frame, self.catalogue.revision, now)
                self.depths.touch(event.frame.revision_id)
            case StandbyReport():
                self.fleet.nodes.standby(node, event.frame)
            case UsageBatch() | Shipped():
                self._effects.save_usage(event.connection, event.frame)
            case ArgumentsChecked():
                self._checks.answered(event.frame)
            case Refused():
                self.fleet.refused(event.frame, now)

    # Commands, time

    def _stored(self, event: events.EndpointStored, now: float) -> set[str]:
        before = self.catalogue.endpoints.get(event.endpoint.endpoint_id)
        self.catalogue.put(event.endpoint)
        endpoint = self.catalogue.endpoints[event.endpoint.endpoint_id]
        self._takeovers.stored(endpoint)
        for revision_id, _weight in endpoint.route:
            if before and before.next == revision_id:
                self._scales.forget(
                    revision_id
                )  # what it has now is what was wanted until now: it goes by its idle timeout
        self.telling.put(endpoint, now, altered=True)
        revisions = {revision.revision_id for revision in endpoint.revisions}
        for revision_id in revisions:
            self._decide(revision_id, now, now)
        self._publish(now)
        self._replies.add(self.table.sequence, now, event.reply, event.done)
        return set()

    def _wake(self, event: events.WakeAsked, now: float) -> set[str]:
        endpoint = self.catalogue.named(event.name, event.org_id)
        revision = endpoint.routed if endpoint else None
        if endpoint is not None and endpoint.paused:
            event.reply(Done(ok=False, message=f"{event.name!r} is paused: `pilotlight resume {event.name}` first"))
            return set()
        if endpoint is None or revision is None:
            event.reply(
                Done(
                    ok=False,
                    message=f"there is no endpoint {event.name!r} with a route: `pilotlight ls` lists those there are",
                )
            )
            return set()
        ready = self._ready(revision.revision_id)
        if not ready:
            self._woken.ask(revision.revision_id, now, endpoint.hold_seconds)
        event.reply(
            Done(ok=True, result={"revision_id": revision.revision_id, "number": revision.number, "ready": ready})
        )
        return {revision.revision_id}

    def _ready(self, revision_id: str) -> bool:
        return any(replica.state == "ready" for replica in self.fleet.of(revision_id))

    def _tick(self, now: float) -> set[str]:
        missed = self._attention.missed(now)  # this process was stopped, or slept: silence of that time is nobody's
        self.book.forgive(missed, now)
        self.fleet.nodes.forgive(missed, now)
        self._checks.expire(now)
        changed, silent = self.book.expire(now)
        for connection in silent:
            log.warning("a router has gone silent; hanging up", action="router_silent", connection=connection)
            self.telling.leave(connection)
            self._effects.hang_up(connection)
        if self._awaits_nodes and now - self._begun > STRANGER_SECONDS:
            self._awaits_nodes = False
            self.fleet.bury_strangers(now)
        self.fleet.changed |= self.progress.look(self.fleet.starting(), self.fleet.climbs.clearing.unserved(), now)
        for connection, depths in self.depths.tell(self.fleet.of):
            self._effects.send(connection, depths)
        for connection in self.fleet.nodes.silent(now):
            self._effects.hang_up(connection)
        if self._settled(now) and self._closing_since is None:
            keep_standbys(
                self.fleet, none=self.catalogue.all_staged and not self.fleet.any_live and not any(self.book.wanted())
            )
        if now - self._alive_at >= ALIVE_SECONDS:
            self._alive_at = now
            self.telling.everybody(Alive())
            for node in self.fleet.nodes.known.values():
                if node.connection is not None:
                    self._effects.send(node.connection, AgentAlive())
        return changed | self._awake

    def _shut_down(self, hastily: bool, now: float) -> set[str]:
        log.info("ending every replica", action="shut_down", replicas=len(self.fleet.replicas), hastily=hastily)
        self._closing_since = now if self._closing_since is None else self._closing_since
        if hastily:
            for replica in list(self.fleet.replicas.values()):
                self.fleet.stop(replica, now)
        return {replica.revision_id for replica in self.fleet.replicas.values()}

    # Decisions

    def _settled(self, now: float) -> bool:
        """Has everybody who knew the last activator had time to come back?"""
        return self._closing_since is not None or now - self._begun >= self._settings.settle_seconds

    def _decide(self, revision_id: str, asked_at: float, now: float) -> None:
        """How many replicas of a revision there should be, and what to do about it.

        1. Its bounds: no least number, and no waiting for more, once no route leads to it; before one does, what it
           needs to take it.
        2. None at all where its endpoint is removed or paused, or all of this is ending; none anew where no route
           leads. What is to take the route over shows that it serves all the same.
        3. Else what the scaler says.
        4. More come up or are started; fewer begin to drain, the last of them to park where that is where it rests.
        """
        found = self.catalogue.find(revision_id)
        if found is None:
            self._awake.discard(revision_id)
            self.fleet.changed.discard(revision_id)
            return
        endpoint, revision = found
        routed = endpoint.routes_to(revision_id)
        bounds, coming = self._takeovers.bounds(endpoint, revision), self._takeovers.comes(endpoint, revision)  # 1
        trouble = self.fleet.troubles.get(revision_id)
        woken = self._woken.requests(revision_id, ready=self._ready(revision_id), trouble=trouble, now=now)
        requests, live = self.book.total(revision_id) + woken, self.fleet.live(revision_id)
        scale = self._scales.remember(revision_id, bounds, requests, live, now)
        if live and scale.idle_since == now:
            self.fleet.look_again_for_room()
        ends = endpoint.removed or self._closing_since is not None
        paused = endpoint.paused and not coming
        rests = routed and revision.zero == "parked" and not (ends or paused)
        load = Load(requests, self._whole(now), scale.peaks)
        wanted = (
            0 if ends or paused or not (routed or coming or live) else scaler.decide(bounds, load, live, now)
        )  # 2, 3
        if wanted > live:  # 4
            places = self._takeovers.places(endpoint, self._spares.places) if coming else self._spares.places
            ask = Ask(endpoint=endpoint, revision=revision, asked_at=asked_at, now=now, places=places)
            self.fleet.climbs.grow(ask, wanted - live)
        else:
            self.fleet.climbs.enough(revision_id)
            if wanted < live:
                self.fleet.parting.shrink(
                    revision_id, live - wanted, now=now, park=rests and not wanted, patient=routed and not ends
                )
        if wanted >= live:
            self.fleet.parting.enough(revision_id)
        self.fleet.parting.end_resting(revision_id, keep=1 if rests else 0)
        if ends:
            self.fleet.parting.hurry(revision_id, now)
        self._takeovers.look(endpoint, revision, now)
        if not (routed or endpoint.next == revision_id or live):
            self.fleet.troubles.pop(revision_id, None)  # nobody waits for it any more
        if revision_id in self.fleet.changed or revision_id in self.fleet.troubles or not routed:
            self.fleet.forget_trouble(revision_id, now)
            self.telling.put(endpoint, now)
            self.fleet.changed.discard(revision_id)
        self._rest(revision_id, wanted, bounds, scale, now)

    def _whole(self, now: float) -> bool:
        """Is what the routers said all the demand there is?"""
        return self._settled(now) and self.book.whole()

    def _rest(self, revision_id: str, wanted: int, bounds: Bounds, scale: Scale, now: float) -> None:
        """Look at it again on every tick only while time alone may change the decision."""
        live = self.fleet.live(revision_id)
        if live != max(scale.target, bounds.min_replicas) or live != wanted or scale.peaks or self._waits(revision_id):
            self._awake.add(revision_id)
            return
        self._awake.discard(revision_id)
        if not live and not scale.target:
            self._scales.forget(revision_id)
            if not self.fleet.has(revision_id) and self._settled(now):  # before, its node may still report one
                self.catalogue.forget(revision_id)
                if self.catalogue.find(revision_id) is None:
                    self.fleet.forget(revision_id)

    def _waits(self, revision_id: str) -> bool:
        """For a pause to end, a verdict to be stored, or its turn to serve."""
        found = self.catalogue.find(revision_id)
        comes = found is not None and found[0].next == revision_id
        return (
            comes
            or revision_id in self.fleet.troubles
            or self._takeovers.waits(revision_id)
            or self._woken.waits(revision_id)
        )

    # Telling

    def _publish(self, now: float) -> None:
        for revision_id in list(self.fleet.changed):
            self.fleet.changed.discard(revision_id)
            if found := self.catalogue.find(revision_id):
                self._awake.add(revision_id)
                self.telling.put(found[0], now)
        self.telling.publish()

    def _advance(self, now: float) -> None:
        acknowledged = self.book.acknowledged()
        if self._closing_since is not None and now - self._closing_since > PARTING_SECONDS:
            acknowledged = NOBODY
        self.fleet.advance(
            self.catalogue.revision,
            self.catalogue.finish_seconds,
            now=now,
            acknowledged=acknowledged,
            settled=self._settled(now),
        )
        if self.fleet.changed:
            self._publish(now)
        self._replies.give(acknowledged, now)
