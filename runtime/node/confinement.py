"""What an engine's process may never have, taken from it between fork and exec. Before step 7.

It stands apart from `pilotlight/children.py`, which every process of ours imports: only the agent needs what calls the
kernel here. The failure to survive is an engine that is talked into running another program.
"""

from __future__ import annotations

import ctypes
import resource

NO_NEW_PRIVILEGES = 38  # of prctl(2)


def confine() -> None:
    """In the child: no program gives it more rights than we have, and no core dump holds a prompt."""
    libc = ctypes.CDLL(None)
    libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
