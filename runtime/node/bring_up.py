"""How a replica comes about: its snapshot is brought, its cache is sized, and a standby is given the order to fork it.
Step 8.

    ordered ──► snapshot here, or so far here that it can begin ──► cache sized ──► order given ──► born
                   │ it cannot be had                                  ▲                │
                   └──► gone, with the reason                          └── its standby died, FORK_TRIES times at most

One task leads it from the order to its birth. The failures to survive: a standby that dies with the order in hand is
not the replica's fault, so another is asked. An order to end may come while the bytes are still on their way, and they
may never come.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from pilotlight.settings import Paths, RuntimeSettings
from runtime import logprobs
from runtime.control import Control, Fork
from runtime.node import fork_request
from runtime.node.kv_cache import Sizing, cache_bytes, size
from runtime.node.replica_end import ReplicaEnd
from runtime.node.replica_record import ReplicaRecord
from runtime.node.replica_watch import ReplicaWatch
from runtime.node.replicas import Replicas
from runtime.node.staging import Staged, Staging
from runtime.node.standby_orders import ForkOrders
from runtime.node.usage_shipper import UsageShipper
from runtime.wire import EngineEnvironment, Phase, Start
from snapshots.errors import SnapshotError

log = structlog.get_logger()

FORK_TRIES = 3  # standbys that may die with the same order in hand


class BringUp:
    """Leads a replica from the order to its birth."""

    def __init__(
        self,
        replicas: Replicas,
        *,
        end: ReplicaEnd,
        watch: ReplicaWatch,
        orders: ForkOrders,
        staging: Staging,
        shipper: UsageShipper,
        environment: EngineEnvironment,
        paths: Paths,
        settings: RuntimeSettings,
    ) -> None:
        self._replicas = replicas
        self._end = end
        self._watch = watch
        self._orders = orders
        self._staging = staging
        self._shipper = shipper
        self._environment = environment
        self._paths = paths
        self._settings = settings

    def order(self, start: Start) -> ReplicaRecord:
        """Its record, with the time by which it must be ready."""
        record = ReplicaRecord(start, self._paths.replicas / start.replica_id, time.monotonic())
        record.copy_key = fork_request.copy_key(start, self._environment.version)
        record.rung = "standby" if self._orders.ready and not start.plain else "staged"
        reason = f"not ready after {start.deadline_seconds:g} s"
        loop = asyncio.get_running_loop()
        record.timer = loop.call_later(start.deadline_seconds, self._end.give_up, record, reason)
        self._replicas.add(record)
        return record

    async def run(self, record: ReplicaRecord) -> None:
        """From the order to the birth. What fails ends it with the reason."""
        try:
            if record.start.plain:
                await asyncio.to_thread(fork_request.distrust, self._paths, record.start.digest)
            staged = await self._staged(record)
            if record.state == "stopped":
                return  # it was ended, or given up, meanwhile
            sizing = self._size(record, staged)
            record.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._shipper.opened(record.replica_id)
            if staged.verified.done():
                self._fetched(record, staged)
            else:  # it begins while the last bytes are on their way
                staged.verified.add_done_callback(lambda _: self._fetched(record, staged))
            await self._fork_until_born(record, staged, sizing)
        except Exception as error:
            self._failed(record, error)

    async def _staged(self, record: ReplicaRecord) -> Staged:
        """Its snapshot, here or so far here that it can begin. Raises SnapshotError, OSError."""
        start = record.start
        # With these vLLM's own loaders read, which write no copy and know nothing of bytes on their way.
        own = (
            start.plain
            or self._environment.device != "cpu"
            or {"load-format", "load_format"} & start.engine_args.keys()
        )
        staged = record.staged = await self._staging.bring(start.digest, "" if own else record.copy_key)
        if staged.fetched:
            record.rung = "stored"
        if staged.arriving is not None and own:
            await asyncio.shield(staged.verified)
        return staged

    def _size(self, record: ReplicaRecord, staged: Staged) -> Sizing:
        """What it will take of this machine's memory. A GPU's is the engine's to divide. Raises OSError, ValueError."""
        start = record.start
        sizing = size(
            staged.folder, slots=start.slots, settings=self._settings, task=start.task, engine_args=start.engine_args
        )
        if self._environment.device == "cpu":
            record.kv_cache_bytes = cache_bytes(start.engine_args, sizing)
            record.logprob_bytes = logprobs.step_bytes(staged.folder, start.allow, start.engine_args, slots=start.slots)
        return sizing

    def _fetched(self, record: ReplicaRecord, staged: Staged) -> None:
        """Every byte of its snapshot is verified, or will never be."""
        if (error := staged.verified.exception()) is not None:
            record.reason = f"{type(error).__name__}: {error}"  # the engine only saw that its bytes did not come
            self._end.give_up(record, record.reason)
        elif record.state != "stopped":
            seconds = time.monotonic() - record.begun
            self._replicas.phase_done(record, Phase(name="fetch", at=record.begun, seconds=seconds))

    async def _fork_until_born(self, record: ReplicaRecord, staged: Staged, sizing: Sizing) -> None:
        """Ask one standby after the other. Raises OSError, ChildProcessError."""
        while record.state != "stopped" and not await self._fork(record, staged, sizing):
            if record.end_ordered or record.tries >= FORK_TRIES:
                died = f"{record.tries} standbys died while they forked this replica"
                self._end.gone(record, record.reason or died)
                return

    async def _fork(self, record: ReplicaRecord, staged: Staged, sizing: Sizing) -> bool:
        """Have it forked; False where the standby died with the order in hand. Raises OSError, ChildProcessError."""
        if record.tries:
            log.warning(
                "a standby died during a fork; asking another", action="fork_again", replica_id=record.replica_id
            )
        record.tries += 1
        order = self._request(record, staged, sizing)
        ours, theirs = Control.pair()
        with theirs:
            birth = self._watch.attend(record, ours)
            await self._orders.fork(order, theirs, fresh=record.start.plain)
        log.info("fork ordered", action="fork_ordered", replica_id=record.replica_id, tries=record.tries)
        born = await birth
        self._orders.done_with(record.replica_id)
        return born

    def _request(self, record: ReplicaRecord, staged: Staged, sizing: Sizing) -> Fork:
        return fork_request.order(
            record,
            staged=staged,
            sizing=sizing,
            journal=self._shipper.path_of(record.replica_id),
            environment=self._environment,
            paths=self._paths,
            settings=self._settings,
        )

    def _failed(self, record: ReplicaRecord, error: Exception) -> None:
        """What nobody could foresee is a mistake of ours, and logged besides."""
        if not isinstance(error, SnapshotError | OSError | ValueError):
            log.error("a start failed unexpectedly", action="start_crash", replica_id=record.replica_id, exc_info=error)
        self._end.gone(record, f"{type(error).__name__}: {error}")
