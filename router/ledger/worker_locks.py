"""Knows which router workers run: only of a dead one may the ledger settle what it never ended, and delete its last
file.

Step 12. The failure to survive is calling a running worker dead: it would write on into a deleted file. A worker keeps
a lock on one of its spool files as long as it runs (`spool.py`). The kernel drops it with the process, in whatever
namespace or under whatever user that ran. A worker of the release before has no locks, and is known by its lines, which
have no checksum. It is dead only without a connection for OLD_GRACE_SECONDS, and when the process it said it was is
gone.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable

OLD_GRACE_SECONDS = 60.0  # for one of the release before to connect: it pauses at most a few seconds between two tries


class Workers:
    """`locked`: is a lock held on a file of this worker's? `keeps_locks`: is it of a release that has them? `lives`: is
    there this pid?
    """

    def __init__(
        self,
        *,
        locked: Callable[[str], bool],
        keeps_locks: Callable[[str], bool],
        is_running: Callable[[int], bool] | None = None,
    ) -> None:
        self._locked = locked
        self._keeps_locks = keeps_locks
        self._is_running = is_running or is_alive
        self._connections: Counter[str] = Counter()
        self._pids: dict[str, int] = {}
        self._away_since: dict[str, float] = {}
        self._dead: set[str] = set()

    def arrived(self, worker: str, pid: int) -> None:
        """It has connected; true also of one that we took for dead."""
        self._connections[worker] += 1
        self._pids[worker] = pid
        self._away_since.pop(worker, None)
        self._dead.discard(worker)

    def left(self, worker: str, *, now: float) -> None:
        self._connections[worker] -= 1
        if self._connections[worker] <= 0:
            del self._connections[worker]
            self._away_since[worker] = now

    def dead(self, workers: Iterable[str], *, now: float) -> set[str]:
        """Those of `workers` (the names in the spool) that are dead at `now`, monotonic seconds. Who is dead stays
        so.
        """
        workers = set(workers)
        self._away_since = {worker: since for worker, since in self._away_since.items() if worker in workers}
        self._dead |= {
            worker for worker in workers - self._connections.keys() - self._dead if self._is_dead(worker, now)
        }
        return workers & self._dead

    def forget(self, worker: str) -> None:
        """Its last file is gone."""
        self._dead.discard(worker)
        self._pids.pop(worker, None)

    def _is_dead(self, worker: str, now: float) -> bool:
        """One that is not connected.

        1. It holds a lock: it lives. 2. It would hold one if it lived.
        3. It never holds one: it has had its time to connect, and is no process of this machine.
        """
        if self._locked(worker):
            return False  # 1
        if self._keeps_locks(worker):
            return True  # 2
        away = now - self._away_since.setdefault(worker, now)
        return away >= OLD_GRACE_SECONDS and not (worker in self._pids and self._is_running(self._pids[worker]))  # 3


def is_alive(pid: int) -> bool:
    """Is there a process of this pid, whosever it is?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
