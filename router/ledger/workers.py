"""Which router workers live: only of a dead one may the ledger settle what it never ended, and delete its last file.

Step 12. The failure to survive is calling a living worker dead: it would write on into a deleted file. So a worker is
dead only when it has no connection, has had GRACE_SECONDS to make one, and no process holds one of its spool files open
(the kernel closes those with the process, however it dies; a pid alone may have been given to another).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

GRACE_SECONDS = 2.0  # without a connection: after it was lost, or since the ledger first saw its files


class Workers:
    """`held` names the files of the spool that some process holds open."""

    def __init__(self, held: Callable[[], set[str]]) -> None:
        self._held = held
        self._connections: Counter[str] = Counter()
        self._away_since: dict[str, float] = {}
        self._dead: set[str] = set()

    def arrived(self, worker: str) -> None:
        """It has connected; true also of one that we took for dead."""
        self._connections[worker] += 1
        self._away_since.pop(worker, None)
        self._dead.discard(worker)

    def left(self, worker: str, *, now: float) -> None:
        self._connections[worker] -= 1
        if self._connections[worker] <= 0:
            del self._connections[worker]
            self._away_since[worker] = now

    def dead(self, workers: Iterable[str], *, now: float) -> set[str]:
        """Those of `workers` (the names in the spool) that are dead at `now`, monotonic seconds."""
        workers = set(workers)
        self._away_since = {worker: since for worker, since in self._away_since.items() if worker in workers}
        doubtful = set()
        for worker in workers - self._connections.keys() - self._dead:
            if now - self._away_since.setdefault(worker, now) >= GRACE_SECONDS:
                doubtful.add(worker)
        if doubtful:
            held = {name.rsplit(".", 2)[0] for name in self._held()}
            for worker in doubtful & held:
                self._away_since[worker] = now  # it lives, and will connect; ask again after another grace
            self._dead |= doubtful - held
        return workers & self._dead

    def forget(self, worker: str) -> None:
        """Its last file is gone."""
        self._dead.discard(worker)


def files_held(folder: Path) -> set[str]:
    """Names of files in `folder` that another process of this machine holds open, as far as we may look: about 5 ms."""
    held: set[str] = set()
    resolved = folder.resolve()  # as the kernel names it
    for process in os.scandir("/proc"):
        if process.name.isdigit() and int(process.name) != os.getpid():
            held |= _files_of(f"{process.path}/fd", resolved)
    return held


def _files_of(descriptors: str, folder: Path) -> set[str]:
    held: set[str] = set()
    try:
        with os.scandir(descriptors) as entries:
            for descriptor in entries:
                with suppress(FileNotFoundError):  # closed meanwhile
                    target = Path(descriptor.path).readlink()
                    if target.parent == folder:
                        held.add(target.name)
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        pass  # it has ended, or is another user's
    return held
