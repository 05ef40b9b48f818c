"""The replicas: started, observed, adopted, drained. Steps 6, 7 and 10. Part of the reconciler's one task, nobody
else's.

It acts only through `Effects` and leaves in `changed` the revisions that something happened to. What must survive: a
link to an agent that breaks with commands on their way, an agent that dies with its replicas, and an activator that
comes back knowing only what Postgres had. All three end in `join`: the node's own report decides what runs, whatever
was believed.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog

from activator.catalogue import Revision
from activator.effects import Effects
from activator.making_room import Clearing
from activator.policy import failures as trouble_of
from activator.policy import lifecycle
from activator.policy import quarantine as rungs
from activator.policy.estimates import Expected, PastStart
from activator.policy.failures import Backoff, Trouble
from activator.policy.lifecycle import Event, Patience, Replica, Step
from activator.policy.quarantine import BadRung, Rungs
from activator.policy.turns import Terms
from activator.scale_down import Parting
from activator.scale_up import Climbs
from activator.state.memory import Find, Memory
from activator.state.nodes import Fence, Nodes
from activator.state.waits import Waits
from activator.store.events import EventRecord, Kind
from runtime.wire import HUNG, Drain, KeepStandbys, NodeReport, Park, Refused, ReplicaReport, Start, Stop, Unpark

log = structlog.get_logger()

START_ENDED = (Event.READY, Event.START_FAILED, Event.FELL, Event.MISMATCHED)
MOVING = ("starting", "draining", "parking")
LAST_RUNG = (
    "{reason}. That was from verified bytes and without anything kept, so there is nothing left to try: if the engine or the machine "
    "has changed on purpose, remove the record named, and the next start makes a new one; else check the machine's memory"
)

Order = Start | Drain | Stop | Park | Unpark | KeepStandbys


def new_replica_id() -> str:
    """Never used twice, and short: sockets carry it in their path."""
    return f"r{secrets.token_hex(4)}"


class Fleet:
    def __init__(
        self,
        *,
        effects: Effects,
        fence: Fence,
        nodes: Nodes,
        patience: Patience,
        backoff: Backoff,
        expected: Expected,
        memory: Mapping[str, int],
        terms: Terms,
        bad_rungs: Iterable[BadRung],
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._effects, self._fence, self.nodes = effects, fence, nodes
        self.patience, self._backoff, self.expected = patience, backoff, expected
        self.memory, self.rungs = Memory(nodes, memory), Rungs(bad_rungs)
        clearing = Clearing(self, memory=self.memory, effects=effects, terms=terms)
        self.climbs = Climbs(self, memory=self.memory, rungs=self.rungs, clearing=clearing, clock=clock, new_id=new_id)
        self.parting = Parting(self)
        self.replicas: dict[str, Replica] = {}
        self.troubles: dict[str, Trouble] = {}
        self.changed: set[str] = set()
        self._of: dict[str, dict[str, Replica]] = defaultdict(dict)
        self._live: dict[str, int] = {}
        self._moving: dict[str, Replica] = {}  # starting, draining or parking: those that time can change

    # What there is

    def of(self, revision_id: str) -> Iterable[Replica]:
        return self._of[revision_id].values() if revision_id in self._of else ()

    def has(self, revision_id: str) -> bool:
        """Any replica at all, those that drain or are parked included."""
        return revision_id in self._of

    def live(self, revision_id: str) -> int:
        """Those that serve, and those on their way there."""
        return self._live.get(revision_id, 0)

    @property
    def any_live(self) -> bool:
        return bool(self._live)

    @property
    def waits(self) -> Waits:
        """Revisions whose next start waits for room, or for a node."""
        return self.climbs.clearing.waits

    def ending(self) -> list[Replica]:
        """Those whose memory is about to come free. One that finishes long answers is not."""
        draining = [replica for replica in self._moving.values() if replica.state == "draining"]
        return [replica for replica in draining if replica.hurried_at is not None or not replica.in_flight]

    def reaches(self, node_id: str) -> bool:
        """Is its agent connected?"""
        node = self.nodes.known.get(node_id)
        return node is not None and node.connection is not None

    def revision_of(self, replica_id: str) -> str | None:
        replica = self.replicas.get(replica_id)
        return replica.revision_id if replica else None

    def starting(self) -> list[Replica]:
        return [replica for replica in self._moving.values() if replica.state == "starting"]

    def look_again_for_room(self) -> None:
        """There may be room where there was none: what waits, or was refused as impossible, is decided anew."""
        self.changed.update(self.waits.all())
        for revision_id, trouble in list(self.troubles.items()):
            if trouble.nowhere:
                del self.troubles[revision_id]
                self.changed.add(revision_id)

    # Fewer

    def tabled(self, sequence: int) -> None:
        """The table of this sequence says who takes nothing more."""
        for replica in self._moving.values():
            if replica.state in ("draining", "parking") and replica.drain_after is None:
                replica.drain_after = sequence

    def advance(
        self, find: Find, finish: Callable[[str], float], *, now: float, acknowledged: float, settled: bool
    ) -> None:
        """Do what time and acknowledgements allow. `finish`: how long running answers of a revision may go on."""
        for replica in list(self._moving.values()):
            seconds = (
                self.patience.drain
                if replica.hurried_at is not None or replica.state != "draining"
                else finish(replica.revision_id)
            )
            patience = Patience(self.patience.start_deadline, seconds)
            step = lifecycle.next_step(replica, now=now, acknowledged=acknowledged, settled=settled, patience=patience)
            if step is Step.GIVE_UP:
                self._give_up(replica, now)
                step = Step.STOP
            if step is Step.STOP:
                self.stop(replica, now)
            elif step is Step.DRAIN and self.reaches(replica.node_id):
                self.order(replica.node_id, Drain, replica_id=replica.replica_id, seconds=seconds)
                replica.drain_sent = now
                self._effects.save_replica(replica)
                log.info(
                    "replica draining", action="drain", replica_id=replica.replica_id, revision_id=replica.revision_id
                )
            elif step is Step.PARK and self.reaches(replica.node_id):
                self._park(replica, find, now)

    def _park(self, replica: Replica, find: Find, now: float) -> None:
        self.order(replica.node_id, Park, replica_id=replica.replica_id, seconds=self.patience.drain)
        replica.park_sent = now
        log.info("replica parking", action="park", replica_id=replica.replica_id, revision_id=replica.revision_id)
        if replica.wanted_back and (revision := find(replica.revision_id)):
            self.climbs.unpark(replica, revision, now, now)
        self._effects.save_replica(replica)

    def _give_up(self, replica: Replica, now: float) -> None:
        """A start takes too long. One that comes from `parked` fails nobody: the next rung down is tried."""
        if replica.rung == "parked":
            replica.reason = f"not ready after {lifecycle.UNPARK_SECONDS:g} s, on its way up from parked"
        else:
            replica.reason = f"not ready after {self.patience.start_deadline:g} s"
            self.failed(replica.revision_id, replica.reason, started_at=replica.started_at, now=now)
        self._effects.save_cold_start(replica, now)

    def stop(self, replica: Replica, now: float) -> None:
        """End it now. While its node is away this is repeated when it is back."""
        lifecycle.retire(replica)
        self.order(replica.node_id, Stop, replica_id=replica.replica_id)
        replica.stop_sent = now
        self.moved(replica)
        log.info("replica told to stop", action="stop", replica_id=replica.replica_id, revision_id=replica.revision_id)

    # What nodes say

    def join(self, report: NodeReport, find: Find, now: float) -> None:
        """A node's whole state: adopt what runs, stop what nobody knows, and bury what it does not have.

        1. Of a replica believed in, the report is the truth.
        2. One that was not known is adopted if its revision is, else stopped.
        3. One of this node that is not in the report runs no more.
        """
        self.memory.count(report, self.replicas.values(), find)
        reported = {replica.replica_id for replica in report.replicas}
        for said in report.replicas:
            if replica := self.replicas.get(said.replica_id):  # 1
                lifecycle.rejoined(replica, said)
            self.observe(report.node_id, said, find, now)  # 1, 2
        for replica in [
            r for r in self.replicas.values() if r.node_id == report.node_id and r.replica_id not in reported
        ]:  # 3
            self._happened(replica, lifecycle.lost(replica, "its node does not have it any more", now), now)
        self.look_again_for_room()

    def observe(self, node_id: str, report: ReplicaReport, find: Find, now: float) -> None:
        replica = self.replicas.get(report.replica_id)
        if replica is None:
            if report.state == "stopped":
                return
            revision = find(report.revision_id)
            if revision is None:
                log.warning(
                    "a replica of an unknown revision",
                    action="stop_unknown",
                    replica_id=report.replica_id,
                    revision_id=report.revision_id,
                )
                self.order(node_id, Stop, replica_id=report.replica_id)
                return
            replica = self._adopt(node_id, report, revision, now)
        before = (replica.state, replica.address)
        event = lifecycle.observe(replica, report, now)
        self.memory.weigh(replica, report, find(replica.revision_id))
        if event is not Event.NOTHING or (replica.state, replica.address) != before:
            self._happened(replica, event, now)

    def _adopt(self, node_id: str, report: ReplicaReport, revision: Revision, now: float) -> Replica:
        begun = min((phase.at for phase in report.phases), default=now)
        replica = Replica(
            replica_id=report.replica_id,
            revision_id=report.revision_id,
            org_id=revision.org_id,
            node_id=node_id,
            started_at=begun if 0 <= now - begun <= self.patience.start_deadline else now,
            slots=revision.slots,
            weight_bytes=revision.weight_bytes,
            needs_bytes=self.memory.on(node_id, revision),
        )
        self.add(replica)
        self.moved(replica)
        log.info(
            "replica adopted",
            action="adopt",
            replica_id=replica.replica_id,
            revision_id=replica.revision_id,
            state=report.state,
        )
        return replica

    def bury_strangers(self, now: float) -> None:
        """Replicas of nodes that were never seen since the start: machines that are gone, or have another name now."""
        for replica in [r for r in self.replicas.values() if r.node_id not in self.nodes.known]:
            self._happened(replica, lifecycle.lost(replica, "its node did not come back", now), now)

    def node_died(self, node_id: str, now: float) -> None:
        """Its agent is gone, and its replicas with it."""
        for replica in [r for r in self.replicas.values() if r.node_id == node_id]:
            self._happened(replica, lifecycle.lost(replica, "the agent of its node died", now), now)

    def refused(self, frame: Refused, now: float) -> None:
        """An agent did not obey. A start that was refused has failed; anything else its reports will show."""
        replica = self.replicas.get(frame.replica_id)
        log.error("an agent refused a command", action="refused", replica_id=frame.replica_id, reason=frame.reason)
        if replica and replica.state == "starting" and not replica.pid:
            self._happened(replica, lifecycle.ended(replica, frame.reason, now), now)

    # How it all ends up

    def _happened(self, replica: Replica, event: Event, now: float) -> None:
        revision_id = replica.revision_id
        if event in START_ENDED or (event is Event.DIED and replica.ready_at is None):
            self._effects.save_cold_start(replica, now)
        if event is Event.READY:
            if replica.phases:
                self.expected.learn(PastStart(revision_id, replica.rung, replica.weight_bytes, replica.took_seconds))
            if trouble := self.troubles.get(revision_id):
                self.troubles[revision_id] = trouble_of.became_ready(trouble)
            if replica.plain and (good := self.rungs.made_anew(revision_id, replica.node_id)):
                self._effects.save_bad_rung(good)
        elif event is Event.START_FAILED:
            self.failed(revision_id, replica.reason, started_at=replica.started_at, now=now)
        elif event is Event.MISMATCHED:
            self._mismatched(replica, now)
        elif event is Event.DIED:
            lived = now - (replica.ready_at if replica.ready_at is not None else now)
            trouble = self.troubles.get(revision_id, Trouble())
            self.troubles[revision_id] = trouble_of.died(
                trouble,
                started_at=replica.started_at,
                lived=lived,
                now=now,
                backoff=self._backoff,
                reason=replica.reason,
            )
        if event in (Event.DIED, Event.START_FAILED) and replica.reason.startswith(HUNG):
            self._event(replica, "hung", f"{replica.reason}; replica {replica.replica_id} was killed", now)
        elif event is Event.DIED:
            self._event(replica, "died", f"replica {replica.replica_id} died: {replica.reason}", now)
        if event is Event.PARKED:
            self.look_again_for_room()
        if replica.state == "stopped":
            self._remove(replica)
        self.moved(replica)
        tell = log.info if event in (Event.NOTHING, Event.READY, Event.PARKED, Event.ENDED) else log.warning
        what = event.value if event is not Event.NOTHING else replica.state
        tell(
            f"replica {what}",
            action="replica",
            event_kind=event.name.lower(),
            replica_id=replica.replica_id,
            revision_id=revision_id,
            reason=replica.reason,
        )

    def _mismatched(self, replica: Replica, now: float) -> None:
        """Its answer was wrong: not from this rung again, and the next one down at once, for the same callers."""
        step: rungs.Step = "parked" if replica.rung == "parked" else "plain" if replica.plain else "standby"
        below = self.rungs.mark(replica.revision_id, replica.node_id, step, now)
        if below is None:
            self.failed(
                replica.revision_id, LAST_RUNG.format(reason=replica.reason), started_at=replica.started_at, now=now
            )
        else:
            self._effects.save_bad_rung(BadRung(replica.revision_id, replica.node_id, step, now + rungs.BAD_SECONDS))
        text = f"{replica.reason}; replica {replica.replica_id} from {step} was discarded, {f'{below} is next' if below else 'nothing is left to try'}"
        self._event(replica, "canary_mismatch", text, now)
        log.error(
            "the canary differed: replica discarded",
            action="canary_mismatch",
            replica_id=replica.replica_id,
            revision_id=replica.revision_id,
            node_id=replica.node_id,
            rung=step,
            next_rung=below,
            reason=replica.reason,
        )

    def _event(self, replica: Replica, kind: Kind, text: str, now: float) -> None:
        self._effects.save_event(
            EventRecord(replica.org_id, replica.revision_id, replica.replica_id, replica.node_id, kind, text, now)
        )

    def failed(self, revision_id: str, reason: str, *, started_at: float, now: float) -> None:
        trouble = self.troubles.get(revision_id, Trouble())
        after = trouble_of.start_failed(trouble, reason, started_at=started_at, now=now, backoff=self._backoff)
        self.troubles[revision_id] = after
        self.changed.add(revision_id)
        log.warning(
            "start failed",
            action="start_failed",
            revision_id=revision_id,
            reason=after.reason,
            retry_in=after.pause,
            failures=after.failures,
        )

    def forget_trouble(self, revision_id: str, now: float) -> None:
        """If it is long over."""
        trouble = self.troubles.get(revision_id)
        if trouble and trouble.is_over(now, self._backoff):
            del self.troubles[revision_id]

    def forget(self, revision_id: str) -> None:
        """It is served no more, and has no replicas."""
        self.rungs.forget(revision_id)
        self.expected.forget(revision_id)
        self.memory.forget(revision_id)

    def moved(self, replica: Replica) -> None:
        """Its state changed: keep the indexes, the routers' table and Postgres with it."""
        self._count(replica.revision_id)
        if replica.state in MOVING:
            self._moving[replica.replica_id] = replica
        else:
            self._moving.pop(replica.replica_id, None)
        self.changed.add(replica.revision_id)
        self._effects.save_replica(replica)

    def add(self, replica: Replica) -> None:
        """Know of a replica: one just told to start, one its node reports, or one the last activator left in
        Postgres.
        """
        if replica.state in MOVING:
            self._moving[replica.replica_id] = replica
        self.replicas[replica.replica_id] = self._of[replica.revision_id][replica.replica_id] = replica
        self._count(replica.revision_id)
        self.nodes.commit(replica.node_id, replica.needs_bytes)

    def _count(self, revision_id: str) -> None:
        live = sum(replica.live for replica in self.of(revision_id))
        if live:
            self._live[revision_id] = live
        else:
            self._live.pop(revision_id, None)

    def _remove(self, replica: Replica) -> None:
        self.replicas.pop(replica.replica_id, None)
        of = self._of[replica.revision_id]
        of.pop(replica.replica_id, None)
        if not of:
            del self._of[replica.revision_id]
        self.nodes.commit(replica.node_id, -replica.needs_bytes)
        self.look_again_for_room()

    def order(self, node_id: str, kind: type[Order], **given: Any) -> None:
        """A command to a node's agent, under the next number. While it is away it hears nothing; its next report shows
        that.
        """
        epoch, sequence = self._fence.next()
        node = self.nodes.known.get(node_id)
        if node is not None and node.connection is not None:
            self._effects.send(node.connection, kind(epoch=epoch, sequence=sequence, **given))
