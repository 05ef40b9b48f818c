"""One replica as its agent sees it: a record of its life, and what is told of it. Step 8."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from runtime.control import Control
from runtime.reap import Identity
from runtime.sizing import needed
from runtime.wire import Phase, ReplicaReport, Start


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
    first_bytes: int = 0  # private pages, when first looked at
    private_bytes: int = 0
    phases: list[Phase] = field(default_factory=list)
    reason: str = ""
    told: bool = False  # we ended it, or asked it to end
    tries: int = 0
    timer: asyncio.TimerHandle | None = None
    depth_timer: asyncio.TimerHandle | None = None

    def add(self, phase: Phase) -> None:
        """A finished phase. The load lies within the build and is told from the engine core: `init` is what is left of it."""
        if phase.name == "init":
            inside = sum(done.seconds for done in self.phases if done.name == "load")
            phase = Phase(name="init", at=phase.at, seconds=max(0.0, phase.seconds - inside))
        self.phases.append(phase)

    def describe(self) -> ReplicaReport:
        """All that is known of it, as the activator hears it."""
        return ReplicaReport(
            replica_id=self.start.replica_id,
            revision_id=self.start.revision_id,
            state=self.state,  # type: ignore[arg-type]
            address=self.address,
            slots=self.start.slots,
            in_flight=self.in_flight,
            private_bytes=self.private_bytes,
            kv_cache_bytes=self.kv_cache_bytes,
            memory_bytes=self.private_bytes and needed(first=self.first_bytes, now=self.private_bytes, kv_cache_bytes=self.kv_cache_bytes),
            pid=self.identity.pid if self.identity else 0,
            start_time=self.identity.start_time if self.identity else 0,
            phases=tuple(self.phases),
            reason=self.reason,
            failed=self.state == "stopped" and not self.told,
        )
