"""The agent's background work: each task is referenced until it ends, and a crash is logged.

What a task could foresee ends with a reason of its own, in the record of a replica. What it could not is a mistake of
ours: the agent logs it and goes on, because its replicas are serving.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger()


class Background:
    """The tasks that nobody awaits."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    @property
    def idle(self) -> bool:
        return not self._tasks

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("background task crashed", action="task_crash", exc_info=error)
