"""Leadership while Postgres is away, where one machine has all the activators there are. Step 6.

Postgres' session lock says who leads, and with Postgres gone nobody can take it. Only where every activator of an
installation runs on one state folder (the embedded Postgres, or `activator.alone`) may one lead without it. Why two
never lead with commands that are obeyed:

1. On this machine a leader holds a `flock` on one file of the state folder, from before its first command until its
   end. The kernel drops it with the process and never before, so there is one holder.
2. Over time each leader writes its epoch into a file before it acts under it. One that leads without Postgres takes a
   higher one than the file has, so it is above every epoch led under from here. Agents refuse what is lower. They say
   so where they have obeyed a higher one, which is then stepped over. Where the file cannot be written, nobody leads
   without Postgres.
3. When Postgres is back, the leader must take its lock and an epoch above its own there, before any command is stored.
   If another has the lock, or the epochs there have passed its own, somebody has led on another machine, against what
   the setting says. Then it ends (`lease.py`).

What this cannot see is a setting that is wrong: two machines with `activator.alone` and one Postgres could both lead
while that is away. Their agents are apart then, each obeys its own, and 3 ends one of the two.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import structlog

from pilotlight import epoch_file
from pilotlight.settings import Settings

log = structlog.get_logger()


class MachineLock:
    """This machine's word on who leads. `may`: it is enough, where Postgres has none."""

    def __init__(self, *, lock: Path, epochs: Path, may: bool) -> None:
        self._file = lock
        self._epochs = epochs
        self.may = may
        self._lock = -1

    @staticmethod
    def of(settings: Settings) -> MachineLock:
        paths = settings.paths
        may = not settings.database_url or settings.activator.alone
        return MachineLock(lock=paths.run / "activator.lock", epochs=paths.epoch, may=may)

    def hold(self) -> bool:
        """Take the lock, to the end of this process or `let_go`. False where another has it, or it cannot be had."""
        if not self.may or self._lock >= 0:
            return True
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.error("the lock of this machine's activators cannot be opened", action="alone_lock", reason=str(error))
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def let_go(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def highest(self) -> int:
        """The highest epoch led under from here."""
        return epoch_file.read(self._epochs)

    def led(self, epoch: int) -> bool:
        """Keep an epoch, before anything is done under it. False where the disk does not take it."""
        try:
            epoch_file.keep(self._epochs, epoch)
        except OSError as error:
            log.error("the epoch cannot be kept on disk", action="epoch_unkept", epoch=epoch, reason=str(error))
            return False
        return True

    def lead(self, above: int) -> int:
        """Lead without Postgres under a new epoch above this one; 0 where that may not be."""
        epoch = max(self.highest, above) + 1
        return epoch if self.may and self.hold() and self.led(epoch) else 0
