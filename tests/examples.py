"""How many examples a test of Hypothesis has: all in `make test`, a fifth in `make unit`, which has ten seconds."""

from __future__ import annotations

from hypothesis import settings

ALL, FEW = 100, 20  # of a test that says nothing


def examples(number: int) -> int:
    return number * (settings().max_examples or ALL) // ALL
