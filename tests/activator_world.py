"""The activator in simulated time: a reconciler, its routers and its node, and a clock that the test moves.

`SimAgent` knows whether it was told to end a replica while a router could still send to it, and `World` asserts it
after every event: no test has to remember to look.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import Any

from activator import events
from activator.catalogue import Endpoint
from activator.control.reconciler import Reconciler
from activator.events import Event
from activator.policy.deploy import plan_settled
from activator.state.stored_state import StoredState
from activator.wire import Demand, Done, EndpointRow, RevisionRow, Table
from pilotlight.frames import Frame
from pilotlight.settings import ActivatorSettings
from runtime.wire import (
    ArgumentsChecked,
    Drain,
    KeepStandbys,
    NodeReport,
    Park,
    Refused,
    ReplicaReport,
    Shipped,
    StandbyReport,
    Start,
    Stop,
    Unpark,
    UsageBatch,
    UsageStored,
)
from tests.fakes_activator import ENVIRONMENT, FakeEffects, SimPeer, report


class SimRouter:
    """A router that applies tables when the test says so, and keeps its state as a real one does: who drains goes on
    draining.
    """

    def __init__(self, router_id: str) -> None:
        self.router_id, self.connection = router_id, 0
        self.waiting: deque[Table] = deque()
        self.rows: dict[str, EndpointRow] = {}
        self.applied = -1
        self.epoch = 0
        self.sequence = 0
        self.requests: dict[str, int] = {}
        self.retired: set[str] = set()  # cold starts of replicas it was told to send nothing to any more

    def receive(self, frame: Frame) -> None:
        if isinstance(frame, Table):
            self.waiting.append(frame)

    def apply(self, count: int = 1_000_000) -> None:
        for _ in range(min(count, len(self.waiting))):
            table = self.waiting.popleft()
            assert (table.epoch, table.sequence) >= (self.epoch, self.applied), "a table went backwards"
            assert table.whole or self.applied >= 0, "a delta before any whole table"
            if table.whole:
                self.rows = {}
            if table.whole and table.epoch > self.epoch:
                self.retired.clear()
            self.retired.update(
                r.cold_start_id for e in table.endpoints for row in e.revisions for r in row.replicas if r.draining
            )
            self.rows |= {row.name: row for row in table.endpoints}
            for name in table.removed:
                self.rows.pop(name, None)
            self.epoch, self.applied = table.epoch, table.sequence

    def revision(self, revision_id: str) -> RevisionRow:
        return next(row for e in self.rows.values() for row in e.revisions if row.revision_id == revision_id)

    def sends_to(self) -> set[str]:
        """Replicas this router would send to now."""
        rows = [replica for e in self.rows.values() for row in e.revisions for replica in row.replicas]
        return {
            replica.replica_id for replica in rows if not (replica.draining or replica.cold_start_id in self.retired)
        }


class SimAgent:
    """A node in simulated time: obeys, and reports when the test says so."""

    def __init__(self, node_id: str = "n1", memory_bytes: int = 64 << 30) -> None:
        self.node_id, self.memory_bytes, self.connection = node_id, memory_bytes, 0
        self.replicas: dict[str, ReplicaReport] = {}
        self.ordered: list[tuple[type[Frame], str]] = []
        self.stored: list[int] = []
        self.highest = (0, 0)
        self.refusing = False
        self.refused: list[Refused] = []
        self.plain: dict[str, bool] = {}  # of each start
        self.standbys_at_most: int | None = None

    def receive(self, frame: Frame) -> None:
        if isinstance(frame, UsageStored):
            self.stored.append(frame.batch)
        if not isinstance(frame, Start | Drain | Stop | Park | Unpark | KeepStandbys):
            return
        assert (frame.epoch, frame.sequence) > self.highest, "a command went backwards"
        self.highest = (frame.epoch, frame.sequence)
        if isinstance(frame, KeepStandbys):
            self.standbys_at_most = frame.at_most
            return
        self.ordered.append((type(frame), frame.replica_id))
        if isinstance(frame, Park | Unpark):
            self._park_or_unpark(frame)
        elif isinstance(frame, Start):
            assert len(frame.replica_id) <= 10
            if self.refusing:
                self.refused.append(Refused(replica_id=frame.replica_id, reason="no"))
            else:
                self.replicas[frame.replica_id] = report(frame.replica_id, "starting", revision_id=frame.revision_id)
                self.plain[frame.replica_id] = frame.plain

    def _park_or_unpark(self, frame: Park | Unpark) -> None:
        """As the real one: what is not in a state for it is left as it is."""
        known = self.replicas.get(frame.replica_id)
        if known and isinstance(frame, Park) and known.state == "ready":
            self.replicas[frame.replica_id] = known.model_copy(update={"state": "parking"})
        elif known and isinstance(frame, Unpark) and known.state in ("parking", "parked"):
            self.replicas[frame.replica_id] = known.model_copy(
                update={"state": "starting", "climb": frame.climb, "rung": "parked"}
            )

    def parking(self) -> list[str]:
        return [replica_id for replica_id, said in self.replicas.items() if said.state == "parking"]

    def starting(self) -> list[str]:
        return [replica_id for replica_id, said in self.replicas.items() if said.state == "starting"]

    def ordered_to_end(self) -> list[str]:
        """Told to drain or stop, and not stopped yet."""
        ordered = {replica_id for kind, replica_id in self.ordered if kind in (Drain, Stop)}
        return [replica_id for replica_id in self.replicas if replica_id in ordered]


class World:
    """A reconciler in simulated time, with its peers. `now` is a number the test moves."""

    def __init__(self, *endpoints: Endpoint, **settings: float) -> None:
        self.settings = ActivatorSettings.model_validate({"settle_seconds": 0.0} | settings)
        self.now = 1000.0
        self.effects = FakeEffects()
        self.routers: dict[str, SimRouter] = {}
        self.agent = SimAgent()
        self.connections = 0
        self.epoch = 1
        self._ids = count(1)
        self.postgres_away = False
        self._stored = 0  # verdicts
        self.reconciler = self._reconciler(StoredState(endpoints=endpoints))

    def _reconciler(self, stored: StoredState) -> Reconciler:
        return Reconciler(
            settings=self.settings,
            effects=self.effects,
            epoch=self.epoch,
            stored=stored,
            clock=lambda: self.now,
            new_id=lambda: f"r{next(self._ids):04}",
        )

    def handle(self, event: Event) -> None:
        ordered = len(self.agent.ordered)
        self.reconciler.handle(event)
        for kind, replica_id in self.agent.ordered[ordered:]:
            if kind in (Drain, Stop, Park):
                self._assert_nobody_sends_to(replica_id)
        self._assert_within_bounds()
        self._assert_the_parked_rest()
        self._store_verdicts()

    def _store_verdicts(self) -> None:
        """As `Commands` does: what follows from a verdict is stored, and told. With Postgres away it is lost."""
        while self._stored < len(self.effects.settled):
            name, revision_id, failure = self.effects.settled[self._stored]
            self._stored += 1
            stored = next((known for known in self.reconciler.state.catalogue if known.name == name), None)
            plan = None if self.postgres_away else plan_settled(revision_id, failure, stored)
            if plan:
                self.store(plan.endpoint)

    def restart(self, *, forget_rows: bool = False) -> None:
        """kill -9 of the activator, and its successor. `forget_rows`: it died before its rows were written."""
        for router in self.routers.values():
            router.waiting.clear()
        self.effects.peers.clear()
        rows = [] if forget_rows else list(self.reconciler.state.replicas.by_id.values())
        for replica in rows:
            replica.drain_sent = replica.stop_sent = replica.park_sent = replica.drain_after = None
            replica.unparks, replica.wanted_back, replica.plain = 0, False, False  # as Postgres has it
            if replica.state in ("starting", "parked"):
                replica.ready_at = None
        self.epoch += 1
        marks = (
            []
            if forget_rows
            else [mark for mark in self.effects.bad_rungs.values() if mark.until and mark.until > self.now]
        )
        self.reconciler = self._reconciler(
            StoredState(endpoints=list(self.reconciler.state.catalogue), replicas=rows, bad_rungs=marks)
        )

    # Routers

    def join(self, router_id: str = "w1", *, takes_parts: bool = True) -> SimRouter:
        router = self.routers.setdefault(router_id, SimRouter(router_id))
        router.connection, router.sequence = self._connect(router), 0
        router.waiting.clear()
        self.handle(events.RouterJoined(router_id, router.connection, takes_parts))
        return router

    def leave(self, router_id: str = "w1") -> None:
        router = self.routers.pop(router_id)
        self.effects.peers.pop(router.connection, None)
        self.handle(events.RouterLeft(router_id, router.connection))

    def demand(
        self, count: int | None = None, revision_id: str = "rev_a1", router_id: str = "w1", *, apply: bool = True
    ) -> None:
        """A demand frame; with `count`, a new number for one revision. `apply`: the router takes the tables that wait
        for it first.
        """
        router = self.routers[router_id]
        if apply:
            router.apply()
        if count is not None:
            router.requests = {key: n for key, n in (router.requests | {revision_id: count}).items() if n}
        router.sequence += 1
        frame = Demand(sequence=router.sequence, requests=router.requests, table_sequence=router.applied)
        self.handle(events.DemandHeard(router_id, router.connection, frame, self.now))

    # The node

    def connect_agent(self) -> None:
        said = NodeReport(
            node_id=self.agent.node_id,
            boot_id="b",
            environment=ENVIRONMENT,
            memory_bytes=self.agent.memory_bytes,
            standbys_ready=1,
            standbys_at_most=self.agent.standbys_at_most,
            highest=self.agent.highest,
            replicas=tuple(self.agent.replicas.values()),
        )
        self.agent.connection = self._connect(self.agent)
        self.handle(events.NodeJoined(self.agent.connection, said))

    def disconnect_agent(self, *, dead: bool = False) -> None:
        self.effects.peers.pop(self.agent.connection, None)
        if dead:
            self.agent.replicas.clear()
        self.handle(events.NodeLeft(self.agent.node_id, self.agent.connection, dead))

    def say(
        self, frame: ReplicaReport | ArgumentsChecked | StandbyReport | UsageBatch | Shipped | Refused | None
    ) -> None:
        if isinstance(frame, ReplicaReport):
            self.agent.replicas[frame.replica_id] = frame
            if frame.state == "stopped":
                del self.agent.replicas[frame.replica_id]
        self.handle(events.NodeHeard(self.agent.node_id, self.agent.connection, frame))

    def becomes(self, replica_id: str, state: str, **given: Any) -> None:
        before = self.agent.replicas[replica_id]
        self.say(
            report(
                replica_id,
                state,
                revision_id=before.revision_id,
                **{"climb": before.climb, "rung": before.rung} | given,
            )
        )

    def ready(self) -> str:
        """The one replica that starts becomes ready."""
        (replica_id,) = self.agent.starting()
        self.becomes(replica_id, "ready")
        return replica_id

    # Time and commands

    def pass_time(
        self, seconds: float, *, talking: Iterable[str] | None = None, lagging: Iterable[str] = (), step: float = 0.25
    ) -> None:
        """Ticks; the routers named (all, by default) and the agent say that they live. Those that lag apply no
        tables.
        """
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + step)
            for router_id in list(self.routers) if talking is None else talking:
                self.demand(router_id=router_id, apply=router_id not in lagging)
            if self.agent.connection in self.effects.peers:
                self.say(None)
            self.handle(events.Tick())

    def store(self, stored: Endpoint) -> list[Done]:
        answers: list[Done] = []
        self.handle(events.EndpointStored(stored, answers.append, Done(ok=True)))
        return answers

    def status(self) -> dict[str, Any]:
        answers: list[Done] = []
        self.handle(events.StatusAsked(answers.append))
        return answers[0].result

    def states(self) -> dict[str, str]:
        return {replica.replica_id: replica.state for replica in self.reconciler.state.replicas.by_id.values()}

    def _connect(self, peer: SimPeer) -> int:
        self.connections += 1
        self.effects.peers[self.connections] = peer
        return self.connections

    def _assert_nobody_sends_to(self, replica_id: str) -> None:
        for router in self.routers.values():
            if router.connection in self.effects.peers:
                assert replica_id not in router.sends_to(), (
                    f"{replica_id} was told to end while {router.router_id} could send to it"
                )

    def _assert_the_parked_rest(self) -> None:
        """Whoever knows all it was told sends to no replica whose door is shut."""
        shut = {replica_id for replica_id, said in self.agent.replicas.items() if said.state in ("parking", "parked")}
        for router in self.routers.values():
            if router.connection in self.effects.peers and not router.waiting:
                assert not shut & router.sends_to(), f"{router.router_id} could send to a parked replica"

    def _assert_within_bounds(self) -> None:
        state = self.reconciler.state
        for known in self.reconciler.state.catalogue:
            for each in known.revisions:
                assert state.replicas.live(each.revision_id) <= each.max_replicas, "more than max_replicas"
