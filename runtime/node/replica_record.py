"""One replica as its agent sees it: the record of its life, and the report that is made of it. Step 8.

The state is what the activator hears; the arrows name what makes them.

                  Serving                Park                Parked
    starting ──────────────────► ready ─────────► parking ──────────► parked
       ▲                           │                 │                  │
       │  Unpark                   │ Drain           │ Drain            │
       ├───────────────────────────│─────────────────┴──────────────────┤
       │                           └──────► draining ◄──────────────────┘  (parked: ended at once)

    every state ── its process is gone, or it was given up ──► stopped     (`ReplicaEnd.gone`)

While it is `starting` for the first time it comes about in steps. Its snapshot is brought, a standby has the order,
`Born` names its process. `identity` is None until then, and only its control socket can end it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtime.control import Control, Failed
from runtime.node.sizing import needed
from runtime.node.staging import Staged
from runtime.reap import Identity
from runtime.wire import Phase, ReplicaReport, ReplicaState, Rung, Start
from snapshots.arrival import arrived


@dataclass
class ReplicaRecord:
    """Owned by the agent's event loop alone."""

    start: Start
    folder: Path
    begun: float  # monotonic seconds
    state: ReplicaState = "starting"
    control: Control | None = None
    identity: Identity | None = None
    pidfd: int = -1
    address: str = ""
    in_flight: int = 0
    kv_cache_bytes: int = 0  # of this machine's memory
    logprob_bytes: int = 0  # what a step may take beyond that, where log-probabilities of prompts are allowed
    to_pack_bytes: int = 0  # mapped weights, which will be packed into memory of its own
    first_bytes: int = 0  # private pages, when first measured
    private_bytes: int = 0
    parked_bytes: int = 0  # what it held when it was parked last; 0: not measured
    unparked: int = 0  # how often; the wire calls it `climb`
    rung: Rung | None = None
    staged: Staged | None = None
    mismatch: bool = False  # its canary answered otherwise than recorded
    phases: list[Phase] = field(default_factory=list)
    reason: str = ""
    end_ordered: bool = False  # the activator, or the agent's own end, wants it to end
    hung: bool = False  # it was killed for its silence
    copy_key: str = ""  # which baked copy it looks for
    tries: int = 0  # orders to fork it
    birth: asyncio.Future[bool] | None = None  # of the order that a standby has: True once it is born
    timer: asyncio.TimerHandle | None = None  # of what it must have done by then: start, drain, park
    depth_timer: asyncio.TimerHandle | None = None

    @property
    def replica_id(self) -> str:
        return self.start.replica_id

    def unpark(self, count: int) -> None:
        """From parked to ready, for the `count`-th time: its phases begin anew."""
        self.state = "starting"
        self.unparked = count
        self.rung = "parked"
        self.phases = []
        self.begun = time.monotonic()

    def failed(self, frame: Failed) -> None:
        """What it says of its own failure; the first reason stays."""
        self.reason = self.reason or frame.reason
        self.mismatch = self.mismatch or frame.mismatch

    def restart_timer(self, timer: asyncio.TimerHandle | None = None) -> None:
        """Let `timer` take the place of the one that runs; None: nothing is due."""
        if self.timer:
            self.timer.cancel()
        self.timer = timer

    @property
    def memory_bytes(self) -> int:
        """What it needs of the node's memory now; 0: not measured."""
        if self.state == "parked":
            return self.parked_bytes
        return self.private_bytes and needed(
            first=self.first_bytes,
            now=self.private_bytes,
            kv_cache_bytes=self.kv_cache_bytes + self.logprob_bytes,
            to_pack=self.to_pack_bytes,
        )

    @property
    def fetched(self) -> float | None:
        """The part of its snapshot that is here, while it starts and the rest is on its way."""
        coming = self.staged if self.state == "starting" else None
        return arrived(coming.arriving) if coming and coming.arriving and not coming.verified.done() else None

    def describe(self) -> ReplicaReport:
        """All that is known of it, as the activator hears it."""
        return ReplicaReport(
            replica_id=self.replica_id,
            revision_id=self.start.revision_id,
            state=self.state,
            address=self.address,
            slots=self.start.slots,
            in_flight=self.in_flight,
            private_bytes=self.parked_bytes if self.state == "parked" else self.private_bytes,
            kv_cache_bytes=0 if self.state == "parked" else self.kv_cache_bytes,
            memory_bytes=self.memory_bytes,
            pid=self.identity.pid if self.identity else 0,
            start_time=self.identity.start_time if self.identity else 0,
            phases=adding_up(self.phases),
            reason=self.reason,
            failed=self.state == "stopped" and not self.end_ordered,
            rung=self.rung,
            climb=self.unparked,
            mismatch=self.mismatch,
            fetched=self.fetched,
            hung=self.hung,
        )


def adding_up(measured: Sequence[Phase]) -> tuple[Phase, ...]:
    """The phases as they are reported: no second counts twice, so that they add up to the whole start. Pure.

    What went on while bytes were still on their way is the fetch's time, for that is what was waited for. The load lies
    within the build and is reported by the engine core: `init` is what is left of it.
    """
    fetched = max((phase.at + phase.seconds for phase in measured if phase.name == "fetch"), default=0.0)
    phases = {phase.name: phase if phase.name == "fetch" else _after(fetched, phase) for phase in measured}
    if "init" in phases and "load" in phases:
        rest = max(0.0, phases["init"].seconds - phases["load"].seconds)
        phases["init"] = phases["init"].model_copy(update={"seconds": rest})
    return tuple(sorted(phases.values(), key=lambda phase: phase.at))


def _after(moment: float, phase: Phase) -> Phase:
    begin = max(phase.at, moment)
    return phase.model_copy(update={"at": begin, "seconds": max(0.0, phase.at + phase.seconds - begin)})
