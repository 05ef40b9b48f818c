"""The last durable count of every request in work, so that what a lost replica made is billed. Step 12.

Replicas report once a second what each of their requests has so far. The agent keeps the newest of it in memory, and
once a second on disk, together with what the journals gained. When a replica is gone, each of its requests without a
line of its own gets one here, marked `partial`.

The failures to survive: of a replica killed -9 the last beat counts. When an agent is killed -9 its replicas end with
it, and the next agent reads the kept counts and writes the lines. Power loss is the same. On a disk without room the
counts are kept, and the journal counts as incomplete until the lines are written. What is billed is at most two seconds
behind a killed replica, for a beat reports what was counted up to a second ago. It is one more behind a killed agent or
the power, if the disk keeps what it was asked to.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from pydantic import ValidationError

from pilotlight.files import write_atomic
from pilotlight.frames import Frame
from pilotlight.sealed import is_intact, seal
from runtime.journal_line import encode, recover
from runtime.wire import RequestCount, UsageEntry

MOST_BYTES = 1 << 20  # of the file of counts; then it is begun anew

log = structlog.get_logger()


class OfReplica(Frame):
    """What one replica had in work."""

    replica_id: str
    offset: int  # bytes of its journal that were written before: none of these requests has its line there
    counts: tuple[RequestCount, ...]


class Snapshot(Frame):
    """One line of the file: all there was in work on this node."""

    replicas: tuple[OfReplica, ...]


@dataclass(slots=True)
class _Heard:
    counts: dict[str, RequestCount] = field(default_factory=dict)
    offset: int = 0  # size of its journal at the beat before
    size: int = 0  # and at this one
    turns: int = 0  # beats of a replica whose event loop turned


class Counts:
    """Made before the agent ships anything: it first writes the lines of replicas that a dead agent left. `folder`: of
    the journals.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / "counts.log"
        self._heard: dict[str, _Heard] = {}
        self._synced: dict[Path, int] = {}  # journals, and how much of them the disk was told to keep
        self._keeping: asyncio.Future[None] | None = None
        self._failing = False
        self._refused = set[str]()  # of those: the ones it was told of
        self._lost = {left.replica_id: left for left in self._kept()}  # gone, and their lines are not written yet
        self.retry()
        self._empty = not self._lost
        if not self._lost:
            self._file.unlink(missing_ok=True)

    def heard(
        self, replica_id: str, counts: Sequence[RequestCount], *, turned: bool = True, rest: bool = False
    ) -> None:
        """A beat, or the `rest` of one. `turned`: the replica's event loop has turned since the beat before."""
        before = self._heard.get(replica_id)
        now = {count.request_id: count for count in counts}
        if before is not None and rest:
            before.counts |= now
            return
        heard = _Heard(
            now, before.size if before else 0, self._size(replica_id), (before.turns if before else 0) + turned
        )
        self._heard[replica_id] = heard

    def turns(self, replica_id: str) -> int:
        """How many beats came from this replica with its event loop turning."""
        heard = self._heard.get(replica_id)
        return heard.turns if heard else 0

    def in_work(self, replicas: Iterable[str]) -> list[str]:
        """The requests these had in work when they beat last, and of those that are gone the ones whose lines are still
        to come.
        """
        asked = list(replicas)
        running = [
            request_id for replica_id in asked if (heard := self._heard.get(replica_id)) for request_id in heard.counts
        ]
        return running + [
            count.request_id for lost in self._lost.values() if lost.replica_id in asked for count in lost.counts
        ]

    def gone(self, replica_id: str) -> bool:
        """The replica is gone: what it had in work and has no line gets one. False: the disk does not take it; `retry`
        must.
        """
        self._synced.pop(self._journal(replica_id), None)
        if (heard := self._heard.pop(replica_id, None)) and heard.counts:
            self._lost[replica_id] = OfReplica(
                replica_id=replica_id, offset=heard.offset, counts=tuple(heard.counts.values())
            )
            self.retry()
        return replica_id not in self._lost

    @property
    def unwritten(self) -> frozenset[str]:
        """Replicas that are gone and whose journals are not whole yet."""
        return frozenset(self._lost)

    def retry(self) -> list[str]:
        """Write what a disk did not take. Returns the replicas whose journals are whole now."""
        written = [lost.replica_id for lost in self._lost.values() if self._write_lost(lost)]
        for replica_id in written:
            del self._lost[replica_id]
        self._refused &= self._lost.keys()
        return written

    def snapshot(self) -> Snapshot | None:
        """What is to be made durable; None: nothing has run since the last."""
        replicas = [
            OfReplica(replica_id=name, offset=heard.offset, counts=tuple(heard.counts.values()))
            for name, heard in self._heard.items()
            if heard.counts
        ] + list(self._lost.values())
        was_empty, self._empty = self._empty, not replicas
        return None if was_empty and not replicas else Snapshot(replicas=tuple(replicas))

    def keep(self, journals: Sequence[Path]) -> None:
        """Once a second, from the loop: have a thread make it durable, one at a time."""
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.get_running_loop().run_in_executor(None, self.persist, self.snapshot(), journals)
            self._keeping.add_done_callback(self._kept_it)

    def _kept_it(self, keeping: asyncio.Future[None]) -> None:
        """A disk that does not take it is told of once, and asked again with the next second."""
        error = None if keeping.cancelled() else keeping.exception()
        if error is not None and not self._failing:
            log.error("counts and journals are not durable; trying on", action="counts_unkept", reason=str(error))
        self._failing = error is not None

    def persist(self, snapshot: Snapshot | None, journals: Sequence[Path]) -> None:
        """In a thread: make a snapshot durable, and what these journals gained. Raises OSError."""
        for journal in journals:
            self._sync(journal)
        if snapshot is None:
            return
        line = seal(snapshot.model_dump_json().encode())
        if not self._file.exists() or self._file.stat().st_size > MOST_BYTES:
            write_atomic(self._file, line)
            return
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, line)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def _sync(self, journal: Path) -> None:
        try:
            descriptor = os.open(journal, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            size = os.fstat(descriptor).st_size
            if self._synced.get(journal, 0) < size:
                os.fdatasync(descriptor)
                self._synced[journal] = size
        finally:
            os.close(descriptor)

    def _journal(self, replica_id: str) -> Path:
        return self._folder / f"{replica_id}.jsonl"

    def _size(self, replica_id: str) -> int:
        try:
            return self._journal(replica_id).stat().st_size
        except FileNotFoundError:
            return 0

    def _kept(self) -> tuple[OfReplica, ...]:
        """What the last whole line of the file says."""
        lines = self._file.read_bytes().splitlines() if self._file.exists() else []
        for line in reversed(lines):
            if is_intact(line):
                try:
                    return Snapshot.model_validate_json(line, extra="ignore").replicas
                except ValidationError as error:
                    log.error(
                        "the kept counts cannot be read", action="counts_lost", reason=str(error.errors()[0]["msg"])
                    )
                    return ()
        return ()

    def _write_lost(self, gone: OfReplica) -> bool:
        """A partial line for each of these that has none behind `offset`; all or none. One whose journal was shipped
        and forgotten needs none. False: the disk refuses.
        """
        try:
            with self._journal(gone.replica_id).open("r+b", buffering=0) as journal:
                journal.seek(gone.offset)
                written = journal.read()
                lines = [encode(entry) for entry in lost(gone.replica_id, gone.counts, written)]
                if lines:
                    _append(journal, (b"" if written.endswith(b"\n") or not written else b"\n") + b"".join(lines))
        except FileNotFoundError:
            return True
        except OSError as error:
            if gone.replica_id not in self._refused:
                log.error(
                    "the last counts of a lost replica cannot be written; they are kept, and tried again each second",
                    action="counts_unwritten",
                    replica_id=gone.replica_id,
                    reason=str(error),
                )
            self._refused.add(gone.replica_id)
            return False
        if lines:
            log.warning(
                "a replica was lost with requests in work",
                action="counts_partial",
                replica_id=gone.replica_id,
                requests=len(lines),
            )
        return True


def _append(journal: io.FileIO, data: bytes) -> None:
    """All of it, durably, or nothing. Raises OSError."""
    end = journal.tell()
    try:
        if journal.write(data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fdatasync(journal.fileno())
    except OSError:
        with contextlib.suppress(OSError):  # what stays of it is a torn line, which readers know
            journal.truncate(end)
        raise


def lost(replica_id: str, counts: Iterable[RequestCount], written: bytes) -> list[UsageEntry]:
    """The partial entries of those requests that have no line in `written`. Pure."""
    finished = {
        said.request_id for line in written.splitlines() for _, said in recover(line) if isinstance(said, UsageEntry)
    }
    return [
        UsageEntry(
            request_id=count.request_id,
            replica_id=replica_id,
            input_tokens=count.input_tokens,
            cached_tokens=count.cached_tokens,
            output_tokens=count.output_tokens,
            finish="lost",
            partial=True,
        )
        for count in counts
        if count.request_id not in finished
    ]
