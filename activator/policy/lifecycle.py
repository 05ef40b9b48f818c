"""The life of one replica. Steps 6 and 10. Pure: time is an argument.

    starting ─ready→ ready ─surplus→ draining ─empty→ stopped
       ↑               └─rests→ parking ─empty→ parked ─┐
       └────────────────── asked for ───────────────────┘        dies: any state → stopped

What must survive: a replica is told to drain, or to park, only when no connected router could still send to it, so
either begins in the table, and the command waits for every router to acknowledge that table. Each way up from `parked`
is a climb of its own, with a number: what is told of an earlier one came late, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from activator.policy.failures import printable
from runtime.wire import Phase, ReplicaReport, ReplicaState, Rung

ANSWER_SECONDS = (
    10.0  # how long an agent may take beyond what it was allowed, before it is told (again) to stop a replica
)
UNPARK_SECONDS = 30.0  # how long a parked replica may take to be ready, before the next rung down is tried


@dataclass(slots=True, kw_only=True)
class Replica:
    """All the reconciler knows of one replica. Moments are monotonic seconds."""

    replica_id: str
    revision_id: str
    org_id: str
    node_id: str
    started_at: float
    state: ReplicaState = "starting"
    rung: Rung = "standby"  # where the climb it is on, or was on last, began
    weight_bytes: int = 0  # of its snapshot's tensors; 0: not known
    climb: int = 0  # how often it was told to come up from `parked`
    plain: bool = (
        False  # on its way up from nothing that was kept, after a canary differed; never on a climb from `parked`
    )
    took_place: bool = False  # others gave way for its last climb
    wanted_back: bool = False  # parking, and asked for meanwhile
    slots: int = 1
    needs_bytes: int = 0  # of its node's memory, counted there: estimated, then measured
    memory_bytes: int = 0  # private pages + KV cache, as its node measured them; 0: not yet
    private_bytes: int = 0
    kv_cache_bytes: int = 0
    address: str = ""
    devices: tuple[str, ...] = ()
    pid: int = 0
    process_start_time: int = 0
    in_flight: int = 0
    phases: tuple[Phase, ...] = ()
    fetched: float | None = None  # the part of its snapshot that is on its node, 0 to 1, while the rest is on its way
    reason: str = ""
    ready_at: float | None = None
    stopped_at: float | None = None
    parked_at: float | None = None
    drain_after: int | None = None  # the table sequence that says it takes nothing more; None: not in a table yet
    drain_sent: float | None = None
    hurried_at: float | None = None  # draining, and from then on it has only the short time
    park_sent: float | None = None
    stop_sent: float | None = None
    place: tuple[Phase, ...] = field(default=())  # the phase the activator adds

    @property
    def cold_start_id(self) -> str:
        """Of the climb it is on, or was on last. Never used twice, for a replica's id is not."""
        return f"{self.replica_id}.{self.climb}" if self.climb else self.replica_id

    @property
    def took_seconds(self) -> float:
        """Its last start, as far as it is finished. By its own phases, not our clock: it may have gone on while no
        activator looked.
        """
        return sum(phase.seconds for phase in self.place + self.phases)

    @property
    def told_to_end(self) -> bool:
        return self.drain_sent is not None or self.stop_sent is not None

    @property
    def live(self) -> bool:
        """Serves, or is on its way there."""
        return self.state in ("starting", "ready") or self.wanted_back


class Event(Enum):
    """What a report means, beyond its numbers."""

    NOTHING = "nothing"
    READY = "ready"
    ENDED = "ended"  # as it was told to
    PARKED = "parked"
    START_FAILED = "start failed"
    FELL = "fell"  # did not come up from `parked`: the next rung down is tried
    MISMATCHED = (
        "mismatched"  # its canary answered otherwise than recorded: it never serves, the next rung down is tried
    )
    DIED = "died"  # after it had been ready


def observe(replica: Replica, report: ReplicaReport, now: float) -> Event:
    """Take a report into the replica.

    1. Stopped: as told; or it failed to start; or it died.
    2. What is told of an earlier climb is old.
    3. Its numbers are taken as they are.
    4. Ready is news only of one that was on its way: what drains here goes on draining, whatever the agent last saw.
    5. Draining, parking or parked: the agent was told, by this activator or the one before it.
    """
    if report.state == "stopped":  # 1
        replica.phases, replica.rung = report.phases or replica.phases, report.rung or replica.rung
        return ended(replica, report.reason, now, mismatch=report.mismatch)
    if report.climb < replica.climb:  # 2
        return Event.NOTHING
    replica.pid, replica.process_start_time = (
        report.pid or replica.pid,
        report.start_time or replica.process_start_time,
    )  # 3
    replica.in_flight, replica.devices = report.in_flight, report.devices
    replica.memory_bytes, replica.kv_cache_bytes = report.memory_bytes or replica.memory_bytes, report.kv_cache_bytes
    replica.private_bytes, replica.fetched = report.private_bytes, report.fetched
    replica.climb, replica.rung = report.climb, report.rung or replica.rung
    replica.address, replica.phases = report.address or replica.address, report.phases or replica.phases
    if report.state == "ready":
        replica.slots = report.slots
        if replica.state in ("starting", "parked"):  # 4
            replica.state, replica.ready_at, replica.parked_at = "ready", now, None
            return Event.READY
    elif report.state == "starting" and replica.state == "parked":
        replica.state, replica.started_at, replica.parked_at = "starting", now, None
    elif report.state in ("draining", "parking", "parked"):  # 5
        return _obeyed(replica, report.state, now)
    return Event.NOTHING


def _obeyed(replica: Replica, state: ReplicaState, now: float) -> Event:
    if state == "parked":
        if replica.state in ("starting", "ready", "parking"):
            replica.ready_at = None  # no router is to know it
            replica.state, replica.parked_at, replica.wanted_back, replica.park_sent = "parked", now, False, None
            return Event.PARKED
    elif state == "parking":
        if replica.state in ("starting", "ready"):
            replica.state, replica.park_sent, replica.ready_at = (
                "parking",
                now,
                now if replica.ready_at is None else replica.ready_at,
            )
    else:
        replica.state, replica.ready_at = "draining", now if replica.ready_at is None else replica.ready_at
        replica.drain_sent = replica.drain_sent if replica.drain_sent is not None else now
    return Event.NOTHING


def ended(replica: Replica, reason: str, now: float, *, mismatch: bool = False) -> Event:
    """It runs no more. What that means depends on whether it was told to, on how far it had come, and from where."""
    was = replica.state
    replica.state, replica.stopped_at, replica.reason, replica.wanted_back = "stopped", now, printable(reason), False
    if replica.told_to_end or was in ("draining", "parking", "parked"):
        return Event.ENDED
    if mismatch:
        return Event.MISMATCHED
    if replica.ready_at is not None:
        return Event.DIED
    return Event.FELL if replica.rung == "parked" else Event.START_FAILED


def rejoined(replica: Replica, report: ReplicaReport) -> None:
    """Its node reports it on a new connection: that is how things are. What the node was told and did not hear must be
    said again.
    """
    replica.climb = report.climb
    if report.state != "draining":
        replica.drain_sent = replica.stop_sent = None
    if report.state in ("starting", "ready"):
        replica.park_sent = None


def lost(replica: Replica, reason: str, now: float) -> Event:
    """Its node knows it no more, or is gone itself: no fault of the revision's, so nobody held fails for it."""
    event = ended(replica, reason, now)
    return Event.DIED if event is Event.START_FAILED else event


def retire(replica: Replica) -> None:
    """It is not wanted any more, for good: routers never take it back. The table has to say so before anything else
    happens.
    """
    if replica.state in ("starting", "ready", "parking", "parked"):
        replica.drain_after = replica.drain_after if replica.state == "parking" else None
        replica.state, replica.wanted_back = "draining", False


def rest(replica: Replica) -> None:
    """It is not wanted for now: it gives its memory back and waits, once the table has said so."""
    replica.state, replica.drain_after, replica.park_sent = "parking", None, None


def climb(replica: Replica, now: float) -> None:
    """Up from `parked`, or back from a parking the agent was told of: a start of its own, under a number of its own."""
    replica.state, replica.rung, replica.climb = "starting", "parked", replica.climb + 1
    replica.started_at, replica.ready_at, replica.parked_at = now, None, None
    replica.drain_after = replica.park_sent = None
    replica.phases, replica.wanted_back, replica.reason, replica.plain = (), False, "", False


class Step(Enum):
    """What to do about a replica now."""

    WAIT = "wait"
    DRAIN = "drain"
    PARK = "park"
    STOP = "stop"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take, in seconds."""

    start_deadline: float
    drain: float  # to end what runs


def next_step(replica: Replica, *, now: float, acknowledged: float, settled: bool, patience: Patience) -> Step:
    """What a replica that starts, drains or parks needs now. `acknowledged`: the table sequence every connected router
    has applied.

    1. Starting longer than it may: give it up.
    2. Never was ready, so no router knows it: stop.
    3. The table that says it takes nothing more is not acknowledged by all, or routers may still be on their way back
       to a restarted activator: wait.
    4. Acknowledged: drain, or park.
    5. Draining or parking longer than it may, and the agent did not stop it: stop, and again each `ANSWER_SECONDS`.
    """
    if replica.state == "starting":
        patient = UNPARK_SECONDS if replica.rung == "parked" else patience.start_deadline
        return Step.GIVE_UP if now - replica.started_at > patient else Step.WAIT  # 1
    if replica.state not in ("draining", "parking"):
        return Step.WAIT
    if replica.stop_sent is not None:
        return Step.STOP if now - replica.stop_sent > ANSWER_SECONDS else Step.WAIT  # 5
    sent = replica.drain_sent if replica.state == "draining" else replica.park_sent
    if sent is not None:
        since = sent if replica.hurried_at is None else max(sent, replica.hurried_at)
        late = 0.0 if since > sent else ANSWER_SECONDS  # the agent knows the time it was given first
        return Step.STOP if now - since > patience.drain + late else Step.WAIT  # 5
    if replica.ready_at is None:
        return Step.STOP  # 2
    if replica.drain_after is None or acknowledged < replica.drain_after or not settled:
        return Step.WAIT  # 3
    return Step.DRAIN if replica.state == "draining" else Step.PARK  # 4
