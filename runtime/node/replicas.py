"""The register of this node's replicas: which there are, and word of every change to the activator. Step 8.

It decides nothing. `bring_up.py`, `replica_watch.py`, `parking.py`, `replica_end.py` and `memory_watch.py` change the
records; `supervisor.py` has the order in which they stand on each other. A replica stays here until nothing of it is
left, so that an activator that comes back reads it in the node's report.
"""

from __future__ import annotations

from collections.abc import Callable

from pilotlight.frames import Frame
from runtime.node.replica_record import ReplicaRecord
from runtime.wire import Phase


class Replicas:
    """`tell` sends a frame to the activators that are connected."""

    def __init__(self, tell: Callable[[Frame], None]) -> None:
        self._tell = tell
        self._records: dict[str, ReplicaRecord] = {}

    def all(self) -> list[ReplicaRecord]:
        return list(self._records.values())

    def born(self) -> list[ReplicaRecord]:
        """Those that have a process, and may have a journal of their own."""
        return [record for record in self._records.values() if record.identity is not None]

    def born_ids(self) -> list[str]:
        return [record.replica_id for record in self.born()]

    def digests(self) -> set[str]:
        """Snapshots in use, from the moment a start is ordered until nothing of the replica is left."""
        return {record.start.digest for record in self._records.values()}

    def get(self, replica_id: str) -> ReplicaRecord | None:
        return self._records.get(replica_id)

    def add(self, record: ReplicaRecord) -> None:
        self._records[record.replica_id] = record

    def remove(self, record: ReplicaRecord) -> None:
        del self._records[record.replica_id]

    def changed(self, record: ReplicaRecord) -> None:
        """Report it as it is now."""
        self._tell(record.describe())

    def phase_done(self, record: ReplicaRecord, phase: Phase) -> None:
        """A phase of its start has ended; it is reported while the start lasts."""
        record.phases.append(phase)
        if record.state == "starting":
            self.changed(record)
