"""The node's connection to its object store: a thread with an event loop of its own. Step 9, phase `fetch`.

It is apart from the agent's loop, so that a download at full speed delays neither a heartbeat nor a death notice. The
client is made when the agent starts, not when the first caller waits; a node without an origin never imports one. It
must survive an origin that is away at that moment: the client is made again when it is needed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import structlog

from snapshots.errors import OriginError, SnapshotError
from snapshots.manifest import MANIFEST, Manifest, parse_manifest
from snapshots.store.origin import Origin, connect
from snapshots.transfer import Room, Steps, pull_from

T = TypeVar("T")
END_SECONDS = 2.0  # for transfers to stop; what they have stays on disk

log = structlog.get_logger()


class Fetcher:
    """Methods are called on the agent's loop; `steps` and `room` of a pull are called on the thread's."""

    def __init__(self, url: str, *, code: bool = False) -> None:
        """`code`: snapshots may hold the model's own."""
        self.url = url
        self._code = code
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._open: Origin | None = None
        self._opening = asyncio.Lock()
        self._thread = threading.Thread(target=self._run, name="fetcher", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._warm(), self._loop)

    async def pull(self, digest: str, store: Path, steps: Steps, room: Room) -> Manifest:
        """See `pull_from`."""

        async def work() -> Manifest:
            return await pull_from(await self._origin(), digest, store, steps=steps, room=room, code=self._code)

        return await self._there(work())

    async def holds(self, digest: str) -> bool:
        """Does the origin hold this digest whole? Not, where it cannot be asked."""

        async def work() -> None:
            origin = await self._origin()
            parse_manifest(await origin.manifest(digest), digest, f"{origin.name}/{MANIFEST}")

        try:
            await self._there(work())
        except SnapshotError as error:
            log.info("the origin does not have it", action="origin_lacks", digest=digest, reason=str(error))
            return False
        return True

    def close(self) -> None:
        """Stop what is being fetched; what is on disk stays for the next agent."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop)
            self._thread.join(END_SECONDS)

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _origin(self) -> Origin:
        """Raises OriginError."""
        async with self._opening:
            if self._open is None:
                self._open = await self._stack.enter_async_context(connect(self.url))
            return self._open

    async def _warm(self) -> None:
        try:
            await (await self._origin()).ready()
        except OriginError as error:
            log.warning("the origin cannot be used yet", action="origin_away", url=self.url, reason=str(error))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())

    def _stop(self) -> None:
        self._loop.stop()

    async def _end(self) -> None:
        others = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._stack.aclose()
