"""The replicas: started, observed, adopted, drained. Steps 6, 7 and 10. Part of the reconciler's one task, nobody else's.

It acts only through `Effects` and leaves in `changed` the revisions that something happened to. What must survive: a link
to an agent that breaks with commands on their way, an agent that dies with its replicas, and an activator that comes back
knowing only what Postgres had. All three end in `join`: the node's own report decides what runs, whatever was believed.
"""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace

import structlog

from activator import lifecycle
from activator.catalogue import Endpoint, Revision
from activator.effects import Effects
from activator.lifecycle import Backoff, Event, Patience, Replica, Step, Trouble
from activator.nodes import Fence, Node, Nodes
from activator.placement import Idle, Needs, Refusal, Room, choose, make_room, needs_of
from activator.table import Expected
from runtime.wire import Drain, NodeReport, Phase, Refused, ReplicaReport, Start, Stop

log = structlog.get_logger()

Find = Callable[[str], Revision | None]
Spare = Callable[[], Iterable[Idle]]  # the replicas that others may have the memory of, now

NODE_GRACE_SECONDS = 10.0  # how long callers stay held for a node that is away, before they hear of it


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
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._effects, self._fence, self.nodes = effects, fence, nodes
        self._patience, self._backoff, self.expected = patience, backoff, expected
        self._clock, self._new_id = clock, new_id
        self.memory = dict(memory)  # what the last measured replica of a revision needs, in bytes
        self._memory_like: dict[Hashable, int] = {}  # the same, for other revisions that run just so
        self.promised: dict[str, Room] = {}  # revisions whose next start waits for room
        self.replicas: dict[str, Replica] = {}
        self.troubles: dict[str, Trouble] = {}
        self.changed: set[str] = set()
        self._of: dict[str, dict[str, Replica]] = defaultdict(dict)
        self._live: dict[str, int] = {}
        self._moving: dict[str, Replica] = {}  # starting or draining: those that time can change

    # What there is

    def of(self, revision_id: str) -> Iterable[Replica]:
        return self._of[revision_id].values() if revision_id in self._of else ()

    def has(self, revision_id: str) -> bool:
        """Any replica at all, those that drain included."""
        return revision_id in self._of

    def live(self, revision_id: str) -> int:
        """Starting or ready."""
        return self._live.get(revision_id, 0)

    # More

    def grow(self, endpoint: Endpoint, revision: Revision, count: int, asked_at: float, now: float, spare: Spare) -> None:
        """Start `count` more, unless a pause after failures is on. `spare` is asked only where memory is short."""
        self.promised.pop(revision.revision_id, None)
        trouble = self.troubles.get(revision.revision_id, Trouble())
        while count and trouble.may_start(now) and self._start(endpoint, revision, asked_at, now, spare):
            count -= 1

    def enough(self, revision_id: str) -> None:
        """It waits for no room any more."""
        self.promised.pop(revision_id, None)

    def look_again_for_room(self) -> None:
        """There may be room where there was none: what waits, or was refused for want of a node, is decided anew."""
        self.changed.update(self.promised)
        for revision_id, trouble in list(self.troubles.items()):
            if trouble.nowhere:
                del self.troubles[revision_id]
                self.changed.add(revision_id)

    def _start(self, endpoint: Endpoint, revision: Revision, asked_at: float, now: float, spare: Spare) -> bool:
        needs = self._needs(revision)
        nodes = self.nodes.views(draining=self._draining(), promised=self._promised())
        chosen = choose(nodes, needs)
        if isinstance(chosen, Refusal):
            if chosen.short and (room := make_room(nodes, needs, spare())):
                self._clear(room, revision, now)
            else:
                self._refused(revision, chosen, now)
            return False
        replica = Replica(
            replica_id=self._new_id(),
            revision_id=revision.revision_id,
            org_id=revision.org_id,
            node_id=chosen.node_id,
            started_at=now,
            needs_bytes=needs.on(chosen.environment.device),
        )
        epoch, sequence = self._fence.next()
        start = Start(
            epoch=epoch,
            sequence=sequence,
            replica_id=replica.replica_id,
            revision_id=revision.revision_id,
            endpoint=endpoint.name,
            digest=revision.digest,
            task=revision.task,
            engine_args=dict(revision.engine_args),
            slots=revision.slots,
            deadline_seconds=self._patience.start_deadline,
        )
        self._send(replica.node_id, start)
        replica.place = (Phase(name="place", at=asked_at, seconds=max(0.0, self._clock() - asked_at)),)
        self.add(replica)
        self._moved(replica)
        if (trouble := self.troubles.get(revision.revision_id)) and trouble.reason:
            self.troubles[revision.revision_id] = replace(trouble, reason="")
        log.info(
            "replica starting", action="start", replica_id=replica.replica_id, revision_id=replica.revision_id, node_id=replica.node_id
        )
        return True

    def _needs(self, revision: Revision) -> Needs:
        measured = self.memory.get(revision.revision_id) or self._memory_like.get(revision.engine, 0)
        return needs_of(revision.engine_args, measured_bytes=measured, weight_bytes=revision.weight_bytes)

    def _draining(self) -> Counter[str]:
        """Bytes that are about to come free, by node."""
        return _sums((replica.node_id, replica.needs_bytes) for replica in self._moving.values() if replica.state == "draining")

    def _promised(self) -> Counter[str]:
        return _sums((room.node_id, room.nbytes) for room in self.promised.values())

    def _clear(self, room: Room, revision: Revision, now: float) -> None:
        """Let those go that stand in the way; the start is tried again as each of them ends. Its callers stay held meanwhile."""
        self.promised[revision.revision_id] = room
        for replica_id in room.evicted:
            replica = self.replicas[replica_id]
            lifecycle.retire(replica)
            self._moved(replica)
            log.info(
                "replica evicted to make room",
                action="evict",
                replica_id=replica_id,
                revision_id=replica.revision_id,
                node_id=replica.node_id,
                bytes=replica.needs_bytes,
                for_revision_id=revision.revision_id,
                needed_bytes=room.nbytes,
            )

    def _refused(self, revision: Revision, refusal: Refusal, now: float) -> None:
        """No node will take it. For one that is away callers wait a while; for the rest they fail now, with the reason."""
        since = self.nodes.nodeless_since
        if refusal.waits and since is not None and now - since < NODE_GRACE_SECONDS:
            return
        self._fail(revision.revision_id, refusal.reason, started_at=now, now=now, nowhere=True)

    # Fewer

    def shrink(self, revision_id: str, count: int) -> None:
        """Have `count` fewer: first those that never served, then those with least to do, then the youngest."""
        live = [replica for replica in self.of(revision_id) if replica.state in ("starting", "ready")]
        live.sort(key=lambda replica: (replica.state == "ready", replica.in_flight, -replica.started_at))
        for replica in live[:count]:
            lifecycle.retire(replica)
            self._moved(replica)
            log.info("replica not wanted", action="retire", replica_id=replica.replica_id, revision_id=revision_id)

    def tabled(self, sequence: int) -> None:
        """The table of this sequence says who drains."""
        for replica in self._moving.values():
            if replica.state == "draining" and replica.drain_after is None:
                replica.drain_after = sequence

    def advance(self, *, now: float, acknowledged: float, settled: bool) -> None:
        """Do what time and acknowledgements allow."""
        for replica in list(self._moving.values()):
            step = lifecycle.next_step(replica, now=now, acknowledged=acknowledged, settled=settled, patience=self._patience)
            if step is Step.GIVE_UP:
                reason = f"not ready after {self._patience.start_deadline:g} s"
                self._fail(replica.revision_id, reason, started_at=replica.started_at, now=now)
                replica.reason = reason
                step = Step.STOP
            if step is Step.STOP:
                self.stop(replica, now)
            elif step is Step.DRAIN and self._connected(replica.node_id):
                epoch, sequence = self._fence.next()
                drain = Drain(epoch=epoch, sequence=sequence, replica_id=replica.replica_id, seconds=self._patience.drain)
                self._send(replica.node_id, drain)
                replica.drain_sent = now
                self._effects.save_replica(replica)
                log.info("replica draining", action="drain", replica_id=replica.replica_id, revision_id=replica.revision_id)

    def stop(self, replica: Replica, now: float) -> None:
        """End it now. While its node is away this is repeated when it is back."""
        lifecycle.retire(replica)
        self._stop(replica.node_id, replica.replica_id)
        replica.stop_sent = now
        self._moved(replica)
        log.info("replica told to stop", action="stop", replica_id=replica.replica_id, revision_id=replica.revision_id)

    # What nodes say

    def join(self, report: NodeReport, find: Find, now: float) -> None:
        """A node's whole state: adopt what runs, stop what nobody knows, and bury what it does not have.

        1. Of a replica believed in, the report is the truth.
        2. One that was not known is adopted if its revision is, else stopped.
        3. One of this node that is not in the report runs no more.
        """
        self._count_memory(report, find)
        reported = {replica.replica_id for replica in report.replicas}
        for said in report.replicas:
            if replica := self.replicas.get(said.replica_id):  # 1
                lifecycle.rejoined(replica, said)
            self.observe(report.node_id, said, find, now)  # 1, 2
        for replica in [r for r in self.replicas.values() if r.node_id == report.node_id and r.replica_id not in reported]:  # 3
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
                    "a replica of an unknown revision", action="stop_unknown", replica_id=report.replica_id, revision_id=report.revision_id
                )
                self._stop(node_id, report.replica_id)
                return
            replica = self._adopt(node_id, report, revision, now)
        before = (replica.state, replica.address)
        event = lifecycle.observe(replica, report, now)
        self._weigh(replica, find(replica.revision_id))
        if event is not Event.NOTHING or (replica.state, replica.address) != before:
            self._happened(replica, event, now)

    def _adopt(self, node_id: str, report: ReplicaReport, revision: Revision, now: float) -> Replica:
        begun = min((phase.at for phase in report.phases), default=now)
        replica = Replica(
            replica_id=report.replica_id,
            revision_id=report.revision_id,
            org_id=revision.org_id,
            node_id=node_id,
            started_at=begun if 0 <= now - begun <= self._patience.start_deadline else now,
            slots=revision.slots,
            needs_bytes=self._needs(revision).on(self.nodes.known[node_id].environment.device),
        )
        self.add(replica)
        self._moved(replica)
        log.info("replica adopted", action="adopt", replica_id=replica.replica_id, revision_id=replica.revision_id, state=report.state)
        return replica

    def _count_memory(self, report: NodeReport, find: Find) -> None:
        """What its replicas need, those included that were known before it was: they came from Postgres, without a figure."""
        replicas = [replica for replica in self.replicas.values() if replica.node_id == report.node_id]
        for replica in replicas:
            if not replica.needs_bytes and (revision := find(replica.revision_id)):
                replica.needs_bytes = self._needs(revision).on(report.environment.device)
        self.nodes.known[report.node_id].replica_bytes = sum(replica.needs_bytes for replica in replicas)

    def _weigh(self, replica: Replica, revision: Revision | None) -> None:
        """What was measured takes the place of what was estimated."""
        if replica.memory_bytes:
            self.nodes.commit(replica.node_id, replica.memory_bytes - replica.needs_bytes)
            replica.needs_bytes = self.memory[replica.revision_id] = replica.memory_bytes
            if revision:
                self._memory_like[revision.engine] = replica.memory_bytes

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
        if event is Event.READY:
            self.expected.learn(revision_id, now - replica.started_at)
            if trouble := self.troubles.get(revision_id):
                self.troubles[revision_id] = lifecycle.became_ready(trouble)
        elif event is Event.START_FAILED:
            self._fail(revision_id, replica.reason, started_at=replica.started_at, now=now)
        elif event is Event.DIED:
            lived = now - (replica.ready_at if replica.ready_at is not None else now)
            trouble = self.troubles.get(revision_id, Trouble())
            self.troubles[revision_id] = lifecycle.died(
                trouble, started_at=replica.started_at, lived=lived, now=now, backoff=self._backoff, reason=replica.reason
            )
        if replica.state == "stopped":
            self._remove(replica)
        self._moved(replica)
        tell = log.warning if event in (Event.START_FAILED, Event.DIED) else log.info
        what = event.value if event is not Event.NOTHING else replica.state
        tell(
            f"replica {what}",
            action="replica",
            event_kind=event.name.lower(),
            replica_id=replica.replica_id,
            revision_id=revision_id,
            reason=replica.reason,
        )

    def _fail(self, revision_id: str, reason: str, *, started_at: float, now: float, nowhere: bool = False) -> None:
        trouble = self.troubles.get(revision_id, Trouble())
        after = lifecycle.start_failed(trouble, reason, started_at=started_at, now=now, backoff=self._backoff, nowhere=nowhere)
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

    def _moved(self, replica: Replica) -> None:
        """Its state changed: keep the indexes, the routers' table and Postgres with it."""
        self._count(replica.revision_id)
        if replica.state in ("starting", "draining"):
            self._moving[replica.replica_id] = replica
        else:
            self._moving.pop(replica.replica_id, None)
        self.changed.add(replica.revision_id)
        self._effects.save_replica(replica)

    def add(self, replica: Replica) -> None:
        """Know of a replica: one just told to start, one its node reports, or one the last activator left in Postgres."""
        if replica.state in ("starting", "draining"):
            self._moving[replica.replica_id] = replica
        self.replicas[replica.replica_id] = self._of[replica.revision_id][replica.replica_id] = replica
        self._count(replica.revision_id)
        self.nodes.commit(replica.node_id, replica.needs_bytes)

    def _count(self, revision_id: str) -> None:
        live = sum(replica.state in ("starting", "ready") for replica in self.of(revision_id))
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

    def _stop(self, node_id: str, replica_id: str) -> None:
        epoch, sequence = self._fence.next()
        self._send(node_id, Stop(epoch=epoch, sequence=sequence, replica_id=replica_id))

    def _send(self, node_id: str, frame: Start | Drain | Stop) -> None:
        node = self._connected(node_id)
        if node and node.connection is not None:
            self._effects.send(node.connection, frame)

    def _connected(self, node_id: str) -> Node | None:
        node = self.nodes.known.get(node_id)
        return node if node and node.connection is not None else None


def _sums(pairs: Iterable[tuple[str, int]]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for key, number in pairs:
        sums[key] += number
    return sums
