"""The spool: a worker's append-only file of usage records, durable before anything is answered. Step 12, the worker's
side.

An `open` is written at once. An `end` is written with the next `open`, or by `flush`, which comes before the bytes it
must precede. A thread syncs whole groups with one `fdatasync`. Opens are synced at once, but where many come
REST_SECONDS after the last group; ends within END_SYNC_SECONDS. Process death loses nothing that was written. Each file
is locked (flock) before it has its name, and until the next one has. So while the worker runs one of its files is
locked. The kernel drops the lock with the process, however it ends, so that the ledger knows the dead.

Three failures to survive. The disk is full: a torn line is cut off again, opens raise SpoolFull, and ends wait in
memory, so what runs can finish. A kill -9 in that time loses these ends, and their requests are billed as lost with
their router. The disk will not sync: a new file is begun, and opens are refused for a moment; what runs is not
punished. The ledger is away: it finds the files later.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from pilotlight.files import sync_folder
from router.errors import DiskFull, SpoolFull
from router.spool.record import UNNAMED

ROTATE_BYTES = 16 << 20
END_SYNC_SECONDS = 0.003
# after a sync of BUSY_LINES or more: it costs the CPU more than a request does, so the next is to be for many
REST_SECONDS = 0.001
BUSY_LINES = 8  # four requests
TELL_SECONDS = 0.1  # news for the ledger is gathered so long
RETRY_SECONDS = 1.0
DISK_FULL_SECONDS = 5.0  # after which a refused caller is told to try again
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

log = structlog.get_logger()

Tell = Callable[[str, int], None]


@dataclass(slots=True)
class _File:
    name: str
    descriptor: int
    size: int = 0
    last: int = 0  # number of the last line in it
    broken: bool = False  # the disk would not sync it: it is not asked again


@dataclass(frozen=True, slots=True)
class _Sync:
    """What the thread is to do: make everything up to line `target`, and what is in `file` by then, durable; close the
    `retired`.
    """

    target: int
    file: _File | None  # the one that is written; where there is none, the last that was: it keeps its lock
    retired: tuple[_File, ...]
    folder: Path | None  # set when a file in it is new


class Spool:
    """One worker's spool. `write`, `sync` and `close` are the disk: the system's, or a broken one in tests.

    `shortage` says why no new request may be taken, "" where one may: before the disk is full, so that ends have room.
    """

    def __init__(
        self,
        folder: Path,
        worker_id: str,
        *,
        loop: asyncio.AbstractEventLoop,
        write: Callable[[int, bytes], int] = os.write,
        sync: Callable[[int], None] = os.fdatasync,
        close: Callable[[int], None] = os.close,
        shortage: Callable[[], str] = lambda: "",
    ) -> None:
        self._folder = folder
        self._worker_id = worker_id
        self._loop = loop
        self._shortage = shortage
        self._write = write
        self._sync = sync
        self._close = close
        self._file: _File | None = None
        self._number = 0
        self._retired: list[_File] = []
        self._fresh = False
        self._refusing = False
        self._written = 0  # lines in all
        self._opened = 0  # lines up to the last open
        self.synced = 0  # lines that are durable
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._ends: deque[bytes] = deque()  # not written yet
        self._full = False  # the disk had no room for them
        self._jobs: queue.SimpleQueue[_Sync | None] = queue.SimpleQueue()
        self._syncing = False
        self._end_timer: asyncio.TimerHandle | None = None
        self._tell: Tell | None = None
        self._grown: dict[str, int] = {}
        self._tell_timer: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._sync_for_ever, name="spool", daemon=True)
        self._thread.start()

    def open(self, line: bytes) -> int:
        """Write an open record; returns the number for `when_synced`. Raises SpoolFull."""
        if self._refusing:
            raise _failing("cannot be synced")
        if reason := self._shortage():
            raise _full(reason)
        try:
            self._append(b"".join((*self._ends, line)), 1 + len(self._ends))
        except OSError as error:
            self._write_ends()  # they are smaller, and matter more
            reason = error.strerror or str(error)
            raise (_full(f"disk full: {reason}") if error.errno in NO_ROOM else _failing(reason)) from error
        self._ends.clear()
        self._opened = self._written
        self._ask()
        return self._opened

    def end(self, line: bytes) -> None:
        """Take an end record; it is in the file after the next `open` or `flush`, where the disk has no room, later."""
        self._ends.append(line)
        if not self._syncing:
            self._ask_soon()

    def flush(self) -> None:
        """Write the ends. Before the last byte of the answers they are of."""
        if self._ends and not self._full:
            self._write_ends()

    def when_synced(self, number: int, callback: Callable[[], None]) -> None:
        """Call once line `number` is durable (later, from the loop)."""
        self._waiting.append((number, callback))

    def tell(self, tell: Tell | None) -> None:
        """Whom to tell how far which file has grown; None: nobody for now. Begins with the file that is being
        written.
        """
        self._tell = tell
        if tell is not None and self._file is not None:
            tell(self._file.name, self._file.size)

    def close(self) -> None:
        """Make all durable and stop the thread. Blocks for one sync: only when the loop has nothing else to do."""
        self._write_ends()
        if self._file is not None:
            self._retire()
        job = self._job()
        self._jobs.put(replace(job, file=None, retired=(*job.retired, *([job.file] if job.file else ()))))
        self._retired = []
        self._jobs.put(None)
        self._thread.join()
        self._tell_now()

    # Writing

    def _append(self, data: bytes, lines: int) -> None:
        """All of it or, raising OSError, nothing."""
        file = self._file
        if file is None or file.size + len(data) > ROTATE_BYTES:
            file = self._rotate()
        written = self._write(file.descriptor, data)
        if written != len(data):
            self._cut(file)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file.size += written
        self._written += lines
        file.last = self._written

    def _rotate(self) -> _File:
        name = f"{self._worker_id}.{self._number}.jsonl"
        descriptor = _locked(self._folder / name)
        if self._file is not None:
            self._retire()
        self._number += 1
        self._fresh = True
        self._file = _File(name, descriptor)
        return self._file

    def _retire(self) -> None:
        assert self._file is not None
        self._grown[self._file.name] = self._file.size
        self._retired.append(self._file)
        self._file = None

    def _cut(self, file: _File) -> None:
        """Take back a torn line; where that fails too, it stays the last of its file."""
        try:
            os.ftruncate(file.descriptor, file.size)
        except OSError:
            self._retire()

    def _write_ends(self) -> None:
        """All at once; where the disk has no room for all, as many as go."""
        ends = self._ends
        while ends:
            try:
                self._append(b"".join(ends), len(ends))
                ends.clear()
            except OSError:
                try:
                    self._append(ends[0], 1)
                    ends.popleft()
                except OSError as error:
                    self._has_no_room(error)
                    return
        self._full = False

    def _has_no_room(self, error: OSError) -> None:
        if not self._full:
            self._full = True
            log.error("the spool takes no more; new requests are refused", action="spool_full", reason=str(error))
            self._loop.call_later(RETRY_SECONDS, self._retry_ends)

    def _retry_ends(self) -> None:
        self._full = False
        self._write_ends()
        self._ask_soon()

    # Syncing

    def _job(self) -> _Sync:
        kept = [] if self._file else self._retired[-1:]  # until another file is locked, this lock says that we live
        retired = tuple(file for file in self._retired if file not in kept)
        job = _Sync(self._written, self._file or next(iter(kept), None), retired, self._folder if self._fresh else None)
        self._retired, self._fresh = kept, False
        return job

    def _ask(self) -> None:
        if not self._syncing:
            self._syncing = True
            self._jobs.put(self._job())

    def _ask_soon(self) -> None:
        if self._end_timer is None and not self._syncing:
            self._end_timer = self._loop.call_later(END_SYNC_SECONDS, self._ask_late)

    def _ask_late(self) -> None:
        self._end_timer = None
        self.flush()
        if self._written > self.synced:
            self._ask()

    def _sync_for_ever(self) -> None:
        """The thread. It alone closes files."""
        while (job := self._jobs.get()) is not None:
            target = max(job.target, job.file.last if job.file else 0)
            error: OSError | None = None
            try:
                for file in (*job.retired, *((job.file,) if job.file else ())):
                    self._make_durable(file)
                if job.folder:
                    sync_folder(job.folder)
            except OSError as failure:
                error = failure
            for file in job.retired:
                try:
                    self._close(file.descriptor)
                except OSError as failure:
                    # the descriptor is gone all the same;
                    # what it says of the disk counts as a sync's word
                    error = error or failure
            try:
                self._loop.call_soon_threadsafe(self._done, job, target, error)
            except RuntimeError:
                pass  # the loop is closed: the process is ending

    def _make_durable(self, file: _File) -> None:
        if file.broken:
            return  # the kernel would call it durable now, and it is not
        try:
            self._sync(file.descriptor)
        except OSError:
            file.broken = True
            raise

    def _done(self, job: _Sync, target: int, error: OSError | None) -> None:
        busy = target - self.synced >= BUSY_LINES
        self.synced = target
        self.flush()  # before the answers that now go out
        if error is not None:
            self._unsynced(job, error)
        due = [callback for number, callback in self._waiting if number <= target]
        if due:
            self._waiting = [entry for entry in self._waiting if entry[0] > target]
        if busy:
            self._loop.call_later(REST_SECONDS, self._rested)  # what is written meanwhile goes with the next
        else:
            self._rested()
        if self._file is not None:
            self._grown[self._file.name] = self._file.size
        if self._tell_timer is None:
            self._tell_timer = self._loop.call_later(TELL_SECONDS, self._tell_now)
        for callback in due:
            callback()

    def _rested(self) -> None:
        self._syncing = False
        if self._opened > self.synced:
            self._ask()
        elif self._written > self.synced or self._ends:
            self._ask_soon()

    def _unsynced(self, job: _Sync, error: OSError) -> None:
        """What is in this file may be lost with the power, and only then. Begin another, and refuse opens meanwhile."""
        log.error("the spool could not be synced; new requests are refused", action="spool_sync", reason=str(error))
        if job.file is self._file is not None:
            self._retire()
        self._refusing = True
        self._loop.call_later(RETRY_SECONDS, self._accept)

    def _accept(self) -> None:
        self._refusing = False

    def _tell_now(self) -> None:
        self._tell_timer = None
        grown, self._grown = self._grown, {}
        if self._tell is not None:
            for name, size in grown.items():
                self._tell(name, size)


def _locked(path: Path) -> int:
    """A new file, ours alone, open for appending: locked before it has its name. Raises OSError."""
    unnamed = path.with_name(path.name + UNNAMED)
    descriptor = os.open(unnamed, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.rename(path)
    except OSError:
        os.close(descriptor)
        unnamed.unlink(missing_ok=True)
        raise
    return descriptor


def _full(reason: str) -> DiskFull:
    text = f"{reason[:1].upper()}{reason[1:]}. What runs goes on; new requests are taken again when the operator has made room."
    return DiskFull(text, retry_after=DISK_FULL_SECONDS)


def _failing(reason: str) -> SpoolFull:
    return SpoolFull(
        f"This router cannot write its usage records ({reason}), so it takes no requests. Its operator must mend the disk."
    )
