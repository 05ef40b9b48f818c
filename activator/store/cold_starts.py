"""Cold starts in Postgres: one immutable row a start, written when it has ended. Steps 6 and 10.

They are read when an activator takes over, so that its estimates begin where the last one's stopped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from activator.policy.estimates import PAST_STARTS, PastStart
from activator.policy.lifecycle import Replica
from activator.store.connection import Connection
from activator.store.statements import statements
from runtime.wire import Phase, Rung

SQL = statements("cold_starts")
KEPT = 1000  # rows an endpoint


@dataclass(frozen=True, slots=True)
class ColdStart:
    """A start that has ended. Moments are monotonic seconds of this process; what is stored is how long ago they
    were.
    """

    cold_start_id: str
    revision_id: str
    replica_id: str
    node_id: str
    rung: Rung
    phases: tuple[Phase, ...]
    began: float
    ended: float
    reason: str  # "": it became ready

    @staticmethod
    def of(replica: Replica, now: float) -> ColdStart:
        """Of a replica that is ready, or has failed, now."""
        return ColdStart(
            replica.cold_start_id,
            replica.revision_id,
            replica.replica_id,
            replica.node_id,
            replica.rung,
            replica.place + replica.phases,
            replica.started_at,
            now,
            "" if replica.state == "ready" else replica.reason or "it ended and gave no reason",
        )


async def add(connection: Connection, start: ColdStart, now: float) -> None:
    """Store the row, at `now` (monotonic seconds), unless it is there; the oldest of its endpoint give way. Raises
    asyncpg.PostgresError.
    """
    phases = json.dumps([phase.model_dump() for phase in start.phases])
    values = (start.cold_start_id, start.revision_id, start.replica_id, start.node_id, start.rung, phases, start.reason)
    await connection.execute(SQL["add"], *values, max(0.0, start.ended - start.began), max(0.0, now - start.began))
    await connection.execute(SQL["prune"], start.revision_id, KEPT)


async def past(connection: Connection) -> list[PastStart]:
    """The last few successful starts of each revision from each rung, oldest first."""
    return [PastStart(**row) for row in await connection.fetch(SQL["past"], PAST_STARTS)]
