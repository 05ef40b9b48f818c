"""The one writer: a single task that owns all state of the control plane. Steps 6 and 10.

    event ──→ taken into the state ──→ decided ──→ published ──→ drained
               router_links, reports    scaling     publishing    transitions

It takes events from one inbox, in order. Pure functions (`policy/`) say what they mean, and `Effects` carries decisions
out without waiting. So a demand frame becomes a start command within the same turn of the event loop, with Postgres
away as with Postgres there. What must survive is kill -9 between any two events: nothing here is the only copy of
anything. Endpoints are in Postgres, and nodes report their replicas.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import structlog

from activator import events
from activator.catalogue import Catalogue
from activator.control.argument_checks import Checks
from activator.control.eviction import EvictableReplicas
from activator.control.making_room import RoomMaker
from activator.control.node_commands import NodeCommands
from activator.control.operator_requests import OperatorRequests
from activator.control.publishing import Publisher
from activator.control.reports import Reports
from activator.control.router_links import RouterLinks
from activator.control.scale_down import ScaleDown
from activator.control.scale_up import ScaleUp
from activator.control.scaling import Scaling
from activator.control.standby_keeping import keep_standbys
from activator.control.takeover import Takeovers
from activator.control.transitions import Transitions
from activator.effects import Effects
from activator.events import Event
from activator.policy.lifecycle import Patience
from activator.policy.turns import Terms
from activator.state.cluster import ClusterState
from activator.state.demand import NOBODY
from activator.state.replies import Replies
from activator.state.stored_state import StoredState
from activator.wire import Alive
from pilotlight.attention import Attention
from pilotlight.settings import ActivatorSettings
from runtime.wire import Alive as AgentAlive

log = structlog.get_logger()

ALIVE_SECONDS = 1.0  # between heartbeats


def new_replica_id() -> str:
    """Never used twice, and short: sockets carry it in their path."""
    return f"r{secrets.token_hex(4)}"


class Reconciler:
    """Builds the parts in order, each from those before it, and takes every event through them."""

    def __init__(
        self,
        *,
        settings: ActivatorSettings,
        effects: Effects,
        epoch: int,
        stored: StoredState,
        clock: Callable[[], float],
        new_id: Callable[[], str] = new_replica_id,
        catalogue: Catalogue | None = None,
    ) -> None:
        """`catalogue`: empty still, and with whoever listens to it."""
        now = clock()
        terms = Terms(settings.turn_seconds, settings.least_stay_seconds)
        patience = Patience(settings.start_deadline_seconds, settings.drain_seconds)
        state = ClusterState.restore(stored, settings, effects, catalogue or Catalogue(), epoch=epoch, now=now)
        commands = NodeCommands(nodes=state.nodes, fence=state.fence, effects=effects)
        takeovers = Takeovers(state, effects)
        evictable = EvictableReplicas(state, takeovers=takeovers, terms=terms)
        rooms = RoomMaker(state, effects=effects, evictable=evictable, takeovers=takeovers, terms=terms)
        up = ScaleUp(state, rooms=rooms, commands=commands, patience=patience, clock=clock, new_id=new_id)
        down = ScaleDown(state)
        publisher = Publisher(state, effects)
        scaling = Scaling(state, rooms=rooms, scale_up=up, scale_down=down, takeovers=takeovers, publisher=publisher)
        checks, replies = Checks(effects, state.nodes), Replies()
        self.state = state
        self.publisher = publisher
        self._effects = effects
        self._clock = clock
        self._commands = commands
        self._evictable = evictable
        self._scaling = scaling
        self._checks = checks
        self._replies = replies
        self._transitions = Transitions(state, effects=effects, commands=commands, scale_up=up, patience=patience)
        self._reports = Reports(state, effects=effects, commands=commands, checks=checks, patience=patience)
        self._routers = RouterLinks(state, effects=effects, publisher=publisher)
        self._operators = OperatorRequests(
            state, scaling=scaling, takeovers=takeovers, publisher=publisher, replies=replies
        )
        self._attention = Attention()
        self._alive_at = now  # the last heartbeat

    async def run(self, inbox: asyncio.Queue[Event]) -> None:
        """Take events until a shutdown is complete."""
        while not self.is_finished:
            self.handle(await inbox.get())

    @property
    def is_finished(self) -> bool:
        return self.state.tenure.is_closing and not self.state.replicas.by_id

    def handle(self, event: Event) -> None:
        """One event, to its end.

        1. Take it in.
        2. Decide for every revision it touched: starts go out here, before anything else is done.
        3. Publish what the routers must know.
        4. Only then drain, for a drain waits until the routers know.
        """
        now = self._clock()
        self._evictable.look_anew()
        touched = self._note(event, now)  # 1
        asked_at = event.at if isinstance(event, events.DemandHeard) else now
        self._scaling.decide_all(touched, asked_at, now)  # 2
        self.publisher.publish(now)  # 3
        self._advance(now)  # 4

    def _note(self, event: Event, now: float) -> set[str]:
        """Returns the revisions to decide, beside those that are marked as changed."""
        match event:
            case events.DemandHeard():
                return self._routers.demand(event, now)
            case events.RouterHeard():
                self._routers.heard(event, now)
            case events.RouterJoined():
                self._routers.joined(event, now)
            case events.RouterLeft():
                self._routers.left(event)
            case events.NodeJoined() | events.NodeHeard() | events.NodeLeft():
                return self._note_node(event, now)
            case events.EndpointStored():
                self._operators.stored(event, now)
            case events.ArgumentsAsked():
                self._checks.ask(event, now)
            case events.StatusAsked():
                self._operators.status(event, now)
            case events.WakeAsked():
                return self._operators.wake(event, now)
            case events.EpochTaken():
                self.state.fence.epoch = event.epoch
                self.publisher.begin(event.epoch, now)
            case events.Tick():
                return self._tick(now)
            case events.ShutDown():
                return self._shut_down(event.hastily, now)
        return set()

    def _note_node(self, event: events.NodeJoined | events.NodeHeard | events.NodeLeft, now: float) -> set[str]:
        match event:
            case events.NodeJoined():
                self._reports.joined(event.report, event.connection, now)
                return set(self.state.awake)
            case events.NodeHeard():
                revision_id = self._reports.heard(event, now)
                if revision_id is not None:
                    self._routers.touch(revision_id)
            case events.NodeLeft():
                if self.state.nodes.leave(event.node_id, event.connection) and event.dead:
                    self._reports.node_died(event.node_id, now)
        return set()

    # Time

    def _tick(self, now: float) -> set[str]:
        """What time alone brings about. Returns the revisions to decide."""
        state = self.state
        missed = self._attention.missed(now)  # this process was stopped, or slept: silence of that time is nobody's
        state.demand.forgive(missed, now)
        state.nodes.forgive(missed, now)
        self._checks.expire(now)
        changed = self._routers.expire(now)
        if state.tenure.gives_up_nodes(now):
            self._reports.drop_strangers(now)
        self.publisher.look_at_starts(now)
        self._routers.send_depths()
        for connection in state.nodes.silent(now):
            self._effects.hang_up(connection)
        if state.tenure.is_settled(now) and not state.tenure.is_closing:
            keep_standbys(state, self._commands)
        if now - self._alive_at >= ALIVE_SECONDS:
            self._alive_at = now
            self._beat()
        return changed | state.awake

    def _beat(self) -> None:
        self.publisher.send_all(Alive())
        for connection in self.state.nodes.connections():
            self._effects.send(connection, AgentAlive())

    def _shut_down(self, hastily: bool, now: float) -> set[str]:
        replicas = list(self.state.replicas.by_id.values())
        log.info("ending every replica", action="shut_down", replicas=len(replicas), hastily=hastily)
        self.state.tenure.close(now)
        if hastily:
            for replica in replicas:
                self._transitions.stop(replica, now)
        return {replica.revision_id for replica in replicas}

    def _advance(self, now: float) -> None:
        acknowledged = self.state.demand.acknowledged()
        if self.state.tenure.gives_up_routers(now):
            acknowledged = NOBODY
        self._transitions.advance(now=now, acknowledged=acknowledged)
        if self.state.changed:
            self.publisher.publish(now)
        self._replies.give(acknowledged, now)
