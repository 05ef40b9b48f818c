"""What the kernel says of processes: who lives, whose child each is, in which session, since when.

A pid alone means nobody for long, the kernel gives it again: with the time of its start it does. The failure to survive
is a process that ends while it is looked at, which is not an error anywhere: it is gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ZOMBIE = "Z"


class Seen(NamedTuple):
    """As /proc/PID/stat has it."""

    state: str
    parent: int
    session: int
    start_time: int  # clock ticks since boot


def look(pid: int) -> Seen | None:
    """None: there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # before it stands a name, which may hold anything
    return Seen(fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def start_time(pid: int) -> int | None:
    """When it started; None where nobody lives by that pid, or only its zombie is left."""
    seen = look(pid)
    return None if seen is None or seen.state == ZOMBIE else seen.start_time


def boot_id() -> str:
    """Of the kernel that runs: equal ids share a monotonic clock, and a page cache. Raises OSError."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def everybody() -> Iterator[tuple[int, Seen]]:
    """All there are, zombies included."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (seen := look(int(name))) is not None:
            yield int(name), seen
