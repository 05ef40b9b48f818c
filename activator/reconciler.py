"""The one writer: a single task that owns all state of the control plane. Steps 6 and 10.

It takes events from one inbox, in order; asks pure functions what they mean (`demand`, `scaler`, `placement`,
`lifecycle`); and hands decisions to `Effects`, which never waits. So a demand frame becomes a start command within the
same turn of the event loop, with Postgres away as with Postgres there. What must survive is kill -9 between any two
events: nothing here is the only copy of anything, endpoints are in Postgres and replicas are reported by their nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from activator import events, scaler
from activator.catalogue import Catalogue, Endpoint, Revision
from activator.demand import NOBODY, DemandBook
from activator.effects import Effects
from activator.events import Event
from activator.fleet import NODE_GRACE_SECONDS, Fleet, new_replica_id
from activator.lifecycle import Backoff, Patience, Replica
from activator.nodes import Fence, Nodes
from activator.placement import Idle
from activator.scaler import Bounds, Load, Peak
from activator.status import status
from activator.table import Expected, TableBook, endpoint_row, revision_row
from activator.wire import Alive, Done, EndpointRow
from pilotlight.settings import ActivatorSettings
from runtime.wire import Alive as AgentAlive
from runtime.wire import NodeReport, Refused, ReplicaReport, StandbyReport, UsageBatch

log = structlog.get_logger()

ALIVE_SECONDS = 1.0  # between heartbeats
SILENT_NODE_SECONDS = 15.0  # an agent that says nothing for so long is connected to anew
REPLY_SECONDS = 3.0  # how long a command waits for the routers to know its result
PARTING_SECONDS = 3.0  # how long a shutdown waits for the routers to acknowledge


@dataclass(slots=True)
class Scale:
    """What the scaler remembers of a revision that is not at rest."""

    target: int = 0
    peaks: tuple[Peak, ...] = ()
    idle_since: float | None = None  # the end of the last request; None while there are any


@dataclass(slots=True)
class Found:
    """What Postgres had when this activator took over."""

    endpoints: Iterable[Endpoint] = ()
    replicas: Iterable[Replica] = ()
    cold_starts: Mapping[str, Iterable[float]] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)


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
        self._begun, self._alive_at = now, now
        self._fence = Fence(epoch)
        self.table = TableBook(epoch)
        self.catalogue = Catalogue()
        self.book = DemandBook(settings.silent_router_seconds)
        self.fleet = Fleet(
            effects=effects,
            fence=self._fence,
            nodes=Nodes(nodeless_since=now, memory_fraction=settings.memory_fraction),
            patience=Patience(settings.start_deadline_seconds, settings.drain_seconds),
            backoff=Backoff(settings.backoff_seconds, settings.backoff_max_seconds),
            expected=Expected(found.cold_starts),
            memory=found.memory,
            clock=clock,
            new_id=new_id,
        )
        self._scales: dict[str, Scale] = {}
        self._awake: set[str] = set()  # revisions that time alone may change
        self._subscribers: set[int] = set()  # routers' connections
        self._replies: list[tuple[int, float, events.Reply, Done]] = []  # (table sequence, deadline, …)
        self._awaits_nodes = True  # those whose replicas Postgres knew
        self._closing_since: float | None = None
        self._begin(found)

    def _begin(self, found: Found) -> None:
        for endpoint in found.endpoints:
            self.catalogue.put(endpoint)
            self._awake.update(r.revision_id for r in endpoint.revisions if r.min_replicas and endpoint.routes_to(r.revision_id))
        for replica in found.replicas:
            self.fleet.add(replica)
            self.fleet.changed.add(replica.revision_id)  # so that what the first router is told is on record

    # The task

    async def run(self, inbox: asyncio.Queue[Event]) -> None:
        """Take events until a shutdown is complete."""
        while not self.is_finished:
            self.handle(await inbox.get())

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
        touched = self._take(event, now)  # 1
        asked_at = event.at if isinstance(event, events.DemandHeard) else now
        for revision_id in sorted(touched | self.fleet.changed):
            self._decide(revision_id, asked_at, now)  # 2
        self._publish(now)  # 3
        self._advance(now)  # 4

    def _take(self, event: Event, now: float) -> set[str]:
        match event:
            case events.DemandHeard():
                return self.book.report(event.router_id, event.connection, event.frame, now)
            case events.RouterHeard():
                self.book.hear(event.router_id, event.connection, now)
            case events.RouterJoined():
                self._router_joined(event, now)
            case events.RouterLeft():
                self._subscribers.discard(event.connection)
                if self.book.leave(event.router_id, event.connection):
                    self._share_anew()
            case events.NodeJoined():
                self._node_joined(event.report, event.connection, now)
                return set(self._awake)
            case events.NodeHeard():
                self._node_heard(event, now)
            case events.NodeLeft():
                if self.fleet.nodes.leave(event.node_id, event.connection, now) and event.dead:
                    self.fleet.node_died(event.node_id, now)
            case events.EndpointStored():
                return self._stored(event, now)
            case events.StatusAsked():
                known = status(self.catalogue, self.book, self.fleet, epoch=self._fence.epoch, now=now)
                event.reply(Done(ok=True, result=known))
            case events.EpochTaken():
                self._fence.epoch = event.epoch
                self.table.begin(event.epoch)
                self._send_whole(self._subscribers, now)
            case events.Tick():
                return self._tick(now)
            case events.ShutDown():
                return self._shut_down(event.hastily, now)
        return set()

    # Routers

    def _router_joined(self, event: events.RouterJoined, now: float) -> None:
        replaced = self.book.join(event.router_id, event.connection, now)
        if replaced is not None:
            self._subscribers.discard(replaced)
            self._effects.hang_up(replaced)
        self._share_anew()
        self._publish(now)  # to the others, before this one gets everything
        self._send_whole({event.connection}, now)
        self._subscribers.add(event.connection)

    def _share_anew(self) -> None:
        """The number of routers changed, and with it each one's part of every replica's slots."""
        self.fleet.changed.update(replica.revision_id for replica in self.fleet.replicas.values() if replica.ready_at is not None)

    def _send_whole(self, connections: Iterable[int], now: float) -> None:
        rows = [self._row(endpoint, now)[0] for endpoint in self.catalogue if not endpoint.removed]
        table = self.table.whole(rows)
        for connection in connections:
            self._effects.send(connection, table)

    # Nodes

    def _node_joined(self, report: NodeReport, connection: int, now: float) -> None:
        """Adopt what it runs. One that has obeyed a higher epoch than ours obeys us only after we have taken a higher one."""
        if report.highest[0] > self._fence.epoch:
            log.warning("an agent has obeyed a higher epoch", action="epoch_low", node_id=report.node_id, highest=report.highest)
            self._effects.raise_epoch(report.highest[0])
            self._effects.hang_up(connection)
            return
        replaced = self.fleet.nodes.join(report, connection, now)
        if replaced is not None:
            self._effects.hang_up(replaced)
        self.fleet.join(report, self._find_revision, now)
        log.info("node joined", action="node_joined", node_id=report.node_id, replicas=len(report.replicas), standbys=report.standbys_ready)

    def _node_heard(self, event: events.NodeHeard, now: float) -> None:
        node = self.fleet.nodes.at(event.node_id, event.connection)
        if node is None:
            return
        node.heard_at = now
        match event.frame:
            case ReplicaReport():
                self.fleet.observe(node.node_id, event.frame, self._find_revision, now)
            case StandbyReport():
                self.fleet.nodes.standby(node, event.frame)
            case UsageBatch():
                self._effects.save_usage(event.connection, event.frame)
            case Refused():
                self.fleet.refused(event.frame, now)

    def _find_revision(self, revision_id: str) -> Revision | None:
        found = self.catalogue.find(revision_id)
        return found[1] if found else None

    # Commands, time

    def _stored(self, event: events.EndpointStored, now: float) -> set[str]:
        self.catalogue.put(event.endpoint)
        endpoint = self.catalogue.endpoints[event.endpoint.endpoint_id]
        self._tell(endpoint, now, altered=True)
        revisions = {revision.revision_id for revision in endpoint.revisions}
        for revision_id in revisions:
            self._decide(revision_id, now, now)
        self._publish(now)
        self._replies.append((self.table.sequence, now + REPLY_SECONDS, event.reply, event.done))
        return set()

    def _tick(self, now: float) -> set[str]:
        changed, silent = self.book.expire(now)
        for connection in silent:
            log.warning("a router has gone silent; hanging up", action="router_silent", connection=connection)
            self._subscribers.discard(connection)
            self._effects.hang_up(connection)
        if silent:
            self._share_anew()
        if self._awaits_nodes and now - self._begun > NODE_GRACE_SECONDS:
            self._awaits_nodes = False
            self.fleet.bury_strangers(now)
        nodes = [node for node in self.fleet.nodes.known.values() if node.connection is not None]
        for node in nodes:
            if node.connection is not None and now - node.heard_at > SILENT_NODE_SECONDS:
                log.warning("an agent has gone silent; connecting anew", action="node_silent", node_id=node.node_id)
                self._effects.hang_up(node.connection)
                node.heard_at = now  # its end is on its way
        if now - self._alive_at >= ALIVE_SECONDS:
            self._alive_at = now
            for connection in self._subscribers:
                self._effects.send(connection, Alive())
            for node in nodes:
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

        1. Its bounds: no least number, and no waiting for more, once no route leads to it.
        2. None at all where its endpoint is removed, or all of this is ending.
        3. Else what the scaler says.
        4. More are started; fewer begin to drain.
        """
        found = self.catalogue.find(revision_id)
        if found is None:
            self._awake.discard(revision_id)
            self.fleet.changed.discard(revision_id)
            return
        endpoint, revision = found
        routed = endpoint.routes_to(revision_id)
        bounds = _bounds(revision, routed)  # 1
        requests, live = self.book.total(revision_id), self.fleet.live(revision_id)
        scale = self._remember(revision_id, bounds, requests, live, now)
        if endpoint.removed or self._closing_since is not None:
            wanted = 0  # 2
        else:
            wanted = scaler.decide(bounds, Load(requests, self._whole(now), scale.peaks), live, now)  # 3
        if wanted > live:  # 4
            self.fleet.grow(endpoint, revision, wanted - live, asked_at, now, lambda: self._spare(now))
        else:
            self.fleet.enough(revision_id)
            if wanted < live:
                self.fleet.shrink(revision_id, live - wanted)
        if revision_id in self.fleet.changed or revision_id in self.fleet.troubles or not routed:
            self._forget_trouble(revision_id, now)
            self._tell(endpoint, now)
            self.fleet.changed.discard(revision_id)
        self._rest(revision_id, wanted, bounds, scale, now)

    def _remember(self, revision_id: str, bounds: Bounds, requests: int, live: int, now: float) -> Scale:
        """What runs and was not started here (a predecessor did) is taken as wanted until now: it has an idle timeout to prove it."""
        scale = self._scales.get(revision_id)
        if scale is None:
            scale = self._scales[revision_id] = Scale(target=live)
        target = scaler.target(bounds, requests)
        scale.peaks = scaler.forget(scaler.remember(scale.peaks, scale.target, target, now), bounds, now)
        scale.target = target
        if requests:
            scale.idle_since = None
        elif scale.idle_since is None:
            scale.idle_since = now
            if live:
                self.fleet.look_again_for_room()
        return scale

    def _whole(self, now: float) -> bool:
        """Is what the routers said all the demand there is?"""
        return self._settled(now) and self.book.whole()

    def _spare(self, now: float) -> Iterable[Idle]:
        """The replicas that others may have the memory of: nobody asks for them, their gate has nothing, and there are more than the least."""
        for endpoint in self.catalogue:
            for revision in endpoint.revisions:
                live = [replica for replica in self.fleet.of(revision.revision_id) if replica.state in ("starting", "ready")]
                load = Load(self.book.total(revision.revision_id), self._whole(now))
                count = scaler.spare(_bounds(revision, endpoint.routes_to(revision.revision_id)), load, len(live)) if live else 0
                idle = [replica for replica in live if not replica.in_flight]
                scale = self._scales.get(revision.revision_id)
                since = now if scale is None or scale.idle_since is None else scale.idle_since
                for replica in idle[:count]:
                    yield Idle(replica.replica_id, replica.node_id, replica.needs_bytes, since)

    def _forget_trouble(self, revision_id: str, now: float) -> None:
        trouble = self.fleet.troubles.get(revision_id)
        if trouble and trouble.is_over(now, Backoff(self._settings.backoff_seconds, self._settings.backoff_max_seconds)):
            del self.fleet.troubles[revision_id]

    def _rest(self, revision_id: str, wanted: int, bounds: Bounds, scale: Scale, now: float) -> None:
        """Look at it again on every tick only while time alone may change the decision."""
        live = self.fleet.live(revision_id)
        if live != max(scale.target, bounds.min_replicas) or live != wanted or scale.peaks or revision_id in self.fleet.troubles:
            self._awake.add(revision_id)
            return
        self._awake.discard(revision_id)
        if not live and not scale.target:
            self._scales.pop(revision_id, None)
            if not self.fleet.has(revision_id) and self._settled(now):  # before, its node may still report one
                self.catalogue.forget(revision_id)

    # Telling

    def _tell(self, endpoint: Endpoint, now: float, altered: bool = False) -> None:
        if endpoint.removed:
            if altered:
                self.table.remove(endpoint.name)
            return
        row, at_rest = self._row(endpoint, now)
        self.table.put(row, at_rest=at_rest, altered=altered)

    def _row(self, endpoint: Endpoint, now: float) -> tuple[EndpointRow, bool]:
        """The endpoint's row, and whether it is at rest: routed revisions, and others as long as somebody uses them."""
        rows, at_rest, routers = [], True, self.book.connected()
        for revision in endpoint.revisions:
            revision_id = revision.revision_id
            busy = self.fleet.has(revision_id) or (self.book.total(revision_id) > 0 and not endpoint.routes_to(revision_id))
            if busy or endpoint.routes_to(revision_id):
                expected = self.fleet.expected.seconds(revision_id)
                trouble = self.fleet.troubles.get(revision_id)
                row = revision_row(revision, self.fleet.of(revision_id), trouble, expected, routers, now)
                rows.append(row)
                at_rest = at_rest and not busy and not row.failure
        return endpoint_row(endpoint, rows), at_rest

    def _publish(self, now: float) -> None:
        for revision_id in list(self.fleet.changed):
            self.fleet.changed.discard(revision_id)
            if found := self.catalogue.find(revision_id):
                self._awake.add(revision_id)
                self._tell(found[0], now)
        delta = self.table.delta()
        if delta is not None:
            for connection in self._subscribers:
                self._effects.send(connection, delta)
        self.fleet.tabled(self.table.sequence)

    def _advance(self, now: float) -> None:
        acknowledged = self.book.acknowledged()
        if self._closing_since is not None and now - self._closing_since > PARTING_SECONDS:
            acknowledged = NOBODY
        self.fleet.advance(now=now, acknowledged=acknowledged, settled=self._settled(now))
        if self.fleet.changed:
            self._publish(now)
        if self._replies:
            due = [reply for reply in self._replies if acknowledged >= reply[0] or now >= reply[1]]
            self._replies = [reply for reply in self._replies if reply not in due]
            for _sequence, _deadline, reply, done in due:
                reply(done)


def _bounds(revision: Revision, routed: bool) -> Bounds:
    """Of a revision no route leads to: no least number, and no waiting for more."""
    return Bounds(
        min_replicas=revision.min_replicas if routed else 0,
        max_replicas=revision.max_replicas,
        idle_timeout_seconds=revision.idle_timeout_seconds if routed else 0.0,
        concurrency=revision.concurrency,
    )
