"""Parking as the agent sees it: which word may follow which, and what is reported of it. Step 8.

    ready ──Park──► parking ──Parked──► parked
                       │                  │
                       └──────Unpark──────┴──► starting ──Serving──► ready

What must survive is that words cross. A replica's `Parked` may come after it was asked to serve again, and a `Park` may
never come to an end. The first changes nothing; the second ends the replica, as a drain would.
"""

from __future__ import annotations

import asyncio

import structlog

from runtime.control import ParkNow, UnparkNow
from runtime.node.memory_watch import MemoryWatch
from runtime.node.replica_end import ReplicaEnd
from runtime.node.replica_record import ReplicaRecord
from runtime.node.replicas import Replicas
from runtime.wire import Park, Unpark

log = structlog.get_logger()


class Parking:
    """Parks and unparks replicas, as the activator orders."""

    def __init__(self, replicas: Replicas, *, end: ReplicaEnd, memory: MemoryWatch) -> None:
        self._replicas = replicas
        self._end = end
        self._memory = memory

    def park(self, record: ReplicaRecord, command: Park) -> None:
        """Only one that serves; of any other its reports say enough."""
        if record.state == "ready" and record.control is not None and record.control.send(ParkNow()):
            record.state = "parking"
            record.timer = asyncio.get_running_loop().call_later(command.seconds, self._end.stop, record)
            self._replicas.changed(record)

    def parked(self, record: ReplicaRecord) -> None:
        """It has given its memory back."""
        if record.state == "parking" and record.timer:
            record.timer.cancel()
            record.state = "parked"
            self._replicas.changed(record)
            self._memory.weigh()
            log.info("replica parked", action="replica_parked", replica_id=record.replica_id)

    def unpark(self, record: ReplicaRecord, command: Unpark) -> None:
        """Have one that is parked, or about to be, serve again."""
        if record.state not in ("parking", "parked") or record.control is None or record.timer is None:
            return
        record.unpark(command.climb)
        reason = f"not ready {command.deadline_seconds:g} s after it was un-parked"
        loop = asyncio.get_running_loop()
        record.restart_timer(loop.call_later(command.deadline_seconds, self._end.give_up, record, reason))
        record.control.send(UnparkNow(asked_at=record.begun))
        self._replicas.changed(record)
