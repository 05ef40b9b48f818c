"""The ledger's socket: workers say who they are and how far their spool has grown, and are given the policy.

Steps 2 and 12. The admin API asks here, too, when all workers know a key it has just made. Three failures to survive. A
worker dies: its connection's end starts its grace, and nobody waits for its word. One says nonsense: that connection
closes, with a line in the log. One reads nothing: it gets only ever the newest policy, and is let go after
SLOW_SECONDS, so that nothing piles up here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from pilotlight.frames import LONGEST_FRAME, FrameError, FrameStream, check_protocol
from router.ledger.policy import Policies
from router.ledger.wire import Alive, Applied, AwaitKey, KeyTold, PolicyPart, Spooled, ToLedger, WorkerHello
from router.ledger.worker_locks import Workers

HEARTBEAT_SECONDS = 1.0
HELLO_SECONDS = 5.0
SLOW_SECONDS = 5.0
PART_KEYS = 200  # of a whole policy in one frame: about a millisecond of a worker's loop
KEY_BYTES = 300  # of a key in a frame, at most
LONGEST_AWAIT_SECONDS = 30.0

log = structlog.get_logger()


class LedgerServer:
    def __init__(self, *, policies: Policies, workers: Workers, spooled: Callable[[str], None]) -> None:
        self._policies = policies
        self._workers = workers
        self._spooled = spooled
        self._applied: dict[
            FrameStream[ToLedger], int
        ] = {}  # by connected worker, the version it serves by; 0: none yet
        self._acknowledged = asyncio.Condition()

    @property
    def connected(self) -> int:
        """Workers."""
        return len(self._applied)

    async def greet(self, stream: FrameStream[ToLedger]) -> None:
        """One connection, from its hello to its end."""
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                hello = await stream.receive()
            if isinstance(hello, WorkerHello):
                check_protocol(hello.protocol, f"worker {hello.worker_id}")
                await self._serve(stream, hello)
            elif isinstance(hello, AwaitKey):
                stream.send(KeyTold(everywhere=await self._all_know(hello)))
                await stream.drain()
        except (FrameError, TimeoutError, ConnectionError) as error:
            log.warning(
                "a worker's connection is of no more use",
                action="ledger.worker",
                reason=str(error) or type(error).__name__,
            )

    async def _serve(self, stream: FrameStream[ToLedger], hello: WorkerHello) -> None:
        log.info("worker connected", action="ledger.worker", worker_id=hello.worker_id, pid=hello.pid)
        self._workers.arrived(hello.worker_id, hello.pid)
        self._applied[stream] = 0
        pushing = asyncio.create_task(self._push(stream, hello), name=f"push {hello.worker_id}")
        try:
            async for frame in stream:
                if isinstance(frame, Spooled):
                    self._spooled(frame.file)
                elif isinstance(frame, Applied):
                    self._applied[stream] = frame.version
                    await self._news()
        finally:
            pushing.cancel()
            del self._applied[stream]
            self._workers.left(hello.worker_id, now=time.monotonic())
            await self._news()
            log.info("worker disconnected", action="ledger.worker", worker_id=hello.worker_id, pid=hello.pid)

    async def _all_know(self, asked: AwaitKey) -> bool:
        """Has every worker that is connected said that it serves by a policy with (or without) the key? Those that come
        later begin with it.
        """
        try:
            async with asyncio.timeout(min(asked.seconds, LONGEST_AWAIT_SECONDS)):
                version = await self._policies.settled(asked.key_id, live=asked.live)
                async with self._acknowledged:
                    await self._acknowledged.wait_for(
                        lambda: all(applied >= version for applied in self._applied.values())
                    )
        except TimeoutError:
            return False
        return True

    async def _news(self) -> None:
        async with self._acknowledged:
            self._acknowledged.notify_all()

    async def _push(self, stream: FrameStream[ToLedger], hello: WorkerHello) -> None:
        """The policy at once and on every change, and a heartbeat each second; ends by closing the connection."""
        version = 0
        try:
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await self._policies.changed_since(version)
                except TimeoutError:
                    stream.send(Alive())
                else:
                    version = (
                        await self._tell(stream, version)
                        if hello.takes_changes
                        else self._tell_everything(stream, hello)
                    )
                async with asyncio.timeout(SLOW_SECONDS):
                    await stream.drain()
        except (TimeoutError, ConnectionError):
            pass  # it reads nothing, or is gone: `_serve` sees the end
        finally:
            stream.close()

    async def _tell(self, stream: FrameStream[ToLedger], version: int) -> int:
        """What has changed since `version`, or everything, in parts; returns the version told."""
        policies = self._policies
        changes = policies.changes(version) if version else None
        if changes is not None:
            stream.send(*changes)
            return changes[-1].version if changes else version
        version, ahead, rows = policies.version, policies.ahead_seconds, tuple(policies.keys.values())
        for first in range(0, max(len(rows), 1), PART_KEYS):
            part = rows[first : first + PART_KEYS]
            last = first + PART_KEYS >= len(rows)
            stream.send(PolicyPart(version=version, first=first == 0, last=last, keys=part, ahead_seconds=ahead))
            async with asyncio.timeout(SLOW_SECONDS):
                await stream.drain()
            await asyncio.sleep(0)
        return version

    def _tell_everything(self, stream: FrameStream[ToLedger], hello: WorkerHello) -> int:
        """To a worker of the release before, which takes one frame only."""
        policy = self._policies.current
        assert policy is not None
        if len(policy.keys) * KEY_BYTES > LONGEST_FRAME:
            log.error(
                "a worker of the release before cannot take so many keys, and serves by those it had: restart the router",
                action="ledger.worker", worker_id=hello.worker_id, keys=len(policy.keys),
            )  # fmt: skip
        else:
            stream.send(policy)
        return policy.version
