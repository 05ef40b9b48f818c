"""The life of one replica, and what a revision learns from deaths. Steps 6 and 10. Pure: time is an argument.

    starting ─ready→ ready ─surplus→ draining ─empty→ stopped
        └──────────────── dies: any state → stopped ────────┘

What must survive: a replica is told to drain only when no connected router could still send to it, so draining begins in
the table, and the command waits for every router to acknowledge that table. A replica that cannot start must neither be
tried in a tight circle nor hold its callers: failures back off, and until the pause is over the routers hear the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum

from runtime.wire import Phase, ReplicaReport, ReplicaState

ANSWER_SECONDS = 10.0  # how long an agent may take beyond what it was allowed, before it is told (again) to stop a replica
MANY_FAILURES = 5  # starts that failed in a row, from which on callers are told of how many
LONGEST_REASON = 2000  # characters of an engine's reason that travel to routers and callers


@dataclass(slots=True, kw_only=True)
class Replica:
    """All the reconciler knows of one replica. Moments are monotonic seconds."""

    replica_id: str
    revision_id: str
    org_id: str
    node_id: str
    started_at: float
    state: ReplicaState = "starting"
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
    reason: str = ""
    ready_at: float | None = None
    stopped_at: float | None = None
    drain_after: int | None = None  # the table sequence that says it drains; None: not in a table yet
    drain_sent: float | None = None
    stop_sent: float | None = None
    place: tuple[Phase, ...] = field(default=())  # the phase the activator adds

    @property
    def told_to_end(self) -> bool:
        return self.drain_sent is not None or self.stop_sent is not None


class Event(Enum):
    """What a report means, beyond its numbers."""

    NOTHING = "nothing"
    READY = "ready"
    ENDED = "ended"  # as it was told to
    START_FAILED = "start failed"
    DIED = "died"  # after it had been ready


def observe(replica: Replica, report: ReplicaReport, now: float) -> Event:
    """Take a report into the replica.

    1. Its numbers are taken as they are.
    2. Stopped: as told; or it failed to start; or it died.
    3. Ready is news only of one that was starting: what drains here goes on draining, whatever the agent last saw.
    4. Draining: the agent was told, by this activator or the one before it.
    """
    replica.pid, replica.process_start_time = report.pid or replica.pid, report.start_time or replica.process_start_time  # 1
    replica.in_flight, replica.devices = report.in_flight, report.devices
    replica.address, replica.phases = report.address or replica.address, report.phases or replica.phases
    replica.memory_bytes, replica.kv_cache_bytes = report.memory_bytes or replica.memory_bytes, report.kv_cache_bytes
    replica.private_bytes = report.private_bytes
    if report.state == "stopped":  # 2
        return ended(replica, report.reason, now)
    if report.state == "ready":  # 3
        replica.slots = report.slots
        if replica.state == "starting":
            replica.state, replica.ready_at = "ready", now
            return Event.READY
    if report.state == "draining":  # 4
        replica.state, replica.ready_at = "draining", now if replica.ready_at is None else replica.ready_at
        replica.drain_sent = replica.drain_sent if replica.drain_sent is not None else now
    return Event.NOTHING


def ended(replica: Replica, reason: str, now: float) -> Event:
    """It runs no more. What that means depends on whether it was told to, and on whether it had been ready."""
    was = replica.state
    replica.state, replica.stopped_at, replica.reason = "stopped", now, printable(reason)
    if replica.told_to_end or was == "draining":
        return Event.ENDED
    return Event.DIED if replica.ready_at is not None else Event.START_FAILED


def rejoined(replica: Replica, report: ReplicaReport) -> None:
    """Its node reports it on a new connection. What the node was told and did not hear must be said again."""
    if report.state in ("starting", "ready"):
        replica.drain_sent = replica.stop_sent = None


def lost(replica: Replica, reason: str, now: float) -> Event:
    """Its node knows it no more, or is gone itself: no fault of the revision's, so nobody held fails for it."""
    event = ended(replica, reason, now)
    return Event.DIED if event is Event.START_FAILED else event


def retire(replica: Replica) -> None:
    """It is not wanted any more, for good: routers never take it back. The table has to say so before anything else happens."""
    if replica.state in ("starting", "ready"):
        replica.state, replica.drain_after = "draining", None


def printable(reason: str) -> str:
    """An engine's words, as far as Postgres and a status line can take them."""
    return reason.replace("\0", "")[:LONGEST_REASON]


class Step(Enum):
    """What to do about a replica now."""

    WAIT = "wait"
    DRAIN = "drain"
    STOP = "stop"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take, in seconds."""

    start_deadline: float
    drain: float


def next_step(replica: Replica, *, now: float, acknowledged: float, settled: bool, patience: Patience) -> Step:
    """What a replica that starts or drains needs now. `acknowledged`: the table sequence every connected router has applied.

    1. Starting longer than it may: give it up.
    2. Never was ready, so no router knows it: stop.
    3. The table that says it drains is not acknowledged by all, or routers may still be on their way back to a restarted
       activator: wait.
    4. Acknowledged: drain.
    5. Draining longer than it may, and the agent did not stop it: stop, and again each `ANSWER_SECONDS`.
    """
    if replica.state == "starting":
        return Step.GIVE_UP if now - replica.started_at > patience.start_deadline else Step.WAIT  # 1
    if replica.state != "draining":
        return Step.WAIT
    if replica.stop_sent is not None:
        return Step.STOP if now - replica.stop_sent > ANSWER_SECONDS else Step.WAIT  # 5
    if replica.drain_sent is not None:
        return Step.STOP if now - replica.drain_sent > patience.drain + ANSWER_SECONDS else Step.WAIT  # 5
    if replica.ready_at is None:
        return Step.STOP  # 2
    if replica.drain_after is None or acknowledged < replica.drain_after or not settled:
        return Step.WAIT  # 3
    return Step.DRAIN  # 4


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between starts that fail, in seconds: `first`, doubling, never more than `most`."""

    first: float
    most: float

    def pause(self, failures: int) -> float:
        """After so many failures in a row (1 or more)."""
        return min(self.most, self.first * 2.0 ** min(failures - 1, 60))


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a revision has learned from starts that failed and replicas that died."""

    failures: int = 0  # starts that failed, in a row
    deaths: int = 0  # replicas that died after they had been ready, none of them steady
    at: float = -math.inf  # of the last one
    retry_at: float = -math.inf  # no start before
    pause: float = 0.0  # retry_at - at
    reason: str = ""  # of a failed start; "" where callers are better held
    last: str = ""  # what the last failure or death said, until a start succeeds and lasts: for operators
    nowhere: bool = False  # no node would take it: over as soon as nodes change

    def may_start(self, now: float) -> bool:
        return now >= self.retry_at

    def shown(self, now: float) -> str:
        """Why what is held must fail; "" when it may wait."""
        if now >= self.retry_at or not self.reason:
            return ""
        often = self.failures >= MANY_FAILURES and not self.nowhere
        return f"{self.reason} ({self.failures} starts in a row have failed)" if often else self.reason

    def is_over(self, now: float, backoff: Backoff) -> bool:
        """Quiet for so long that it is no longer "in a row"."""
        return now - max(self.retry_at, self.at) > 10 * backoff.most


def start_failed(trouble: Trouble, reason: str, *, started_at: float, now: float, backoff: Backoff, nowhere: bool = False) -> Trouble:
    """A start failed: pause, longer each time. Starts that were on their way together count once."""
    reason = printable(reason) or "the engine stopped without a word; see the log of its endpoint"
    if started_at < trouble.at and trouble.reason:
        return replace(trouble, reason=reason, last=reason)
    failures = trouble.failures + 1
    pause = backoff.pause(failures)
    return replace(trouble, failures=failures, at=now, retry_at=now + pause, pause=pause, reason=reason, last=reason, nowhere=nowhere)


def died(trouble: Trouble, *, started_at: float, lived: float, now: float, backoff: Backoff, reason: str = "") -> Trouble:
    """A ready replica died. Its callers stay held: the first is replaced at once, the next in a row after a pause.

    "In a row" ends with a replica that lived longer than the longest pause; those that die together count once.
    """
    if trouble.deaths and started_at < trouble.at:
        return trouble
    deaths = 1 if lived > backoff.most else trouble.deaths + 1
    pause = backoff.pause(deaths - 1) if deaths > 1 else 0.0
    return replace(trouble, deaths=deaths, at=now, retry_at=now + pause, pause=pause, reason="", last=reason, nowhere=False)


def became_ready(trouble: Trouble) -> Trouble:
    """A start succeeded: the failed ones before it are forgotten, the deaths are not."""
    if not trouble.failures:
        return trouble
    return replace(trouble, failures=0, reason="", last="" if not trouble.deaths else trouble.last, retry_at=-math.inf, pause=0.0)
