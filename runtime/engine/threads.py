"""Which threads may live in a process that is about to be forked. Step 8.

A fork copies the thread that forks and no other: a lock that another one holds then is held for ever in the replica. So
every thread must be one whose locks no fork ever takes, and is listed here by name, for each kind of device. What must
survive is a library that starts one nobody thought of: the error names it, and nothing is forked.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

MAY_LIVE: Mapping[str, Collection[str]] = {
    "cpu": frozenset(),
    "cuda": frozenset(),
}  # beside the one that forks; none is needed so far
ENDING_SECONDS = 5.0  # threads of what was torn down may still be on their way out


class Unforkable(RuntimeError):
    """This process must not be forked: CUDA is initialised, or a thread nobody expects is alive."""


def check_threads(may_live: Collection[str], *, patience: float = ENDING_SECONDS) -> int:
    """How many threads are alive. Raises Unforkable, with the names of those that should not be."""
    deadline = time.monotonic() + patience
    while found := strangers(may_live):
        if time.monotonic() > deadline:
            raise Unforkable(f"{len(found)} threads that no fork may meet are alive in the standby: {', '.join(found)}")
        time.sleep(0.01)
    return len(os.listdir("/proc/self/task"))


def strangers(may_live: Collection[str]) -> list[str]:
    """Threads of this process, but for the calling one and those on the list. Python's go by the name it gave them."""
    ours = {thread.native_id: thread.name for thread in threading.enumerate()}
    found = []
    for task in map(int, os.listdir("/proc/self/task")):
        if task != threading.get_native_id():
            with suppress(OSError):  # it ended meanwhile
                name = ours.get(task) or Path(f"/proc/self/task/{task}/comm").read_text().strip()
                found += [] if name in may_live else [f"{name} ({task})"]
    return found
