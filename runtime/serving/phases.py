"""The phases of one cold start, reported to the agent as they end. Step 8.

All times are seconds on the host's monotonic clock, which every process of the host shares. A replica's API process and
its engine core report through the same control socket.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.control import Control, LoadOutcome, PhaseDone
from runtime.wire import Phase, PhaseName


class Phases:
    """Reports the steps of one start to the agent."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def add(self, name: PhaseName, begin: float, *, note: str = "", load: LoadOutcome | None = None) -> None:
        """Report a step that began at `begin` (monotonic seconds) and ends now. `load`: the outcome of phase `load`."""
        phase = Phase(name=name, at=begin, seconds=time.monotonic() - begin, note=note)
        self._control.send(PhaseDone(phase=phase, load=load))

    @contextmanager
    def phase(self, name: PhaseName) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.add(name, begin)
