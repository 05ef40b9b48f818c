"""The router's parent: has the listeners, bound once, and keeps as many workers on it as configured.

Before step 1. Three failures to survive. A worker dies or is silent: another takes its place, and the port never
closes. SIGTERM: it is passed on, and the parent ends when the last worker has drained. The parent's own kill -9: the
kernel kills the workers with it, also one that is stopped. Else the port would stay taken, and no successor could
start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import structlog

from pilotlight import children
from pilotlight.process_death import die_with_parent
from pilotlight.settings import Settings
from pilotlight.tasks import Tasks
from pilotlight.watchdog import Notifier, Watchdog
from router.edge.listeners import Listeners
from router.hold.machine import Memory

RESTART_SECONDS = 0.5

log = structlog.get_logger()


async def supervise(config: Settings, listeners: Listeners) -> int:
    """Run the workers until SIGTERM; the exit status is the highest of theirs."""
    Notifier.of_starter().keep()
    parent = _Parent(listeners, Memory.make(config.router.workers), config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, parent.stop)
    async with Tasks() as tasks:
        tasks.spawn(parent.watchdog.run(), name="watchdog")
        return max(await asyncio.gather(*(parent.keep(index) for index in range(config.router.workers))))


class _Parent:
    def __init__(self, listeners: Listeners, memory: Memory, config: Settings) -> None:
        self._listeners, self._memory = listeners, memory
        self._running: set[asyncio.subprocess.Process] = set()
        self._stopping = asyncio.Event()
        self.watchdog = Watchdog(
            config.paths.sockets / "workers.sock",
            running=lambda: [process.pid for process in self._running if process.returncode is None],
            silent_seconds=config.watch.silent_seconds,
            on_silent=lambda pid: log.error("a worker is silent; killing it", action="worker_hung", pid=pid),
        )

    def stop(self) -> None:
        self._stopping.set()
        self._listeners.close()
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    async def keep(self, index: int) -> int:
        """Keep worker `index` alive. Returns the exit status of the last."""
        status = 0
        while not self._stopping.is_set():
            listeners, shared = self._listeners, self._memory.descriptor
            environ = children.environment(os.environ) | self.watchdog.environ
            process = await asyncio.create_subprocess_exec(
                *children.python("router.worker", str(listeners), str(index), str(shared)),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(*listeners.descriptors, shared),
                env=environ,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )
            self._running.add(process)
            if self._stopping.is_set():
                process.send_signal(signal.SIGTERM)
            status = await process.wait()
            self._memory.clear(index)
            self._running.discard(process)
            if not self._stopping.is_set():
                log.error(
                    "a worker died; another takes its place",
                    action="worker_died",
                    index=index,
                    pid=process.pid,
                    status=status,
                )
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), RESTART_SECONDS)
        return abs(status)
