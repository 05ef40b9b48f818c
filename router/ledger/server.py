"""The ledger's socket: workers say who they are and how far their spool has grown, and are given the policy.

Steps 2 and 12. Failures to survive: a worker that dies (its connection's end starts its grace), one that says nonsense
(that connection closes, with a line in the log), and one that reads nothing: it gets only ever the newest policy, and is
let go after SLOW_SECONDS, so that nothing piles up here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from pilotlight.frames import FrameError, FrameStream
from router.ledger.policy import Policies
from router.ledger.wire import Alive, Spooled, ToLedger, WorkerHello
from router.ledger.workers import Workers

HEARTBEAT_SECONDS = 1.0
HELLO_SECONDS = 5.0
SLOW_SECONDS = 5.0

log = structlog.get_logger()


class LedgerServer:
    def __init__(self, *, policies: Policies, workers: Workers, spooled: Callable[[str], None]) -> None:
        self._policies, self._workers, self._spooled = policies, workers, spooled

    async def greet(self, stream: FrameStream[ToLedger]) -> None:
        """One connection, from its hello to its end."""
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                hello = await stream.receive()
            if not isinstance(hello, WorkerHello):
                return
            await self._serve(stream, hello)
        except (FrameError, TimeoutError, ConnectionError) as error:
            log.warning("a worker's connection is of no more use", action="ledger.worker", reason=str(error) or type(error).__name__)

    async def _serve(self, stream: FrameStream[ToLedger], hello: WorkerHello) -> None:
        log.info("worker connected", action="ledger.worker", worker_id=hello.worker_id, pid=hello.pid)
        self._workers.arrived(hello.worker_id)
        pushing = asyncio.create_task(self._push(stream), name=f"push {hello.worker_id}")
        try:
            async for frame in stream:
                if isinstance(frame, Spooled):
                    self._spooled(frame.file)
        finally:
            pushing.cancel()
            self._workers.left(hello.worker_id, now=time.monotonic())
            log.info("worker disconnected", action="ledger.worker", worker_id=hello.worker_id, pid=hello.pid)

    async def _push(self, stream: FrameStream[ToLedger]) -> None:
        """The policy whole, at once and on every change, and a heartbeat each second; ends by closing the connection."""
        version = 0
        try:
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        policy = await self._policies.newer_than(version)
                    version = policy.version
                    stream.send(policy)
                except TimeoutError:
                    stream.send(Alive())
                async with asyncio.timeout(SLOW_SECONDS):
                    await stream.drain()
        except (TimeoutError, ConnectionError):
            pass  # it reads nothing, or is gone: `_serve` sees the end
        finally:
            stream.close()
