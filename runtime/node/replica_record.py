"""One replica as its agent sees it: a record of its life, and what is told of it. Step 8."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtime.control import Control
from runtime.node.sizing import needed
from runtime.node.staging import Staged
from runtime.reap import Identity
from runtime.wire import Phase, ReplicaReport, Rung, Start
from snapshots.arrival import arrived


@dataclass
class Running:
    """Owned by the agent's event loop alone."""

    start: Start
    folder: Path
    begun: float  # monotonic seconds
    state: str = "starting"
    control: Control | None = None
    identity: Identity | None = None
    pidfd: int = -1
    address: str = ""
    in_flight: int = 0
    kv_cache_bytes: int = 0  # of this machine's memory
    logprob_bytes: int = 0  # what a step may take beyond that, where log-probabilities of prompts are allowed
    to_pack_bytes: int = 0  # mapped weights, which will be packed into memory of its own
    first_bytes: int = 0  # private pages, when first looked at
    private_bytes: int = 0
    parked_bytes: int = 0  # what it held when it was parked last; 0: not measured
    climb: int = 0  # how often it has been un-parked
    rung: Rung | None = None
    staged: Staged | None = None
    mismatch: bool = False  # its canary answered otherwise than recorded
    phases: list[Phase] = field(default_factory=list)
    reason: str = ""
    told: bool = False  # we ended it, or asked it to end
    tries: int = 0
    timer: asyncio.TimerHandle | None = None
    depth_timer: asyncio.TimerHandle | None = None

    def add(self, phase: Phase) -> None:
        """A finished phase, as it was measured."""
        self.phases.append(phase)

    def climbs(self, climb: int) -> None:
        """From parked to ready, once more: its phases begin anew."""
        self.state, self.climb, self.rung = "starting", climb, "parked"
        self.phases, self.begun = [], time.monotonic()

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
        return arrived(coming.arriving) if coming and coming.arriving and not coming.whole.done() else None

    def describe(self) -> ReplicaReport:
        """All that is known of it, as the activator hears it."""
        return ReplicaReport(
            replica_id=self.start.replica_id,
            revision_id=self.start.revision_id,
            state=self.state,  # type: ignore[arg-type]
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
            failed=self.state == "stopped" and not self.told,
            rung=self.rung,
            climb=self.climb,
            mismatch=self.mismatch,
            fetched=self.fetched,
        )


def adding_up(measured: Sequence[Phase]) -> tuple[Phase, ...]:
    """Phases as they are told: none counts a second twice, so that they add up to the whole. Pure.

    What went on while bytes were still on their way is the fetch's time, for that is what was waited for. The load lies
    within the build and is told from the engine core: `init` is what is left of it.
    """
    fetched = max((phase.at + phase.seconds for phase in measured if phase.name == "fetch"), default=0.0)
    told = {phase.name: phase if phase.name == "fetch" else _after(fetched, phase) for phase in measured}
    if "init" in told and "load" in told:
        rest = max(0.0, told["init"].seconds - told["load"].seconds)
        told["init"] = told["init"].model_copy(update={"seconds": rest})
    return tuple(sorted(told.values(), key=lambda phase: phase.at))


def _after(moment: float, phase: Phase) -> Phase:
    begin = max(phase.at, moment)
    return phase.model_copy(update={"at": begin, "seconds": max(0.0, phase.at + phase.seconds - begin)})
