"""The beginning of a replica: its snapshot is brought, its cache is sized, and a standby is given the order to fork it.
Step 8.

Before it is born there is nothing to signal: its control socket goes, and with it whatever was about to be forked. The
failures to survive: a standby that dies with the order in hand, which is no fault of the replica's (another is asked),
an order to end while its bytes are still on their way, and bytes that never come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from pilotlight.settings import Paths, RuntimeSettings
from runtime import logprobs
from runtime.control import Control
from runtime.node.fork_request import distrust
from runtime.node.fork_request import order as order_of
from runtime.node.kv_cache import Sizing, cache_bytes, size
from runtime.node.replica_record import Running
from runtime.node.staging import Staged, Staging
from runtime.wire import EngineEnvironment, Phase, Start
from snapshots.errors import SnapshotError

if TYPE_CHECKING:
    from runtime.node.replicas import Lives

log = structlog.get_logger()

FORK_TRIES = 3  # standbys that may die with the same order in hand
COPY_ARGUMENTS = ("dtype", "hf-overrides", "runner", "convert")  # of the engine: another value, another baked copy


class Births:
    def __init__(
        self, lives: Lives, *, environment: EngineEnvironment, paths: Paths, settings: RuntimeSettings, staging: Staging
    ) -> None:
        self._lives, self._environment, self._paths, self._settings, self._staging = (
            lives,
            environment,
            paths,
            settings,
            staging,
        )

    async def bring_up(self, running: Running) -> None:
        """From the order to the fork. What fails ends it with the reason."""
        try:
            if running.start.plain:
                await asyncio.to_thread(distrust, self._paths, running.start.digest)
            staged = await self._staged(running)
            if running.state == "stopped":
                return  # told to, or given up, meanwhile
            sizing = self._size(running, staged)
            running.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lives.shipping.opened(running.start.replica_id)
        except Exception as error:
            self._failed(running, error)
            return
        if staged.whole.done():
            self._fetched(running)
        else:  # it begins while the last bytes are on their way
            staged.whole.add_done_callback(lambda _: self._fetched(running))
        await self._fork(running, staged, sizing)

    def unborn(self, running: Running, again: Callable[[], None]) -> None:
        """The standby died with the order in hand."""
        if running.told or running.tries >= FORK_TRIES:
            self._lives.gone(running, running.reason or f"{running.tries} standbys died while they forked this replica")
        else:
            log.warning(
                "a standby died during a fork; asking another", action="fork_again", replica_id=running.start.replica_id
            )
            again()

    def copy(self, start: Start) -> str:
        """All that decides which baked copy a replica on this node looks for."""
        args = {name.replace("_", "-"): value for name, value in start.engine_args.items()}
        return " ".join([self._environment.version, start.task, *(f"{args.get(name, '')}" for name in COPY_ARGUMENTS)])

    async def _staged(self, running: Running) -> Staged:
        """Its snapshot, here or so far here that it can begin. Raises SnapshotError, OSError."""
        start = running.start
        # With these vLLM's own loaders read, which write no copy and know nothing of bytes on their way.
        own = (
            start.plain
            or self._environment.device != "cpu"
            or {"load-format", "load_format"} & start.engine_args.keys()
        )
        staged = running.staged = await self._staging.bring(start.digest, "" if own else self.copy(start))
        if staged.fetched:
            running.rung = "stored"
        if staged.arriving is not None and own:
            await asyncio.shield(staged.whole)
        return staged

    def _size(self, running: Running, staged: Staged) -> Sizing:
        """What it will take of this machine's memory. A GPU's is the engine's to divide. Raises OSError, ValueError."""
        start = running.start
        sizing = size(
            staged.folder, slots=start.slots, settings=self._settings, task=start.task, engine_args=start.engine_args
        )
        if self._environment.device == "cpu":
            running.kv_cache_bytes = cache_bytes(start.engine_args, sizing)
            running.logprob_bytes = logprobs.step_bytes(
                staged.folder, start.allow, start.engine_args, slots=start.slots
            )
        return sizing

    def _fetched(self, running: Running) -> None:
        """Every byte of its snapshot is verified, or will never be."""
        assert running.staged is not None
        if (error := running.staged.whole.exception()) is not None:
            running.reason = f"{type(error).__name__}: {error}"  # the engine only saw that its bytes did not come
            self._lives.give_up(running, running.reason)
        elif running.state != "stopped":
            self._lives.measured(
                running, Phase(name="fetch", at=running.begun, seconds=time.monotonic() - running.begun)
            )

    async def _fork(self, running: Running, staged: Staged, sizing: Sizing) -> None:
        """Have it forked. What fails here, for want of a descriptor or by a full disk, ends it with the reason."""
        if running.state == "stopped":
            return  # told to, or given up, meanwhile
        running.tries += 1
        try:
            order = order_of(
                running,
                staged=staged,
                sizing=sizing,
                journal=self._lives.shipping.path_of(running.start.replica_id),
                environment=self._environment,
                paths=self._paths,
                settings=self._settings,
            )
            ours, theirs = Control.pair()
            with theirs:
                self._lives.hear(running, ours, lambda: self._lives.spawn(self._fork(running, staged, sizing)))
                await self._lives.standbys.fork(order, theirs, fresh=running.start.plain)
        except Exception as error:
            self._failed(running, error)
        else:
            log.info("fork ordered", action="fork_ordered", replica_id=running.start.replica_id, tries=running.tries)

    def _failed(self, running: Running, error: Exception) -> None:
        """What nobody could foresee is a mistake of ours, and told in the log besides."""
        if not isinstance(error, SnapshotError | OSError | ValueError):
            log.error(
                "a start failed unexpectedly", action="start_crash", replica_id=running.start.replica_id, exc_info=error
            )
        self._lives.gone(running, f"{type(error).__name__}: {error}")
