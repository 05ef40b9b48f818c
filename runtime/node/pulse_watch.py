"""The agent's ear on its replicas: what they beat is remembered, and who has fallen silent is named. Step 8.

`silence.py` decides; this module keeps what was heard, by replica, in the agent's attentive seconds. A replica whose
state changes is judged anew: what was slow in its build is not held against it once it serves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runtime.control import Beat
from runtime.node.replica_record import Running
from runtime.node.silence import Heard, Limits, anew, heard, hung


class Listening:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._now = 0.0
        self._heard: dict[str, Heard] = {}

    def heard(self, running: Running, beat: Beat) -> None:
        before = self._known(running)
        self._heard[running.start.replica_id] = heard(
            before,
            self._now,
            core_beats=beat.core_beats,
            steps=beat.steps,
            in_work=beat.in_work,
            loop_seconds=beat.loop_seconds,
        )

    def look(self, born: Sequence[Running], now: float) -> Iterator[tuple[Running, str]]:
        """At `now` (attentive seconds): who of those that were born is hung, and why."""
        self._now = now
        self._heard = {running.start.replica_id: self._known(running) for running in born}
        for running in born:
            if why := hung(self._heard[running.start.replica_id], now, self._limits):
                yield running, why

    def _known(self, running: Running) -> Heard:
        known = self._heard.get(running.start.replica_id)
        return known if known is not None and known.state == running.state else anew(self._now, running.state)
