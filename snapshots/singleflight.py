"""Single flight: of all who want the same work done on this node, one does it and the others wait.

They may be threads or processes. The lock is the kernel's, on a file, so that kill -9 of its holder frees it at once.
The file is removed by its holder; one that was waiting for a removed file takes a new one.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

POLL = 0.05  # s


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold the lock; blocks the thread. Raises OSError."""
    while (held := _hold(lock, fcntl.LOCK_EX)) is None:
        pass
    try:
        yield
    finally:
        _release(lock, held)


@asynccontextmanager
async def alone_async(lock: Path) -> AsyncIterator[None]:
    """Hold the lock. Polls: a thread that waits for the kernel could not be cancelled. Raises OSError."""
    while (held := _hold(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)) is None:
        await asyncio.sleep(POLL)
    try:
        yield
    finally:
        _release(lock, held)


async def together(work: list[Coroutine[Any, Any, None]]) -> None:
    """Run all of it at once; the first error ends the rest and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _hold(lock: Path, how: int) -> int | None:
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except BlockingIOError:
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _release(lock: Path, held: int) -> None:
    lock.unlink(missing_ok=True)
    os.close(held)
