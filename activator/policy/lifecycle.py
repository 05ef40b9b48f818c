"""The state machine of one replica. Steps 6 and 10. Pure: time is an argument.

    starting ──observe──→ ready ──park──→ parking ──observe──→ parked
       ↑        │           │                │                  │  │
       └────────┼───────────┼──── unpark ────┼──────────────────┘  │
                └───────────┴──── drain ─────┴─────────────────────┘
                                    ↓
                                 draining ──observe──→ stopped
    any state ──observe, lost──→ stopped    (it ended as ordered, failed to start, or died)

    arrow to                   made by                                      then ordered by `next_step`
    ready, parked, stopped     `observe`: the node's report
    draining                   `drain`: it is not wanted any more           DRAIN, or STOP where no router knows it
    parking                    `park`: it is not wanted for now             PARK
    starting                   `unpark`: it is asked for again
    stopped                    `lost`: its node does not have it any more

What must survive is a router that has not heard yet. A replica is ordered to drain or to park only when no connected
router could still send to it. So either begins in the table, and the order waits until every router has acknowledged
that table. Each way up from `parked` has a number of its own: a report of an earlier one came late and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from activator.policy.failures import printable
from runtime.wire import Phase, ReplicaReport, ReplicaState, Rung

ANSWER_SECONDS = 10.0  # how long an agent may take beyond its allowance, before it is ordered (again) to stop a replica
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
    rung: Rung = "standby"  # where its start, the one under way or the last one, began
    weight_bytes: int = 0  # of its snapshot's tensors; 0: not known
    unparks: int = 0  # how often it was ordered to come up from `parked`: the wire's `climb`
    plain: bool = False  # its start trusts nothing that was kept, after a canary differed; never one from `parked`
    evicted_others: bool = False  # others gave way for its last start
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
    hung: bool = False  # its agent killed it for its silence
    ready_at: float | None = None
    stopped_at: float | None = None
    parked_at: float | None = None
    drain_after: int | None = None  # the table sequence that says it takes nothing more; None: not in a table yet
    drain_sent: float | None = None
    hurried_at: float | None = None  # draining, and from then on it has only the short time
    park_sent: float | None = None
    stop_sent: float | None = None
    place: tuple[Phase, ...] = ()  # the phase the activator adds

    @property
    def cold_start_id(self) -> str:
        """Of its start, the one under way or the last one. Never used twice, for a replica's id is not."""
        return f"{self.replica_id}.{self.unparks}" if self.unparks else self.replica_id

    @property
    def took_seconds(self) -> float:
        """Its last start, as far as it is finished. By its own phases, not our clock: it may have gone on while no
        activator looked.
        """
        return sum(phase.seconds for phase in self.place + self.phases)

    @property
    def ordered_to_end(self) -> bool:
        return self.drain_sent is not None or self.stop_sent is not None

    @property
    def live(self) -> bool:
        """Serves, or is on its way there."""
        return self.state in ("starting", "ready") or self.wanted_back


class Outcome(Enum):
    """What a report means, beyond its numbers."""

    NOTHING = "nothing"
    READY = "ready"
    ENDED = "ended"  # as it was ordered to
    PARKED = "parked"
    START_FAILED = "start failed"
    FELL = "fell"  # did not come up from `parked`: the next rung down is tried
    MISMATCHED = "mismatched"  # its canary differed: it never serves, and the next rung down is tried
    DIED = "died"  # after it had been ready


def observe(replica: Replica, report: ReplicaReport, now: float) -> Outcome:
    """Take a report into the replica.

    1. Stopped: as ordered; or it failed to start; or it died.
    2. A report of an earlier start is old.
    3. Its numbers are taken as they are.
    4. Ready is news only of one that was on its way: what drains here goes on draining, whatever the agent last saw.
    5. Draining, parking or parked: the agent had the order, from this activator or the one before it.
    """
    if report.state == "stopped":  # 1
        replica.phases = report.phases or replica.phases
        replica.rung = report.rung or replica.rung
        replica.hung = report.hung or report.reason.startswith("hung: ")  # an agent of 2026-11-27 has no such field
        return ended(replica, report.reason, now, mismatch=report.mismatch)
    if report.climb < replica.unparks:  # 2
        return Outcome.NOTHING
    _copy_numbers(replica, report)  # 3
    if report.state == "ready":
        replica.slots = report.slots
        if replica.state in ("starting", "parked"):  # 4
            replica.state = "ready"
            replica.ready_at = now
            replica.parked_at = None
            return Outcome.READY
    elif report.state == "starting" and replica.state == "parked":
        replica.state = "starting"
        replica.started_at = now
        replica.parked_at = None
    elif report.state in ("draining", "parking", "parked"):  # 5
        return _obeyed(replica, report.state, now)
    return Outcome.NOTHING


def _copy_numbers(replica: Replica, report: ReplicaReport) -> None:
    """A report that leaves a fact out, for it is not known yet, takes nothing back."""
    replica.pid = report.pid or replica.pid
    replica.process_start_time = report.start_time or replica.process_start_time
    replica.in_flight = report.in_flight
    replica.devices = report.devices
    replica.memory_bytes = report.memory_bytes or replica.memory_bytes
    replica.kv_cache_bytes = report.kv_cache_bytes
    replica.private_bytes = report.private_bytes
    replica.fetched = report.fetched
    replica.unparks = report.climb
    replica.rung = report.rung or replica.rung
    replica.address = report.address or replica.address
    replica.phases = report.phases or replica.phases


def _obeyed(replica: Replica, state: ReplicaState, now: float) -> Outcome:
    if state == "parked":
        if replica.state in ("starting", "ready", "parking"):
            replica.state = "parked"
            replica.ready_at = None  # no router is to know it
            replica.parked_at = now
            replica.wanted_back = False
            replica.park_sent = None
            return Outcome.PARKED
    elif state == "parking":
        if replica.state in ("starting", "ready"):
            replica.state = "parking"
            replica.park_sent = now
            replica.ready_at = now if replica.ready_at is None else replica.ready_at
    else:
        replica.state = "draining"
        replica.ready_at = now if replica.ready_at is None else replica.ready_at
        replica.drain_sent = replica.drain_sent if replica.drain_sent is not None else now
    return Outcome.NOTHING


def ended(replica: Replica, reason: str, now: float, *, mismatch: bool = False) -> Outcome:
    """It runs no more. What that means depends on its orders, on how far it had come, and from where."""
    was = replica.state
    replica.state = "stopped"
    replica.stopped_at = now
    replica.reason = printable(reason)
    replica.wanted_back = False
    if replica.ordered_to_end or was in ("draining", "parking", "parked"):
        return Outcome.ENDED
    if mismatch:
        return Outcome.MISMATCHED
    if replica.ready_at is not None:
        return Outcome.DIED
    return Outcome.FELL if replica.rung == "parked" else Outcome.START_FAILED


def rejoined(replica: Replica, report: ReplicaReport) -> None:
    """Its node reports it on a new connection: that is how things are. Orders that the node did not hear must be
    repeated.
    """
    replica.unparks = report.climb
    if report.state != "draining":
        replica.drain_sent = replica.stop_sent = None
    if report.state in ("starting", "ready"):
        replica.park_sent = None


def lost(replica: Replica, reason: str, now: float) -> Outcome:
    """Its node does not have it any more, or is gone itself. The revision is not at fault: no held caller fails."""
    outcome = ended(replica, reason, now)
    return Outcome.DIED if outcome is Outcome.START_FAILED else outcome


def drain(replica: Replica) -> None:
    """It is not wanted any more, for good: routers never take it back. The table has to say so before anything else
    happens.
    """
    if replica.state in ("starting", "ready", "parking", "parked"):
        replica.drain_after = replica.drain_after if replica.state == "parking" else None
        replica.state = "draining"
        replica.wanted_back = False


def park(replica: Replica) -> None:
    """It is not wanted for now: it gives its memory back and waits, once the table has said so."""
    replica.state = "parking"
    replica.drain_after = None
    replica.park_sent = None


def unpark(replica: Replica, now: float) -> None:
    """Up from `parked`, or back from a parking the agent was ordered to: a start of its own, with its own number."""
    replica.state = "starting"
    replica.rung = "parked"
    replica.unparks += 1
    replica.started_at = now
    replica.ready_at = None
    replica.parked_at = None
    replica.drain_after = None
    replica.park_sent = None
    replica.phases = ()
    replica.wanted_back = False
    replica.reason = ""
    replica.plain = False


class Action(Enum):
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


def next_step(replica: Replica, *, now: float, acknowledged: float, settled: bool, patience: Patience) -> Action:
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
        limit = UNPARK_SECONDS if replica.rung == "parked" else patience.start_deadline
        return Action.GIVE_UP if now - replica.started_at > limit else Action.WAIT  # 1
    if replica.state not in ("draining", "parking"):
        return Action.WAIT
    if replica.stop_sent is not None:
        return Action.STOP if now - replica.stop_sent > ANSWER_SECONDS else Action.WAIT  # 5
    sent = replica.drain_sent if replica.state == "draining" else replica.park_sent
    if sent is not None:
        since = sent if replica.hurried_at is None else max(sent, replica.hurried_at)
        late = 0.0 if since > sent else ANSWER_SECONDS  # the agent knows the time it was given first
        return Action.STOP if now - since > patience.drain + late else Action.WAIT  # 5
    if replica.ready_at is None:
        return Action.STOP  # 2
    if replica.drain_after is None or acknowledged < replica.drain_after or not settled:
        return Action.WAIT  # 3
    return Action.DRAIN if replica.state == "draining" else Action.PARK  # 4
