"""The reserve of the disk: room that `pilotlight up` takes while there is plenty, and gives up when the disk is full.

It is two files that hold nothing. One is for what runs: records of answers, journals, logs. The other is for Postgres,
which ends on a full disk and needs room for its log to start again. It goes only when Postgres cannot run, so that
nothing else has taken it by then. Both are taken again once there is room for them and for the floor beside them
(`room.py`). So giving them up never lets new calls in.

The failures to survive: a disk that fills within a second, and one too small for the reserve. In the first case records
wait in memory until the next look; in the second no reserve is held.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from pilotlight.cli.exit_codes import explain_os_error
from pilotlight.room import free_bytes, held, reserve
from pilotlight.settings import DiskSettings, Paths
from pilotlight.sizes import human

LOOK_SECONDS = 0.5
GIVE_UP_PART = 4  # below this part of the floor the reserve goes: new calls have long been refused


class Reserve:
    """Both files. `say` hears what is given up and taken again."""

    def __init__(self, paths: Paths, limits: DiskSettings, say: Callable[[str], None]) -> None:
        self._paths = paths
        self._limits = limits
        self._say = say
        self._sizes = {paths.reserve: limits.reserve_bytes, paths.postgres_reserve: limits.postgres_reserve_bytes}
        self._last_error = ""

    async def keep(self) -> NoReturn:
        """Look for ever: a disk tells nobody when it fills."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Give up the first where the disk is full; take again whichever has room beside the floor."""
        try:
            free = free_bytes(self._paths.state)
            if free < self._limits.floor_bytes // GIVE_UP_PART:
                self._give_up(self._paths.reserve)
            else:
                self._fill_again()
            self._last_error = ""
        except OSError as error:
            if str(error) != self._last_error:
                self._last_error = str(error)
                self._say(f"the disk's reserve is not kept for now: {explain_os_error(error)}")

    def for_postgres(self) -> None:
        """Postgres cannot run: where that may be for want of room, it gets what was kept for it. Never raises."""
        try:
            if free_bytes(self._paths.state) + held(self._paths) - reserve(self._limits) < self._limits.floor_bytes:
                self._give_up(self._paths.postgres_reserve)
        except OSError as error:
            self._say(f"Postgres' reserve cannot be given up: {explain_os_error(error)}")

    def _give_up(self, file: Path) -> None:
        if size := _size(file):
            os.truncate(file, 0)
            self._say(
                f"the disk is full; its reserve of {human(size)} is given up to {_whose(file, self._paths)}. Free some space"
            )

    def _fill_again(self) -> None:
        for file, size in self._sizes.items():
            if _size(file) < size and free_bytes(self._paths.state) >= self._limits.floor_bytes + size:
                again = file.exists()
                allocate(file, size)
                if again:
                    self._say(
                        f"there is room again; the reserve of {human(size)} for {_whose(file, self._paths)} is kept"
                    )


def allocate(file: Path, size: int) -> None:
    """Have the file take so much of the disk, or nothing. Raises OSError."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
        os.ftruncate(descriptor, size)  # of one that was larger
    except OSError:
        os.ftruncate(descriptor, 0)
        raise
    finally:
        os.close(descriptor)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _whose(file: Path, paths: Paths) -> str:
    return "Postgres" if file == paths.postgres_reserve else "what runs"
