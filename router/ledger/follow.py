"""Follows the spool: what workers write goes into the join; what is settled is deleted; what the dead left is ended.

Step 12. Each worker's files are read one after the other, and none is deleted before those before it have been read. So
a request that was opened in one and ended in the next is always joined. Three failures to survive. A notice never
comes: there is a scan each second. Postgres is away for long: nothing is read beyond BACKLOG, and the disk keeps it. A
worker dies: its files are read to their ends first, then what it opened and never ended is given up as lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from router.ledger.join import Join
from router.ledger.tail import SpoolFile, Tail
from router.ledger.worker_locks import Workers

BACKLOG = 20_000  # complete requests in memory; beyond it the spool is left on disk until Postgres has taken some
LINGER_SECONDS = 0.02  # what workers write meanwhile is read together
SCAN_SECONDS = 1.0
FINISH_SECONDS = 5.0
MOST_LOGGED = 5  # damaged lines of a chunk that get a line in the log each; rejected.jsonl has all

log = structlog.get_logger()


class Follower:
    """The one reader of the spool. `settle` is called when requests have become ready."""

    def __init__(self, *, tail: Tail, join: Join, workers: Workers, settle: Callable[[], None]) -> None:
        self._tail = tail
        self._join = join
        self._workers = workers
        self._settle = settle
        self._grown: dict[str, None] = {}  # workers whose files have something to read, in the order of their notices
        self._lost: set[str] = set()  # dead workers whose open requests have been given up
        self._awake = asyncio.Event()

    def wake(self, name: str = "") -> None:
        """This file has grown; without a name: there is room in the join again."""
        if name and (file := self._tail.file(name)) is not None:
            self._grown[file.worker] = None
        self._awake.set()

    async def run(self) -> None:
        scan_at = 0.0
        while True:
            if time.monotonic() >= scan_at:
                self.scan()
                scan_at = time.monotonic() + SCAN_SECONDS
            await self.read()
            await asyncio.sleep(LINGER_SECONDS)
            with suppress(TimeoutError):
                # not wait_for: on Python 3.11 it may lose a cancellation
                async with asyncio.timeout(max(scan_at - time.monotonic(), 0)):
                    await self._awake.wait()
            self._awake.clear()

    async def finish(self) -> None:
        """Read what is on disk now, and wait FINISH_SECONDS for it to be settled. For the end of the process, after
        `run`.
        """
        self.scan()
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                while self._grown or self._join.backlog or self._join.is_waiting:
                    await self.read()
                    await asyncio.sleep(LINGER_SECONDS)

    def scan(self) -> None:
        """The named fallback: look at the folder, at the dead, and at what may be deleted."""
        for file in self._tail.scan():
            self._grown[file.worker] = None
        dead = self._workers.dead(self._tail.workers(), now=time.monotonic())
        self._lost &= dead
        for worker in dead:
            self._bury(worker)
        for worker in self._tail.workers():
            self._sweep(worker, dead=worker in self._lost)

    async def read(self) -> None:
        """Read what has grown, until there is no more or the join is full."""
        while self._grown and self._join.backlog < BACKLOG:
            worker = next(iter(self._grown))
            if not self._read_on(worker):
                del self._grown[worker]
            self._settle()
            await asyncio.sleep(0)

    def _read_on(self, worker: str) -> bool:
        """Read the next chunk of the worker's files, in their order. False: there is no more for now."""
        files = self._tail.of_worker(worker)
        for file in files:
            if not file.complete and self._read_chunk(file):
                return True
            if not file.complete and file is not files[-1]:
                self._close(file)  # a worker writes into one file at a time: this one grows no more
        return False

    def _read_chunk(self, file: SpoolFile) -> bool:
        """False: there was nothing more in it."""
        before = file.offset
        chunk = self._tail.read(file)
        if chunk.rejected:
            self._set_aside(chunk.rejected, file)
        now = time.monotonic()
        for record in chunk.records:
            self._join.add(record, file=file.name, worker=file.worker, now=now)
        return file.offset > before

    def _close(self, file: SpoolFile) -> None:
        """It grows no more, and its whole lines are read: what follows the last of them was torn."""
        if file.size > file.offset and (torn := self._tail.torn(file)):
            self._set_aside([(torn, f"at byte {file.offset}: a torn last line")], file)
        file.offset, file.complete = file.size, True

    def _set_aside(self, lines: list[tuple[bytes, str]], file: SpoolFile) -> None:
        self._tail.reject(lines, source=file.name)
        for _, why in lines[:MOST_LOGGED]:
            log.error(
                "a line that is no record is kept in rejected.jsonl", action="ledger.reject", file=file.name, reason=why
            )
        if len(lines) > MOST_LOGGED:
            log.error("and more lines of the same file", action="ledger.reject", file=file.name, lines=len(lines))

    def _bury(self, worker: str) -> None:
        """Give up what a dead worker never ended, once all it did write has been read."""
        files = self._tail.of_worker(worker)
        if worker in self._lost or not all(file.complete or self._tail.is_read(file) for file in files):
            return
        for file in files:
            if not file.complete:
                self._close(file)
        self._lost.add(worker)
        self._join.lost(worker, now=time.monotonic())
        self._settle()

    def _sweep(self, worker: str, *, dead: bool) -> None:
        """Delete the files nobody needs: wholly read, as are all before them, and settled."""
        for file in self._tail.of_worker(worker):
            if not file.complete:
                break
            if self._join.is_clear(file.name):
                self._tail.delete(file)
                self._join.forget(file.name)
                log.info("spool file settled", action="ledger.sweep", file=file.name, bytes=file.offset)
        if dead and not self._tail.of_worker(worker):
            self._workers.forget(worker)
