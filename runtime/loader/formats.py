"""The names of our load formats, and the report of how this process got its weights. Step 9, phase `load`.

Neither torch nor vLLM is imported here: whoever only writes an engine's arguments needs neither. The report crosses no
process by itself: the engine core, which loads, sends it to the agent with the phase.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from runtime.control import LoadOutcome

MAPPED = "pilotlight"  # `mapped.py`, on CPU
RING = "pilotlight_ring"  # `streamed.py`, on a GPU


class Loaded(NamedTuple):
    """What one load has come to."""

    outcome: LoadOutcome
    reason: str = ""  # why vLLM's own loader was used


@dataclass
class LoadReport:
    """How the weights came: the outcome is for programs, the note, which may say why, is for people."""

    outcome: LoadOutcome | None = None  # None: nothing was loaded yet
    note: str = ""

    def set(self, outcome: LoadOutcome, reason: str = "") -> None:
        self.outcome = outcome
        self.note = f"plain: {reason}" if reason else outcome.value


report = LoadReport()
