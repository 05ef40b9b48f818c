"""Background work that nobody forgets: tasks with a name, a reference, and an owner that falls when they crash.

A composition root wraps its life in `async with Tasks() as tasks`. A task that crashes is logged at once, the owner's
waiting is cancelled, and the `async with` raises the crash. The process ends and its supervisor starts it anew. The
failure to survive is an error that is swallowed: it would leave a process that answers probes and does nothing. On the
way out all tasks are cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

import structlog

log = structlog.get_logger()
Result = TypeVar("Result")


class Tasks:
    """Owns background tasks. One that crashes ends the `async with` with its error."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._running: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Tasks:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel what runs and wait for it. Raises BaseExceptionGroup of the tasks' crashes, if any."""
        for task in self._running:
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    def spawn(self, work: Coroutine[Any, Any, Result], *, name: str) -> asyncio.Task[Result]:
        """Run `work` in the background; that it returns is fine, that it raises ends the owner. Raises RuntimeError
        after the end.
        """
        task = self._group.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("background task crashed", action="task_crash", task=task.get_name(), exc_info=error)
