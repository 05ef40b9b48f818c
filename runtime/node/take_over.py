"""How an agent takes a node over: it is the only one, inherits orphans, and removes what a dead one left. Step 7.

What must survive is an agent killed by -9. Its replicas ended with their control sockets, but their run folders, shared
memory and stray processes are there still. What must never happen is two agents on one node: the second would remove
the first one's replicas.
"""

from __future__ import annotations

import ctypes
import fcntl
import os

import structlog

from pilotlight.settings import Paths
from runtime.reap import reap_leftovers

log = structlog.get_logger()

PR_SET_CHILD_SUBREAPER = 36


def take_over(paths: Paths) -> int:
    """Returns the descriptor of the lock, held until the process ends. Raises BlockingIOError where an agent runs
    already.
    """
    lock = os.open(paths.run / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    for replica_id in reap_leftovers(paths.replicas):
        log.warning("removed a replica left by a dead agent", action="leftover_reaped", replica_id=replica_id)
    return lock
