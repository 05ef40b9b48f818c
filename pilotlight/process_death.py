"""A child that dies with its parent: for programs that kill -9 of us must not leave behind.

The kernel watches the thread that forks, so fork from one that lives as long as the process (the event loop's). It must
survive a parent that dies between fork and this call.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def end_with_parent(death_signal: int = signal.SIGKILL) -> None:
    """From now on this process ends with the thread that forked it; of one that has ended before, the caller must hear
    otherwise.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)


def die_with_parent(death_signal: int) -> Callable[[], None]:
    """A `preexec_fn` for subprocess (which calls it after any change of user: that change would clear it)."""
    parent = os.getpid()

    def in_child() -> None:
        end_with_parent(death_signal)
        if os.getppid() != parent:
            os._exit(1)

    return in_child
