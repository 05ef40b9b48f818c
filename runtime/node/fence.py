"""Fencing: a command older than one already seen comes from an activator that no longer leads. Step 7.

The epoch is kept in a file, written before its first command is obeyed: an agent started anew refuses the old leader
too. The file takes a new epoch on a full disk too (`epoch_file.py`). The failure left is a disk that takes nothing at
all. Then control goes on. Within this agent's life the epoch in memory refuses what is older. The file is written as
soon as the disk lets us (`retry`, once a second). An agent that has to start anew on such a disk cannot make its
socket, so it obeys nobody at all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from pilotlight.epoch_file import is_full_size, keep, read

log = structlog.get_logger()


class Fence:
    """`write` is the disk: `keep`, or a broken one in tests."""

    def __init__(self, file: Path, *, write: Callable[[Path, int], None] | None = None) -> None:
        self._file, self._write = file, write or keep
        kept = read(file)
        self.highest = (kept, 0)
        # the epoch on disk; None: no file that can be overwritten
        self._kept: int | None = kept if is_full_size(file) else None
        self.retry()

    def admit(self, at: tuple[int, int]) -> bool:
        """Is a command of this (epoch, sequence) not older than what was seen? If so it is the highest now. Never
        raises.
        """
        if at < self.highest:
            return False
        self.highest = at
        self.retry()
        return True

    def retry(self) -> None:
        """Write the highest epoch where the file does not have it."""
        epoch, failing = self.highest[0], self._kept is not None and self._kept < 0
        if self._kept == epoch:
            return
        try:
            self._write(self._file, epoch)
        except OSError as error:
            if not failing:
                log.error(
                    "the fence is not kept on disk; obeying all the same",
                    action="fence_unkept",
                    epoch=epoch,
                    reason=str(error),
                )
            self._kept = -1
        else:
            self._kept = epoch
