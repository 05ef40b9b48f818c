"""Whether an installation runs, and as which process: told by the lock that `pilotlight up` holds on its state folder.

What must survive is a machine that lost power: a number left in a file is nobody's, without the lock.
"""

from __future__ import annotations

import fcntl
import os

from pilotlight.settings import Paths


def is_running(paths: Paths) -> bool:
    """Whether `pilotlight up` holds this state folder."""
    try:
        lock = os.open(paths.run / "up.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def pid_of(paths: Paths) -> int:
    """Of the `up` that holds the state folder; 0 where none does, -1 where it does not say."""
    if not is_running(paths):
        return 0
    try:
        return int((paths.run / "up.lock").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return -1
