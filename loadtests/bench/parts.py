"""A section in parts: one that fails is told with its reason, and the others are measured all the same."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from pilotlight.cli.bench.coldstart import say


class PartsFailed(Exception):
    """Some parts of a section failed; the text says which and why."""


class Parts:
    def __init__(self) -> None:
        self._failed: list[str] = []

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        say(what)
        try:
            yield
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            self._failed.append(f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")

    def finish(self) -> None:
        """Raises PartsFailed where a part did."""
        if self._failed:
            raise PartsFailed("; ".join(self._failed))
