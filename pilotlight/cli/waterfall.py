"""The waterfall of a cold start: one bar a phase, on a common axis of time."""

from __future__ import annotations

from typing import Any

from pilotlight.cli.tables import Table, show


def print_waterfall(phases: list[dict[str, Any]], total_seconds: float, width: int = 40) -> None:
    """One bar a phase on a common axis. `phases`: name, at (monotonic seconds), seconds; the rest of the total is shown
    too.
    """
    begin = min((phase["at"] for phase in phases), default=0.0)
    rows = Table("phase", "seconds", "")
    for phase in sorted(phases, key=lambda phase: phase["at"]):
        offset = round((phase["at"] - begin) / total_seconds * width) if total_seconds else 0
        length = max(1, round(phase["seconds"] / total_seconds * width)) if total_seconds else 1
        rows.add_row(phase["name"], f"{phase['seconds']:.3f}", " " * min(offset, width) + "█" * min(length, width))
    rows.add_row("whole", f"{total_seconds:.3f}", "")
    show(rows)
