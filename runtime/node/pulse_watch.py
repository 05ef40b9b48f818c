"""The agent's ear on its replicas: what they beat is remembered, and those that have fallen silent are named. Step 8.

`silence.py` decides; this module keeps what was heard, by replica, in the agent's attentive seconds. A replica whose
state changes is judged anew: what was slow in its build is not held against it once it serves. A beat also has the
counts of what is in work, which `watermark.py` keeps for the bill.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from runtime.control import Beat
from runtime.node.replica_record import ReplicaRecord
from runtime.node.replicas import Replicas
from runtime.node.silence import Heard, Limits, anew, heard, hung
from runtime.node.watermark import Watermark


class PulseWatch:
    """Remembers beats, and names the replicas that hang."""

    def __init__(self, replicas: Replicas, *, limits: Limits, watermark: Watermark) -> None:
        self._replicas = replicas
        self._limits = limits
        self._watermark = watermark
        self._now = 0.0  # attentive seconds, as of the last `look`
        self._heard: dict[str, Heard] = {}

    def heard(self, record: ReplicaRecord, beat: Beat) -> None:
        self._heard[record.replica_id] = heard(
            self._known(record),
            self._now,
            core_beats=beat.core_beats,
            steps=beat.steps,
            in_work=beat.in_work,
            loop_seconds=beat.loop_seconds,
        )
        self._watermark.heard(
            record.replica_id,
            beat.counts,
            turned=beat.loop_seconds == 0,
            rest=beat.rest,
            now=time.monotonic(),
        )

    def look(self, now: float) -> Iterator[tuple[ReplicaRecord, str]]:
        """At `now` (attentive seconds): which of those that were born are hung, and why."""
        self._now = now
        born = self._replicas.born()
        self._heard = {record.replica_id: self._known(record) for record in born}
        for record in born:
            if why := hung(self._heard[record.replica_id], now, self._limits):
                yield record, why

    def _known(self, record: ReplicaRecord) -> Heard:
        known = self._heard.get(record.replica_id)
        return known if known is not None and known.state == record.state else anew(self._now, record.state)
