"""How much room an installation's disk has, what of it is spoken for, and when new calls must wait.

Spool, journals, logs and the embedded Postgres share the disk with snapshots and baked copies. Each has a bound, and
what runs has a reserve: files that only take room (`reserve.py` keeps them), given up when the disk is full. New calls
are refused while less than `disk.floor_bytes` are free besides the reserve, so what runs always finds room for its
records.

The failure to survive is a disk that fills, or is filled by others, at any moment. Used by the router (steps 2 and 12),
by `up`, by `doctor` and `ps`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pilotlight.settings import DiskSettings, Paths
from pilotlight.sizes import human

LOOK_SECONDS = 0.25  # how old what is known of the disk may be when a call is admitted


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of the disk the state folder is on."""

    free: int
    held: int = 0  # by the reserve
    spool: int = 0
    journal: int = 0


def look(paths: Paths) -> Room:
    """Costs some system calls, and one a file of spool and journal. Raises OSError."""
    return Room(free_bytes(paths.state), held(paths), taken(paths.spool), taken(paths.journal))


def shortage(room: Room, limits: DiskSettings) -> str:
    """Why no new call may be taken; "" where one may. Pure.

    1. The disk: what is free besides the whole reserve, be that held or given up, is below the floor.
    2. Spool and journals: they wait for Postgres, and have all they may.
    """
    free = room.free + room.held - reserve(limits)
    if free < limits.floor_bytes:  # 1
        return f"disk full: {human(max(0, free))} free besides the reserve, {human(limits.floor_bytes)} needed (disk.floor_bytes)"
    for name, used, most in (
        ("spool", room.spool, limits.spool_bytes),
        ("journal", room.journal, limits.journal_bytes),
    ):  # 2
        if used >= most:
            return (
                f"disk full: the {name} has {human(used)} of {human(most)} (disk.{name}_bytes) and waits for Postgres"
            )
    return ""


class Watched:
    """The shortage as one process knows it: looked at when asked, at most every LOOK_SECONDS."""

    def __init__(self, look: Callable[[], Room], limits: DiskSettings, *, clock: Callable[[], float]) -> None:
        self._look = look
        self._limits = limits
        self._clock = clock
        self._look_at, self._reason = float("-inf"), ""

    def __call__(self) -> str:
        if (now := self._clock()) >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            try:
                self._reason = shortage(self._look(), self._limits)
            except OSError as error:
                self._reason = f"the disk cannot be looked at: {error}"
        return self._reason


def reserve(limits: DiskSettings) -> int:
    """Bytes of the whole reserve."""
    return limits.reserve_bytes + limits.postgres_reserve_bytes


def held(paths: Paths) -> int:
    """Bytes the reserve takes now."""
    return sum(blocks(file) for file in (paths.reserve, paths.postgres_reserve))


def free_bytes(folder: Path) -> int:
    """What an ordinary user may still take there. Raises OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def blocks(file: Path) -> int:
    """Bytes a file takes on disk; 0 for one that is not there."""
    with suppress(OSError):
        return file.stat().st_blocks * 512
    return 0


def taken(folder: Path) -> int:
    """Bytes the files of a folder take on disk, those below it too; what goes meanwhile counts nothing."""
    total, folders = 0, [str(folder)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total
