"""Replicas in Postgres: written on every change of state, read once, when an activator takes over. Step 6."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from activator.policy.lifecycle import Replica
from activator.store.connection import Connection
from activator.store.statements import statements
from runtime.wire import Phase

SQL = statements("replicas")


@dataclass(frozen=True, slots=True)
class ReplicaRecord:
    """A replica's row. Moments are monotonic seconds of this process; what is stored is how long ago they were."""

    replica_id: str
    org_id: str
    revision_id: str
    node_id: str
    state: str
    address: str
    phases: tuple[Phase, ...]
    reason: str
    memory_bytes: int
    started_at: float
    ready_at: float | None
    stopped_at: float | None

    @staticmethod
    def of(replica: Replica) -> ReplicaRecord:
        return ReplicaRecord(
            replica.replica_id,
            replica.org_id,
            replica.revision_id,
            replica.node_id,
            replica.state,
            replica.address,
            replica.place + replica.phases,
            replica.reason,
            replica.memory_bytes,
            replica.started_at,
            replica.ready_at,
            replica.stopped_at,
        )


async def put(connection: Connection, record: ReplicaRecord, now: float) -> None:
    """Store the row, at `now` (monotonic seconds). Raises asyncpg.PostgresError."""
    ages = [
        None if at is None else max(0.0, now - at) for at in (record.started_at, record.ready_at, record.stopped_at)
    ]
    phases = json.dumps([phase.model_dump() for phase in record.phases])
    ids = (record.replica_id, record.org_id, record.revision_id, record.node_id)
    await connection.execute(
        SQL["put_replica"], *ids, record.state, record.address, phases, record.reason, record.memory_bytes, *ages
    )


async def load_alive(connection: Connection, now: float) -> list[Replica]:
    """The replicas an earlier activator left running, as it saw them last. Their nodes know better, and will say."""
    return [_replica(row, now) for row in await connection.fetch(SQL["alive"])]


async def memory(connection: Connection) -> dict[str, int]:
    """Bytes that the newest measured replica of each revision took."""
    return {row["revision_id"]: row["memory_bytes"] for row in await connection.fetch(SQL["memory"])}


def _replica(row: Any, now: float) -> Replica:
    """`started_at` and `ready_at` are of its first start: they say nothing of one that is parked, or comes up again."""
    again = row["state"] == "parked" or (row["state"] == "starting" and row["ready_age"] is not None)
    phases = [Phase(**phase) for phase in json.loads(row["phases"])]
    return Replica(
        replica_id=row["replica_id"],
        revision_id=row["revision_id"],
        org_id=row["org_id"],
        node_id=row["node_id"],
        state=row["state"],
        slots=row["slots"],
        weight_bytes=row["weight_bytes"],
        address=row["address"],
        place=tuple(phase for phase in phases if phase.name == "place"),
        phases=tuple(phase for phase in phases if phase.name != "place"),
        started_at=now if again else now - row["started_age"],
        ready_at=None if again or row["ready_age"] is None else now - row["ready_age"],
        parked_at=now if row["state"] == "parked" else None,
    )
