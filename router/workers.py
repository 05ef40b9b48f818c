"""The router's parent: binds the public port once, and keeps as many workers on it as configured.

Before step 1. The failures to survive: a worker that dies or is silent (another takes its place; the port never closes), SIGTERM
(passed on; the parent ends when the last worker has drained), and the parent's own kill -9: the kernel kills the workers with it, also
one that is stopped, or the port would stay taken and no successor could start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket

import structlog

from pilotlight import children
from pilotlight.process_death import die_with_parent
from pilotlight.settings import Settings
from pilotlight.tasks import Tasks
from pilotlight.watchdog import Notifier, Watchdog
from router.machine import Memory
from router.worker import BACKLOG

RESTART_SECONDS = 0.5

log = structlog.get_logger()


def listen(config: Settings) -> socket.socket:
    """The public port's listener. Raises OSError."""
    host, port = config.router.host, config.router.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    # Connections inherit these: a client that vanished without a word does not wait for its answer for ever.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4)):
        listener.setsockopt(socket.IPPROTO_TCP, option, value)
    return listener


async def supervise(config: Settings, listener: socket.socket) -> int:
    """Run the workers until SIGTERM; the exit status is the highest of theirs."""
    Notifier.take().keep()
    parent = _Parent(listener, Memory.make(config.router.workers), config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, parent.stop)
    async with Tasks() as tasks:
        tasks.spawn(parent.watchdog.run(), name="watchdog")
        return max(await asyncio.gather(*(parent.keep(index) for index in range(config.router.workers))))


class _Parent:
    def __init__(self, listener: socket.socket, memory: Memory, config: Settings) -> None:
        self._listener, self._memory = listener, memory
        self._running: set[asyncio.subprocess.Process] = set()
        self._stopping = asyncio.Event()
        self.watchdog = Watchdog(
            config.paths.run / "workers.sock",
            running=lambda: [process.pid for process in self._running if process.returncode is None],
            silent_seconds=config.watch.silent_seconds,
            told=lambda pid: log.error("a worker is silent; killing it", action="worker_hung", pid=pid),
        )

    def stop(self) -> None:
        self._stopping.set()
        self._listener.close()
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    async def keep(self, index: int) -> int:
        """Keep worker `index` alive. Returns the exit status of the last."""
        status = 0
        while not self._stopping.is_set():
            descriptor, shared = self._listener.fileno(), self._memory.descriptor
            environ = children.environment(os.environ) | self.watchdog.environ
            process = await asyncio.create_subprocess_exec(
                *children.python("router.worker", str(descriptor), str(index), str(shared)),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(descriptor, shared),
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
                log.error("a worker died; another takes its place", action="worker_died", index=index, pid=process.pid, status=status)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), RESTART_SECONDS)
        return abs(status)
