"""The names of our load formats, and how this process got its weights in the end. Step 9, phase `load`.

Imports nothing, so that whoever only writes an engine's arguments need not load torch or vLLM.
"""

from __future__ import annotations

MAPPED = "pilotlight"  # `mapped.py`, on CPU
RING = "pilotlight_ring"  # `streamed.py`, on a GPU


class Outcome:
    """ "mapped", "baked", "ring", or "plain" and why; the note of the phase `load`."""

    def __init__(self) -> None:
        self.note = ""


outcome = Outcome()
