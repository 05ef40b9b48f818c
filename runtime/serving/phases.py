"""The phases of one cold start, told to the agent as they end. Step 8.

All times are seconds on the host's monotonic clock, which every process of the host shares; a replica's API process and
its engine core report through the same control socket.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.control import Control, PhaseDone
from runtime.wire import Phase, PhaseName


class Phases:
    def __init__(self, control: Control) -> None:
        self._control = control
        self.done: list[Phase] = []

    def add(self, name: PhaseName, begin: float, end: float | None = None, note: str = "") -> None:
        """Report a step that began at `begin` (monotonic seconds) and ended at `end`, by default now."""
        phase = Phase(name=name, at=begin, seconds=(time.monotonic() if end is None else end) - begin, note=note)
        self.done.append(phase)
        self._control.send(PhaseDone(phase=phase))

    @contextmanager
    def phase(self, name: PhaseName) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.add(name, begin)
